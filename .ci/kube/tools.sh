#!/usr/bin/env bash
# A real kube-apiserver and kube-controller-manager out of Kubernetes' own Go modules (kubectl too, where there is none),
# and Debian's etcd, for the tests of the chart. Prints the folder they are in. The first call on a machine takes minutes; what it built is kept outside
# the clone, under the name of what it was built from.
set -euo pipefail
cd "$(dirname "$0")"
version=$(sed -nE 's#^\tk8s.io/kubernetes v([0-9.]+).*#\1#p' go.mod)
toolchain=$(go env GOVERSION)
sum=$(cat go.mod go.sum | sha256sum | cut -c1-16)
folder="${XDG_CACHE_HOME:-$HOME/.cache}/churnguard-deploy/kube-$version-$toolchain-$sum"
mkdir -p "$folder"
exec 9>"$folder/.lock"
flock 9 # two callers at once build it once
staging=$(mktemp -d "$folder/.staging.XXXXXX")
trap 'rm -rf "$staging"' EXIT

component=k8s.io/component-base/version # where a program's own number is written; without it kubectl warns of v0.0.0
numbers="-X $component.gitVersion=v$version -X $component.gitMajor=${version%%.*} -X $component.gitMinor=$(cut -d. -f2 <<<"$version")"
for program in kube-apiserver kube-controller-manager kubectl; do
  test -x "$folder/$program" && continue
  test "$program" = kubectl && command -v kubectl >/dev/null && continue # a version apart does as well
  echo "Building $program $version from its Go modules, once on this machine: some minutes …" >&2
  CGO_ENABLED=0 nice go build -trimpath -ldflags "-s -w $numbers" -o "$staging/$program" "k8s.io/kubernetes/cmd/$program"
  mv "$staging/$program" "$folder/"
done
test -x "$folder/etcd" || {
  (
    cd "$staging"
    apt-get -qq download etcd-server || { apt-get -qq update && apt-get -qq download etcd-server; }
    dpkg-deb -x etcd-server_*.deb unpacked
  ) >&2
  mv "$staging/unpacked/usr/bin/etcd" "$folder/"
}
echo "$folder"
