{{/* Labels that every object has. */}}
{{- define "leno.labels" -}}
app.kubernetes.io/name: leno-controller
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: leno
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which the controller's pods are found. They never change. */}}
{{- define "leno.selector" -}}
app.kubernetes.io/name: leno-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* An image reference. Call with (list $ .Values.….image). */}}
{{- define "leno.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* CEL: what the pod itself says about injection, by annotation and by label. */}}
{{- define "leno.words" -}}
[object.metadata.?annotations[?"leno.dev/inject"].orValue(""), object.metadata.?labels[?"leno.dev/inject"].orValue("")]
{{- end }}

{{/* What both entries of the webhook share. */}}
{{- define "leno.webhook" -}}
rules:
  - {apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE], scope: Namespaced}
clientConfig:
  service: {name: leno-controller, namespace: {{ .Release.Namespace }}, path: /inject, port: 443}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: Fail
reinvocationPolicy: Never
matchPolicy: Equivalent
timeoutSeconds: {{ .Values.webhook.timeoutSeconds }}
{{- end }}
