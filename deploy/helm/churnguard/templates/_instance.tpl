{{/* Dagster's instance: the product's own dagster.yaml with what is different in a cluster, and `dagster` over it. */}}
{{- define "churnguard.instance" -}}
{{- $runs := dict "root" . "part" "run" "values" .Values.runs -}}
{{- $pod := include "churnguard.pod.settings" $runs | fromYaml -}}
{{- $container := dict
  "env" (include "churnguard.env" $runs | fromYamlArray)
  "envFrom" $pod.extraEnvFrom
  "resources" .Values.runs.resources
  "securityContext" (include "churnguard.container.security" . | fromYaml)
  "volumeMounts" (include "churnguard.mounts" $runs | fromYamlArray) -}}
{{- $spec := merge (dict
  "automountServiceAccountToken" false
  "enableServiceLinks" false
  "terminationGracePeriodSeconds" 120
  "securityContext" (include "churnguard.pod.security" . | fromYaml)
  "volumes" (include "churnguard.volumes" $runs | fromYamlArray)
  ) (omit (include "churnguard.placement" $runs | fromYaml) "imagePullSecrets") -}}
{{- $labels := include "churnguard.labels" $runs | fromYaml -}}
{{- $launcher := dict
  "module" "dagster_k8s.launcher"
  "class" "K8sRunLauncher"
  "config" (dict
    "service_account_name" (include "churnguard.name" .)
    "instance_config_map" (printf "%s-dagster" (include "churnguard.name" .))
    "dagster_home" "/etc/churnguard/dagster"
    "job_namespace" .Release.Namespace
    "job_image" (include "churnguard.image" .)
    "image_pull_policy" .Values.image.pullPolicy
    "image_pull_secrets" .Values.imagePullSecrets
    "run_k8s_config" (dict
      "container_config" $container
      "pod_spec_config" $spec
      "pod_template_spec_metadata" (dict "annotations" $pod.annotations "labels" (merge (deepCopy $pod.labels) $labels))
      "job_metadata" (dict "labels" $labels)
      "job_spec_config" (dict
        "backoff_limit" 0
        "active_deadline_seconds" .Values.runs.longestSeconds
        "ttl_seconds_after_finished" .Values.runs.keepFinishedSeconds))) -}}
{{- $differs := dict
  "run_launcher" $launcher
  "compute_logs" (dict "module" "dagster._core.storage.noop_compute_log_manager" "class" "NoOpComputeLogManager")
  "run_monitoring" (dict "start_timeout_seconds" .Values.runs.startTimeoutSeconds "max_resume_run_attempts" 0) -}}
{{- mergeOverwrite (.Files.Get "files/dagster.yaml" | fromYaml) $differs (deepCopy .Values.dagster) | toYaml }}
{{- end }}
