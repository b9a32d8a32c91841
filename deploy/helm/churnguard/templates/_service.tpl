{{/* Beside a Deployment. Each takes (dict "root" $ "part" NAME "values" VALUES-OF-THE-PART). */}}

{{- define "churnguard.service" -}}
apiVersion: v1
kind: Service
metadata: {{- include "churnguard.metadata" . | nindent 2 }}
spec:
  selector: {{- include "churnguard.selector" . | nindent 4 }}
  ports:
    - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}{{ with .protocol }}, appProtocol: {{ . }}{{ end }}}
{{- end }}

{{/* One at a time, however many there are: a drain always goes on. */}}
{{- define "churnguard.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{- include "churnguard.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "churnguard.selector" . | nindent 6 }}
{{- end }}

{{- define "churnguard.autoscaler" -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{- include "churnguard.metadata" . | nindent 2 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "churnguard.name" .root }}-{{ .part }}}
  {{- with .values.autoscaling }}
  minReplicas: {{ .minReplicas }}
  maxReplicas: {{ .maxReplicas }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .targetCPUUtilizationPercentage }}}}
  {{- end }}
{{- end }}

{{/* An Ingress or an HTTPRoute of its own for each, so that what is public and what is not share no annotation. Also
takes "path", "port". */}}
{{- define "churnguard.exposure" -}}
{{- with .values.ingress }}
{{- if .enabled }}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "churnguard.metadata" $ | nindent 2 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  rules:
    - host: {{ required (printf "%s.ingress.host is not set: name the host it answers to." $.part) .host | quote }}
      http:
        paths:
          - path: {{ $.path }}
            pathType: Prefix
            backend: {service: {name: {{ include "churnguard.name" $.root }}-{{ $.part }}, port: {name: http}}}
  {{- with .tls }}
  tls: {{- toYaml . | nindent 4 }}
  {{- end }}
---
{{- end }}
{{- end }}
{{- with .values.httpRoute }}
{{- if .enabled }}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  {{- include "churnguard.metadata" $ | nindent 2 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs: {{- toYaml .parentRefs | nindent 4 }}
  {{- with .hostnames }}
  hostnames: {{- toYaml . | nindent 4 }}
  {{- end }}
  rules:
    - matches:
        - path: {type: PathPrefix, value: {{ $.path }}}
      backendRefs:
        - {name: {{ include "churnguard.name" $.root }}-{{ $.part }}, port: {{ $.port }}}
---
{{- end }}
{{- end }}
{{- end }}
