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
a list that the author left out can be absent or null. A token for somebody else's audience is none: the policy
may have been edited a moment ago.
*/}}
{{- define "workload-identity-operator.unwired" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $audiences := list (include "workload-identity-operator.audience" .) .Values.customTokenEndpoint.audience | compact -}}
object.spec.containers == null ||
object.metadata.?annotations[?"{{ $facts.prefix }}inject-proxy-sidecar"].hasValue() ||
object.metadata.?annotations[?"{{ $facts.prefix }}legacy-token-path"].hasValue() ||
!object.spec.?volumes.orValue([]).exists(v,
  v.name.startsWith("{{ $facts.volumePrefix }}") && has(v.projected) && v.projected.sources != null &&
  v.projected.sources.exists(s, s.?serviceAccountToken.?path.orValue("") == "{{ $facts.tokenPath }}" &&
    s.serviceAccountToken.?audience.orValue("") in {{ $audiences | toJson }})) ||
(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
  !c.?env.orValue([]).exists(e, e.name == "{{ $facts.tokenFileVariable }}") ||
  !c.?volumeMounts.orValue([]).exists(m, m.name.startsWith("{{ $facts.volumePrefix }}") &&
    (m.mountPath == "{{ $facts.basePath }}" || m.mountPath.startsWith("{{ $facts.basePath }}/"))))
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
    !c.?volumeMounts.orValue([]).exists(m, m.mountPath == "{{ $facts.basePath }}"))) &&
{{- if eq .Values.selection "serviceAccount" }}
(object.metadata.?labels[?"{{ $facts.prefix }}use"].orValue("") == "true" ||
  has(params.spec.identities[object.spec.serviceAccountName].clientID)) &&
{{- end }}
(!has(object.metadata.annotations) || (
  !("{{ $facts.mirrorPod }}" in object.metadata.annotations) &&
  {{- with .Values.customTokenEndpoint.annotationSuffix }}
  !("{{ $facts.prefix }}use-{{ . }}" in object.metadata.annotations) &&
  {{- end }}
  object.metadata.annotations[?"{{ $facts.prefix }}inject-proxy-sidecar"].orValue("false").lowerAscii() == "false" &&
  object.metadata.annotations[?"{{ $facts.prefix }}legacy-token-path"].orValue("false").lowerAscii() == "false" &&
  object.metadata.annotations[?"{{ $facts.prefix }}skip-containers"].orValue("").matches("^[-a-z0-9;]*$") &&
  {{ $expiration }}.matches("^[0-9]{4,5}$") &&
  int({{ $expiration }}) >= {{ $facts.minExpiration }} &&
  int({{ $expiration }}) <= {{ $facts.maxExpiration }})) &&
!object.spec.?volumes.orValue([]).exists(v,
  v.name.startsWith("{{ $facts.volumePrefix }}") && v.name != "{{ $facts.policyVolume }}") &&
{{- /* However a path is written that leads to the base path, it has its last three parts. */}}
!(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
  c.?volumeMounts.orValue([]).exists(m,
    (m.mountPath.matches("/secrets/(.*/)?azure/(.*/)?wi(/|$)") || m.name == "{{ $facts.policyVolume }}") &&
    m != {"name": dyn("{{ $facts.policyVolume }}"), "mountPath": dyn("{{ $facts.basePath }}"), "readOnly": dyn(true)}))
{{- end -}}
