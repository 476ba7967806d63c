{{/* What every container of the chart may do: nothing that it does not need. */}}
{{- define "tiergate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "tiergate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* From SIGKILL's side: everything that may pass between the pod's deletion and its end, and 5 s more. */}}
{{- define "tiergate.gracePeriod" -}}
{{- $s := .Values.settings -}}
{{- addf .Values.lifecycle.preStopSeconds $s.drain_grace_s $s.drain_timeout_s 5 | ceil | int -}}
{{- end -}}

{{- define "tiergate.usesTls" -}}
{{- if .Values.tls.secretName }}yes{{ end -}}
{{- end -}}

{{/* pyvoy carries both protocols on the HTTP port. */}}
{{- define "tiergate.grpcPort" -}}
{{- if eq (default "python" .Values.settings.frontend) "pyvoy" }}http{{ else }}grpc{{ end -}}
{{- end -}}

{{/* Takes a list: root, live or ready. Under mTLS the kubelet has no certificate to show: a program in the container asks the
     admin listener, which never asks for one. */}}
{{- define "tiergate.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.clientCaSecretName -}}
exec:
  command:
    - python
    - /opt/tiergate/health.py
    - --port={{ $root.Values.settings.admin_port }}
    {{- if eq (index . 1) "ready" }}
    - --ready
    {{- end }}
    {{- if $root.Values.admin.enabled }}
    - --token-file=/etc/tiergate/admin/token
    {{- end }}
{{- else -}}
httpGet:
  path: /v2/health/{{ index . 1 }}
  port: http
  {{- if include "tiergate.usesTls" $root }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
{{- end -}}

{{- define "tiergate.probes" -}}
{{- $step := ternary 5 2 (not (empty .Values.tls.clientCaSecretName)) -}}
startupProbe:
  {{- include "tiergate.probe" (list . "live") | nindent 2 }}
  periodSeconds: {{ $step }}
  timeoutSeconds: {{ $step }}
  failureThreshold: {{ divf .Values.probes.startupSeconds $step | ceil | int }}
livenessProbe:
  {{- include "tiergate.probe" (list . "live") | nindent 2 }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  {{- if eq .Values.probes.readiness "grpc" }}
  grpc:
    port: {{ ternary .Values.settings.http_port .Values.settings.grpc_port (eq (include "tiergate.grpcPort" .) "http") }}
  {{- else }}
  {{- include "tiergate.probe" (list . "ready") | nindent 2 }}
  {{- end }}
  periodSeconds: {{ $step }}
  timeoutSeconds: {{ $step }}
  failureThreshold: 2
{{- end -}}

{{/* The gateway's container. Takes a list: root, name, path of the repository. */}}
{{- define "tiergate.container" -}}
{{- $root := index . 0 -}}
{{- with $root -}}
name: {{ index $ 1 }}
image: {{ include "tiergate.image" (list . .Values.image) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [serve, {{ index $ 2 | quote }}, --config, /etc/tiergate/settings/settings.yaml]
env:
  {{- if not .Values.exclusiveCores }}
  # The kernel shows every core of the node; what this container may use of them is its CPU limit.
  - name: TIERGATE_LANES
    valueFrom:
      resourceFieldRef: {containerName: {{ index $ 1 }}, resource: limits.cpu, divisor: "1"}
  {{- end }}
  # Whatever image is given: ONNX Runtime reports its use to its maker unless it is told not to.
  - {name: ORT_DISABLE_TELEMETRY, value: "1"}
  - name: POD_NAME
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  - name: NODE_NAME
    valueFrom:
      fieldRef: {fieldPath: spec.nodeName}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: http, containerPort: {{ .Values.settings.http_port }}, protocol: TCP}
  {{- if eq (include "tiergate.grpcPort" .) "grpc" }}
  - {name: grpc, containerPort: {{ .Values.settings.grpc_port }}, protocol: TCP}
  {{- end }}
  {{- if .Values.admin.enabled }}
  - {name: admin, containerPort: {{ .Values.settings.admin_port }}, protocol: TCP}
  {{- end }}
{{ include "tiergate.probes" . }}
lifecycle:
  preStop:
    # Kubernetes takes the pod out of its endpoints while this waits; only then comes SIGTERM.
    exec: {command: [sleep, {{ .Values.lifecycle.preStopSeconds | quote }}]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "tiergate.containerSecurity" . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The mounts of the gateway's container but the models'. */}}
{{- define "tiergate.mounts" -}}
- {name: settings, mountPath: /etc/tiergate/settings, readOnly: true}
# Folders, not single files: only then do changes of the ConfigMap or Secret reach the container.
- {name: policy, mountPath: /etc/tiergate/policy, readOnly: true}
{{- if include "tiergate.remotes" . }}
- {name: remotes, mountPath: /etc/tiergate/remotes, readOnly: true}
{{- end }}
{{- range $name, $secret := .Values.remoteTls }}
- {name: remote-tls-{{ $name }}, mountPath: /etc/tiergate/remote-tls/{{ $name }}, readOnly: true}
{{- end }}
{{- if .Values.admin.enabled }}
- {name: admin, mountPath: /etc/tiergate/admin, readOnly: true}
{{- end }}
{{- if .Values.tls.secretName }}
- {name: tls, mountPath: /etc/tiergate/tls, readOnly: true}
{{- end }}
{{- if .Values.tls.clientCaSecretName }}
- {name: client-ca, mountPath: /etc/tiergate/client-ca, readOnly: true}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "tiergate.volumes" -}}
- name: settings
  configMap: {name: {{ include "tiergate.fullname" . }}-settings}
- name: policy
  configMap: {name: {{ include "tiergate.policyConfigMap" . }}}
{{- if include "tiergate.remotes" . }}
- name: remotes
  configMap: {name: {{ include "tiergate.fullname" . }}-remotes}
{{- end }}
{{- range $name, $secret := .Values.remoteTls }}
- name: remote-tls-{{ $name }}
  secret: {secretName: {{ $secret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.admin.enabled }}
- name: admin
  secret: {secretName: {{ include "tiergate.adminSecret" . }}, defaultMode: 0440, items: [{key: token, path: token}]}
{{- end }}
{{- with .Values.tls.secretName }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.tls.clientCaSecretName }}
- name: client-ca
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- end -}}
