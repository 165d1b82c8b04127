{{/*
Expressions in CEL. The API server stops at the first part that decides: the cheapest stands first.
*/}}

{{/*
Whether the API server serves policies that change objects, and is to use ours. Not where every pod is out of the
ordinary: the policy would leave pods without the label unwired, which no webhook is called for beside it.
*/}}
{{- define "workload-identity-operator.policyEngine" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if or (eq .Values.engine "policy") (and (eq .Values.engine "auto") $served (not .Values.legacyTokenPath)) -}}true{{- end -}}
{{- end -}}

{{/*
Of a pod: whether something is left to wire. An error would refuse the pod, so nothing is taken to be there:
a list that the author left out can be absent or null. A token for somebody else's audience is none, the policy
may have been edited a moment ago, nor is one of another lifetime, as a pod pasted from a wired one can bring. What
the policy adds is looked for first, whole, which costs less than a loop.
*/}}
{{- define "workload-identity-operator.unwired" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $expiration := printf "object.metadata.?annotations[?\"%sservice-account-token-expiration\"]" $facts.prefix -}}
!("{{ $facts.mirrorPod }}" in object.metadata.?annotations.orValue({})) && (
object.spec.containers == null ||
object.metadata.?annotations[?"{{ $facts.prefix }}inject-proxy-sidecar"].orValue("false").lowerAscii() != "false" ||
object.metadata.?annotations[?"{{ $facts.prefix }}legacy-token-path"].orValue("false").lowerAscii() != "false" ||
!object.spec.?volumes.orValue([]).exists(v,
  v.name.startsWith("{{ $facts.volumePrefix }}") && has(v.projected) && v.projected.sources != null &&
  v.projected.sources.exists(s, s.?serviceAccountToken.?path.orValue("") == "{{ $facts.tokenPath }}" &&
    s.serviceAccountToken.?audience.orValue("") == {{ include "workload-identity-operator.wantedAudience" . }} &&
    (!{{ $expiration }}.hasValue() ||
      {{ $expiration }}.orValue("").matches("^[0-9]{1,18}$") &&
      int({{ $expiration }}.orValue("")) ==
        s.serviceAccountToken.?expirationSeconds.orValue({{ $facts.minExpiration }})))) ||
(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
  (!{{ include "workload-identity-operator.hasTokenFile" . }} ||
  !({{ include "workload-identity-operator.mount" . }} in c.?volumeMounts.orValue([]) ||
    c.?volumeMounts.orValue([]).exists(m, m.name.startsWith("{{ $facts.volumePrefix }}") &&
      (m.mountPath == "{{ $facts.basePath }}" && m.?subPath.orValue("") == "" ||
        m.mountPath.startsWith("{{ $facts.basePath }}/"))))) &&
  !(c.name in object.metadata.?annotations[?"{{ $facts.prefix }}skip-containers"].orValue("").split(";"))))
{{- end -}}

{{/* Of a pod: the audience of its token. */}}
{{- define "workload-identity-operator.wantedAudience" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $audience := include "workload-identity-operator.audience" . | quote -}}
{{- with .Values.customTokenEndpoint.annotationSuffix -}}
(object.metadata.?annotations[?"{{ $facts.prefix }}use-{{ . }}"].orValue("").lowerAscii() == "true"
  ? {{ $.Values.customTokenEndpoint.audience | quote }} : {{ $audience }})
{{- else -}}
{{ $audience }}
{{- end -}}
{{- end -}}

