"""The Helm chart: what it renders to, and what that does on a real kube-apiserver."""
