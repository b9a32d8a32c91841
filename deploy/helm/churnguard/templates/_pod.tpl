{{/* The parts of every pod. Each takes (dict "root" $ "part" NAME "values" VALUES-OF-THE-PART). */}}

{{/* What holds for the part: its own `pod` over the common one. */}}
{{- define "churnguard.pod.settings" -}}
{{- mergeOverwrite (deepCopy .root.Values.pod) (deepCopy .values.pod) | toYaml -}}
{{- end }}

{{- define "churnguard.env.secret" -}}
- name: {{ .name }}
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}}
{{- end }}

{{/* The environment of all: where things are, what `config` says, and the secrets by their own keys, so that no pod has
one that is not meant for it. */}}
{{- define "churnguard.env" -}}
{{- $secret := include "churnguard.secret" .root -}}
{{- $keys := .root.Values.secretKeys -}}
- {name: CHURNGUARD_HOME, value: /var/lib/churnguard}
- {name: DAGSTER_HOME, value: /etc/churnguard/dagster}
- {name: MPLCONFIGDIR, value: /tmp/matplotlib}
{{- $defaults := dict
  "INTEGRATION_ENGINE_LOG_FORMAT" "json"
  "CHURNGUARD_METRICS_HOST" "0.0.0.0"
  "CHURNGUARD_METRICS_PORT" "9090"
  "CHURNGUARD_GATEWAY_URL" (printf "http://%s-gateway:8080" (include "churnguard.name" .root))
  "CHURNGUARD_CODE_SERVER_HOST" (printf "%s-code-server" (include "churnguard.name" .root))
  "CHURNGUARD_CODE_SERVER_PORT" "4000" -}}
{{- range $name, $value := merge (deepCopy .root.Values.config) (.own | default dict) $defaults }}
- {name: {{ $name }}, value: {{ kindIs "float64" $value | ternary (int64 $value) $value | toString | quote }}}
{{- end }}
{{ include "churnguard.env.secret" (dict "name" "CHURNGUARD_DATABASE_URL" "secret" $secret "key" $keys.databaseUrl) }}
{{ include "churnguard.env.secret" (dict "name" "INTEGRATION_ENCRYPTION_KEY" "secret" $secret "key" $keys.encryptionKey) }}
{{- with $keys.redisUrl }}
{{ include "churnguard.env.secret" (dict "name" "REDIS_URL" "secret" $secret "key" .) }}
{{- end }}
{{- with $keys.oidcClientSecret }}
{{ include "churnguard.env.secret" (dict "name" "OIDC_CLIENT_SECRET" "secret" $secret "key" .) }}
{{- end }}
{{- with (include "churnguard.pod.settings" . | fromYaml).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "churnguard.pod.security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "churnguard.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The root is read only; these are what a process may write, and Dagster's instance. */}}
{{- define "churnguard.mounts" -}}
- {name: home, mountPath: /var/lib/churnguard}
- {name: tmp, mountPath: /tmp}
- {name: dagster, mountPath: /etc/churnguard/dagster, readOnly: true}
{{- with (include "churnguard.pod.settings" . | fromYaml).extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "churnguard.volumes" -}}
- name: home
  emptyDir: {sizeLimit: 1Gi}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
- name: dagster
  configMap: {name: {{ include "churnguard.name" .root }}-dagster}
{{- with (include "churnguard.pod.settings" . | fromYaml).extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where a pod may run. */}}
{{- define "churnguard.placement" -}}
{{- $pod := include "churnguard.pod.settings" . | fromYaml -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" }}
{{- with get $pod $name }}
{{ $name }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "churnguard.pod.metadata" -}}
{{- $pod := include "churnguard.pod.settings" . | fromYaml -}}
labels:
  {{- include "churnguard.labels" . | nindent 2 }}
  {{- with $pod.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A pod reads Dagster's instance once: a change rolls it.
  checksum/dagster: {{ include "churnguard.instance" .root | sha256sum }}
  {{- with $pod.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* A whole pod of a service. Also takes "role", the command; "account", the ServiceAccount if it talks to Kubernetes;
"own", environment; "ports"; "grace", seconds; "probes", YAML. A startup probe has an hour: who waits for its database
listens nowhere and says so in its log, and a restart would only add Kubernetes' pause before it to the wait. */}}
{{- define "churnguard.pod" -}}
metadata: {{- include "churnguard.pod.metadata" . | nindent 2 }}
spec:
  serviceAccountName: {{ include "churnguard.name" .root }}{{ with .account }}-{{ . }}{{ end }}
  automountServiceAccountToken: {{ not (empty .account) }}
  enableServiceLinks: false # a Service's address is no setting of ours
  terminationGracePeriodSeconds: {{ .grace }}
  securityContext: {{- include "churnguard.pod.security" . | nindent 4 }}
  {{- with include "churnguard.placement" . }}{{ . | nindent 2 }}{{ end }}
  containers:
    - name: {{ .part }}
      image: {{ include "churnguard.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .role }}]
      env: {{- include "churnguard.env" . | nindent 8 }}
      {{- with (include "churnguard.pod.settings" . | fromYaml).extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        {{- range $name, $port := .ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}}
        {{- end }}
        - {name: metrics, containerPort: 9090}
      {{- with .probes }}{{ trim . | nindent 6 }}{{ end }}
      resources: {{- toYaml .values.resources | nindent 8 }}
      securityContext: {{- include "churnguard.container.security" . | nindent 8 }}
      volumeMounts: {{- include "churnguard.mounts" . | nindent 8 }}
  volumes: {{- include "churnguard.volumes" . | nindent 4 }}
{{- end }}