{{/* Of a container c: whether it knows where the token is. */}}
{{- define "workload-identity-operator.hasTokenFile" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
({{ include "workload-identity-operator.tokenFile" . }} in c.?env.orValue([]) ||
    c.?env.orValue([]).exists(e, e.name == "{{ $facts.tokenFileVariable }}"))
{{- end -}}

{{/*
Of a pod and the PodWiring of its namespace: whether it is known and plain. All else is the webhook's, also a
volume or a mount that somebody else has put where ours belong.
*/}}
{{- define "workload-identity-operator.plain" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $expiration := printf "object.metadata.annotations[?\"%sservice-account-token-expiration\"].orValue(\"%v\")" $facts.prefix $facts.minExpiration -}}
object.spec.serviceAccountName in params.spec.identities &&
{{- /* On the second call, after a webhook's change, mostly nothing is left to do. */}}
(!object.spec.?volumes.orValue([]).exists(v, v.name == "{{ $facts.policyVolume }}") ||
  (object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
    !c.?volumeMounts.orValue([]).exists(m, m.mountPath == "{{ $facts.basePath }}") ||
    !{{ include "workload-identity-operator.hasTokenFile" . }})) &&
{{- if eq .Values.selection "serviceAccount" }}
(object.metadata.?labels[?"{{ $facts.prefix }}use"].orValue("") == "true" ||
  has({{ include "workload-identity-operator.identity" . }}.clientID)) &&
{{- end }}
(!has(object.metadata.annotations) || (
  !("{{ $facts.mirrorPod }}" in object.metadata.annotations) &&
  {{- with .Values.customTokenEndpoint.annotationSuffix }}
  object.metadata.annotations[?"{{ $facts.prefix }}use-{{ . }}"].orValue("").lowerAscii() != "true" &&
  {{- end }}
  object.metadata.annotations[?"{{ $facts.prefix }}inject-proxy-sidecar"].orValue("false").lowerAscii() == "false" &&
  object.metadata.annotations[?"{{ $facts.prefix }}legacy-token-path"].orValue("false").lowerAscii() == "false" &&
  object.metadata.annotations[?"{{ $facts.prefix }}skip-containers"].orValue("").matches("^[-a-z0-9;]*$") &&
  {{ $expiration }}.matches("^[0-9]{4,5}$") &&
  int({{ $expiration }}) >= {{ $facts.minExpiration }} &&
  int({{ $expiration }}) <= {{ $facts.maxExpiration }})) &&
!object.spec.?volumes.orValue([]).exists(v, v.name.startsWith("{{ $facts.volumePrefix }}") && (
  v.name != "{{ $facts.policyVolume }}" ||
  v.?projected.?sources.orValue([]) != {{ include "workload-identity-operator.sources" . }})) &&
{{- /* However a path is written that leads to the base path, it has its last three parts. */}}
!(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
  c.?volumeMounts.orValue([]).exists(m,
    (m.mountPath.matches("/secrets/(.*/)?azure/(.*/)?wi(/|$)") || m.name == "{{ $facts.policyVolume }}") &&
    m != {{ include "workload-identity-operator.mount" . }}))
{{- end -}}

{{/*
What the policy's patches are made of. They are no variables of the policy, though who reads it in a cluster then
finds them more than once: the API server evaluates each variable apart, with an account of its own. That and the
copies below save an eighth of what a pod costs it.
*/}}
{{- define "workload-identity-operator.identity" -}}
params.spec.identities[object.spec.serviceAccountName]
{{- end -}}

{{- define "workload-identity-operator.env" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $identity := include "workload-identity-operator.identity" . -}}
(has({{ $identity }}.clientID)
  ? [{"name": dyn("AZURE_CLIENT_ID"), "value": dyn({{ $identity }}.clientID)}]
  : []) +
({{ $identity }}.?tenantID.orValue(params.spec.tenantID) == ""
  ? []
  : [{"name": dyn("AZURE_TENANT_ID"), "value": dyn({{ $identity }}.?tenantID.orValue(params.spec.tenantID))}]) +
[{{ include "workload-identity-operator.tokenFile" . }},
{"name": dyn("AZURE_AUTHORITY_HOST"), "value": dyn(params.spec.authorityHost)}]
{{- end -}}

{{- define "workload-identity-operator.tokenFile" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{"name": dyn("{{ $facts.tokenFileVariable }}"), "value": dyn("{{ $facts.basePath }}/{{ $facts.tokenPath }}")}
{{- end -}}

{{- define "workload-identity-operator.sources" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
[{"serviceAccountToken": {
  "path": dyn("{{ $facts.tokenPath }}"),
  "expirationSeconds": dyn(int(
    object.metadata.?annotations[?"{{ $facts.prefix }}service-account-token-expiration"].orValue(
      {{ include "workload-identity-operator.identity" . }}.expirationSeconds))),
  "audience": dyn(params.spec.audience)}}]
{{- end -}}

{{- define "workload-identity-operator.volume" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{"name": dyn("{{ $facts.policyVolume }}"), "projected": dyn({"sources":
  {{- include "workload-identity-operator.sources" . | nindent 2 }} })}
{{- end -}}

{{- define "workload-identity-operator.mount" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{"name": dyn("{{ $facts.policyVolume }}"), "mountPath": dyn("{{ $facts.basePath }}"), "readOnly": dyn(true)}
{{- end -}}

{{/*
Of a pod: the patches of its containers or its initContainers, given as kind; root is the chart's context. Where the
first container gets all of env, that of the others is a copy: to make JSON of CEL costs many times that. Of a
container's own variables only those of Azure's can be ours: where it has none, each is looked at once.
*/}}
{{- define "workload-identity-operator.patches" -}}
{{- $facts := include "workload-identity-operator.facts" .root | fromYaml -}}
{{- $wanted := printf "!has(object.metadata.annotations) || !(%%s.name in object.metadata.annotations[?\"%sskip-containers\"].orValue(\"\").split(\";\"))" $facts.prefix -}}
{{- $mount := include "workload-identity-operator.mount" .root -}}
object.spec.{{ .kind }}.transformList(i, c, {{ printf $wanted "c" }},
  (has(c.env)
    ? (c.env.exists(x, x.name.startsWith("AZURE_"))
        ? variables.env.filter(e, !c.env.exists(x, x.name == e.name))
        : variables.env).map(e,
        JSONPatch{op: "add", path: "/spec/{{ .kind }}/" + string(i) + "/env/-", value: e})
    : [{{ if eq .kind "containers" }}i == 0
      ? JSONPatch{op: "add", path: "/spec/containers/0/env", value:
          {{- include "workload-identity-operator.env" .root | nindent 10 }} }
      : {{ end }}!has(object.spec.containers[0].env) &&
          ({{ printf $wanted "object.spec.containers[0]" }})
      ? JSONPatch{op: "copy", from: "/spec/containers/0/env", path: "/spec/{{ .kind }}/" + string(i) + "/env"}
      : JSONPatch{op: "add", path: "/spec/{{ .kind }}/" + string(i) + "/env", value: variables.env}]) +
  (has(c.volumeMounts)
    ? (c.volumeMounts.exists(m, m.mountPath == "{{ $facts.basePath }}")
      ? []
      : [JSONPatch{op: "add", path: "/spec/{{ .kind }}/" + string(i) + "/volumeMounts/-", value: {{ $mount }} }])
    : [JSONPatch{op: "add", path: "/spec/{{ .kind }}/" + string(i) + "/volumeMounts", value: [{{ $mount }}]}])
).flatten()
{{- end -}}
