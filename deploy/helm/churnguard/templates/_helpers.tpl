{{- define "churnguard.name" -}}
{{- contains "churnguard" .Release.Name | ternary .Release.Name (printf "%s-churnguard" .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "churnguard.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* What selects the pods of a part; never changes, for a Deployment cannot change it. (dict "root" $ "part" "gateway") */}}
{{- define "churnguard.selector" -}}
app.kubernetes.io/name: churnguard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "churnguard.labels" -}}
{{ include "churnguard.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "churnguard.metadata" -}}
name: {{ include "churnguard.name" .root }}-{{ .part }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "churnguard.labels" . | nindent 2 }}
{{- end }}

{{- define "churnguard.secret" -}}
{{- if not .Values.existingSecret -}}
{{- fail (printf "\n\nexistingSecret is not set: the chart makes no secrets, least of all the key that seals your customers' credentials. Make one and name it:\n\n  kubectl --namespace %s create secret generic churnguard \\\n    --from-literal=CHURNGUARD_OWNER_DATABASE_URL='postgresql://OWNER:PASSWORD@HOST:5432/churnguard' \\\n    --from-literal=CHURNGUARD_DATABASE_URL='postgresql://churnguard_service:ANOTHER-PASSWORD@HOST:5432/churnguard' \\\n    --from-literal=INTEGRATION_ENCRYPTION_KEY=\"$(openssl rand -base64 32 | tr '+/' '-_')\"\n\nthen add --set existingSecret=churnguard. Keep a copy of the key: without it what is sealed cannot be read.\n" .Release.Namespace) -}}
{{- end -}}
{{- .Values.existingSecret -}}
{{- end }}
