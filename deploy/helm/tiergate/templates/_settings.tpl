{{/* The settings file: the values', and what the chart decides. TIERGATE_LANES comes with the CPU limit. */}}
{{- define "tiergate.settings" -}}
{{- $own := dict "host" .Values.listenAddress "policy" "/etc/tiergate/policy/policy.yaml" "pin_lanes" .Values.exclusiveCores -}}
{{- if include "tiergate.remotes" . -}}
{{- $_ := set $own "remotes" "/etc/tiergate/remotes/remotes.yaml" -}}
{{- end -}}
{{- if .Values.tls.secretName -}}
{{- $_ := set $own "tls_cert_file" "/etc/tiergate/tls/tls.crt" -}}
{{- $_ := set $own "tls_key_file" "/etc/tiergate/tls/tls.key" -}}
{{- $_ := set $own "admin_tls" .Values.tls.admin -}}
{{- end -}}
{{- if .Values.tls.clientCaSecretName -}}
{{- $_ := set $own "tls_client_ca_file" "/etc/tiergate/client-ca/ca.crt" -}}
{{- end -}}
{{- if .Values.admin.enabled -}}
{{- $_ := set $own "admin_host" .Values.listenAddress -}}
{{- $_ := set $own "admin_token_file" "/etc/tiergate/admin/token" -}}
{{- end -}}
{{- toYaml (merge $own .Values.settings) -}}
{{- end -}}

{{/* The remotes file: the values', and the variants that the chart's own Triton serves, on every replica. Empty without. */}}
{{- define "tiergate.remotes" -}}
{{- $remotes := deepCopy .Values.remotes -}}
{{- if .Values.triton.enabled -}}
{{- $triton := include "tiergate.triton" . -}}
{{- $endpoints := list -}}
{{- range $index := until (int .Values.triton.replicas) -}}
{{- $endpoints = append $endpoints (printf "grpc://%s-%d.%s.%s.svc:8001" $triton $index $triton $.Release.Namespace) -}}
{{- end -}}
{{- range $model, $variants := .Values.triton.serves -}}
{{- range $variants -}}
{{- $remotes = merge $remotes (dict $model (dict . (dict "endpoints" $endpoints))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $remotes -}}
{{- toYaml (dict "schema_version" 1 "remotes" $remotes) -}}
{{- end -}}
{{- end -}}

{{/* Values that fit their schema one by one, but not together. */}}
{{- define "tiergate.check" -}}
{{- with .Values -}}
{{- if and .admin.enabled (not .admin.token) (not .admin.existingSecret) -}}
{{- fail "admin.enabled needs a token: give admin.existingSecret, or admin.token" -}}
{{- end -}}
{{- if and .admin.token .admin.existingSecret -}}
{{- fail "admin.token and admin.existingSecret are both given; give one" -}}
{{- end -}}
{{- if and .tls.clientCaSecretName (not .tls.secretName) -}}
{{- fail "tls.clientCaSecretName needs tls.secretName: without a certificate of its own the gateway can ask for none" -}}
{{- end -}}
{{- if and .tls.secretName (eq (default "python" .settings.frontend) "pyvoy") -}}
{{- fail "settings.frontend is pyvoy, which has no TLS here: take python, or end TLS in front of it" -}}
{{- end -}}
{{- if and .tls.admin .tls.clientCaSecretName -}}
{{- fail "tls.admin and tls.clientCaSecretName: probes have no certificate, and under mTLS they ask the admin listener; leave tls.admin off" -}}
{{- end -}}
{{- if and .tls.clientCaSecretName .monitoring.serviceMonitor.enabled (not .monitoring.serviceMonitor.tlsConfig) -}}
{{- fail "tls.clientCaSecretName: Prometheus needs a certificate too; give monitoring.serviceMonitor.tlsConfig" -}}
{{- end -}}
{{- if and (eq .probes.readiness "grpc") .tls.secretName -}}
{{- fail "probes.readiness is grpc, and TLS is on: the kubelet's gRPC probe cannot speak TLS; set it to http" -}}
{{- end -}}
{{- with .settings -}}
{{- if lt (list (int .http_port) (int .grpc_port) (int .admin_port) | uniq | len) 3 -}}
{{- fail (printf "settings.http_port %v, grpc_port %v and admin_port %v must differ: each is a listener's" .http_port .grpc_port .admin_port) -}}
{{- end -}}
{{- end -}}
{{- if eq (int .service.httpPort) (int .service.grpcPort) -}}
{{- fail (printf "service.httpPort and service.grpcPort are both %v; give two" .service.httpPort) -}}
{{- end -}}
{{- if and .build.enabled (ne .models.source "pvc") -}}
{{- fail (printf "build.enabled publishes to a volume, and models.source is %s; set it to pvc" .models.source) -}}
{{- end -}}
{{- if and .policy .policyConfigMap -}}
{{- fail "policy and policyConfigMap are both given; give one" -}}
{{- end -}}
{{- if and (eq .autoscaling.mode "keda") (not .autoscaling.keda.serverAddress) -}}
{{- fail "autoscaling.mode is keda: give autoscaling.keda.serverAddress, the URL of Prometheus" -}}
{{- end -}}
{{- if and .kserve.enabled (ne .autoscaling.mode "none") -}}
{{- fail (printf "autoscaling.mode is %s, and under kserve it is KServe that scales; set it to none" .autoscaling.mode) -}}
{{- end -}}
{{- if and .kserve.enabled (or .routes.http.enabled .routes.grpc.enabled) -}}
{{- fail "routes are enabled, and under kserve it is KServe that makes the routes; disable them" -}}
{{- end -}}
{{- with .autoscaling.signals -}}
{{- if and (ne $.Values.autoscaling.mode "none") (not (or .queueDepth.enabled .budgetMissedRatio.enabled .laneBusyRatio.enabled)) -}}
{{- fail "autoscaling.signals are all disabled; enable one, or set autoscaling.mode to none" -}}
{{- end -}}
{{- end -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas %d is above maxReplicas %d" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if .exclusiveCores -}}
{{- $cpu := toString .resources.limits.cpu -}}
{{- if or (not (regexMatch "^[1-9][0-9]*$" $cpu)) (ne $cpu (toString .resources.requests.cpu)) -}}
{{- fail (printf "exclusiveCores needs whole and equal CPU requests and limits; they are %v and %v" .resources.requests.cpu .resources.limits.cpu) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
