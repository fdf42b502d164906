{{/* Values that are right each by itself and wrong together; the schema sees one at a time. */}}
{{- define "fedtrain.refuse" -}}
{{- with .Values.watch -}}
{{- if and .clusterWide .namespace -}}
{{- fail (printf "watch.namespace: %q, but watch.clusterWide is true; set one of the two" .namespace) -}}
{{- end -}}
{{- end -}}
{{- with .Values.tracking -}}
{{- if and .enabled (not .mlflow.uri) (not .tensorboard.claimName) -}}
{{- fail "tracking.enabled: true, but there is nothing to send to; set tracking.mlflow.uri or tracking.tensorboard.claimName" -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics -}}
{{- if and .serviceMonitor.enabled .podMonitor.enabled -}}
{{- fail "metrics.podMonitor.enabled: true, as is metrics.serviceMonitor.enabled; every series would be there twice: enable one of the two" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled (not .service.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled: true, but metrics.service.enabled is false; enable the Service, or metrics.podMonitor in its place" -}}
{{- end -}}
{{- end -}}
{{- end -}}
