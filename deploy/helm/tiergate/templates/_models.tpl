{{/* The volume of built models, by models.source. Refuses what a cluster of this version cannot mount. */}}
{{- define "tiergate.modelsVolume" -}}
{{- $models := .Values.models -}}
- name: models
{{- if eq $models.source "pvc" }}
  persistentVolumeClaim: {claimName: {{ include "tiergate.claim" . }}}
{{- else if eq $models.source "image" }}
  {{- if semverCompare "<1.31.0-0" .Capabilities.KubeVersion.Version }}
  {{- fail (printf "models.source is image, and this cluster is %s; image volumes came with Kubernetes 1.31: take pvc or init" .Capabilities.KubeVersion.Version) }}
  {{- end }}
  image:
    reference: {{ required "models.source is image: give models.image.reference" $models.image.reference | quote }}
    pullPolicy: {{ $models.image.pullPolicy }}
{{- else }}
  emptyDir: {sizeLimit: {{ $models.init.sizeLimit }}}
{{- end }}
{{- end -}}

{{- define "tiergate.waits" -}}
{{- if or .Values.build.enabled .Values.models.waitForFirst }}yes{{ end -}}
{{- end -}}

{{- define "tiergate.repository" -}}
{{- printf "/models/%s" .Values.models.path | trimSuffix "/" -}}
{{- end -}}

{{/* What runs before the gateway: the container that brings the models, or the wait for the first build. */}}
{{- define "tiergate.initContainers" -}}
{{- if eq .Values.models.source "init" }}
- name: bring-models
  image: {{ required "models.source is init: give models.init.image" .Values.models.init.image | quote }}
  imagePullPolicy: {{ .Values.models.init.pullPolicy }}
  command:
    {{- toYaml .Values.models.init.command | nindent 4 }}
  resources:
    {{- toYaml .Values.models.init.resources | nindent 4 }}
  securityContext:
    {{- include "tiergate.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models}
{{- end }}
{{- if include "tiergate.waits" . }}
- name: wait-for-models
  image: {{ include "tiergate.image" (list . .Values.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # A build publishes a version by one rename, so a manifest that is there is whole.
  command: [sh, -c, "until ls {{ include "tiergate.repository" . }}/*/*/manifest.json >/dev/null 2>&1; do sleep 2; done"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {cpu: 100m, memory: 64Mi}
  securityContext:
    {{- include "tiergate.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end -}}
