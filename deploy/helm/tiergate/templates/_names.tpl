{{- define "tiergate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters, so that suffixes such as -policy-reader still make a valid name. */}}
{{- define "tiergate.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $both := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $both .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* A StatefulSet's pods bear its name and a hash as a label, which has 63 characters at most; Triton's, and its Service's. */}}
{{- define "tiergate.triton" -}}
{{- printf "%s-triton" (include "tiergate.fullname" . | trunc 45 | trimSuffix "-") -}}
{{- end -}}

{{/* A Job's pods bear its name as a label too; a hash of eight characters follows. */}}
{{- define "tiergate.build" -}}
{{- printf "%s-build" (include "tiergate.fullname" . | trunc 48 | trimSuffix "-") -}}
{{- end -}}

{{/* What selects pods: never changes in the life of a release. Takes a list: root, component. */}}
{{- define "tiergate.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "tiergate.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "tiergate.labels" -}}
{{- $root := index . 0 -}}
{{ include "tiergate.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The reference of an image. Takes a list: root, image values. */}}
{{- define "tiergate.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end -}}

{{- define "tiergate.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "tiergate.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "tiergate.claim" -}}
{{- default (printf "%s-models" (include "tiergate.fullname" .)) .Values.models.pvc.existingClaim -}}
{{- end -}}

{{- define "tiergate.adminSecret" -}}
{{- default (printf "%s-admin" (include "tiergate.fullname" .)) .Values.admin.existingSecret -}}
{{- end -}}

{{- define "tiergate.policyConfigMap" -}}
{{- default (printf "%s-policy" (include "tiergate.fullname" .)) .Values.policyConfigMap -}}
{{- end -}}
