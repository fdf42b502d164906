{{/* Every object's name: the release's, with the chart's unless it is said already. */}}
{{- define "fedtrain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selects everything of this release, and never changes. */}}
{{- define "fedtrain.instance" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the operator's pods, and never changes. */}}
{{- define "fedtrain.selector" -}}
{{ include "fedtrain.instance" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* What every object has beside what selects it. */}}
{{- define "fedtrain.about" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "fedtrain.labels" -}}
{{ include "fedtrain.selector" . }}
{{ include "fedtrain.about" . }}
{{- end -}}

{{/* Of a pod and of its container: what Pod Security calls restricted. */}}
{{- define "fedtrain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "fedtrain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "fedtrain.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "fedtrain.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* How an image is pulled: (list . its values). */}}
{{- define "fedtrain.imageOf" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "fedtrain.image" -}}
{{- include "fedtrain.imageOf" (list . .Values.image) -}}
{{- end -}}

{{/* The namespace that is watched; empty for all. */}}
{{- define "fedtrain.watched" -}}
{{- if not .Values.watch.clusterWide -}}
{{- default .Release.Namespace .Values.watch.namespace -}}
{{- end -}}
{{- end -}}
