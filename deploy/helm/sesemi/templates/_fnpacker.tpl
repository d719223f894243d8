{{- /* fnpacker.toml. TOML's strings are JSON's, as far as these values go. */ -}}
{{- define "sesemi.fnpacker" -}}
listen = "0.0.0.0:8080"

[knative]
api = "http://127.0.0.1:8001"
namespace = {{ .Release.Namespace | toJson }}
user = {{ .Values.functions.user }}
cpu = {{ .Values.functions.cpu | toJson }}
min_scale = {{ .Values.functions.minScale }}
max_scale = {{ .Values.functions.maxScale }}
keep_alive = {{ .Values.functions.keepAlive | toJson }}
ready = {{ .Values.functions.ready | toJson }}
{{- with .Values.functions.runtimeClassName }}
runtime_class = {{ . | toJson }}
{{- end }}
{{- with .Values.functions.ingress }}
ingress = {{ . | toJson }}
{{- end }}
{{- with .Values.functions.limits }}
[knative.limits]
{{- range $name, $amount := . }}
{{ $name | toJson }} = {{ $amount | toJson }}
{{- end }}
{{- end }}
{{ range .Values.pools }}
[[pool]]
name = {{ .name | toJson }}
enclave = {{ .enclave | toJson }}
image = {{ .image | toJson }}
memory = {{ .memory | toJson }}
concurrency = {{ .concurrency }}
endpoints = {{ .endpoints }}
timeout = {{ .timeout | toJson }}
policy = {{ .policy | toJson }}
keep_alive = {{ $.Values.functions.keepAlive | toJson }}

[pool.init]
SESEMI_KEYSERVICE = {{ printf "%s-keyservice.%s.svc.cluster.local:7443" $.Release.Name $.Release.Namespace | toJson }}
SESEMI_STORE = {{ $.Values.store | toJson }}
{{ end -}}
{{- end }}
