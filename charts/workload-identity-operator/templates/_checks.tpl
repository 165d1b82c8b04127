{{/*
What the schema cannot say, since it takes two values or a reason. Included by the one object of every mode.
*/}}
{{- define "workload-identity-operator.check" -}}
{{- $clouds := list "AzurePublicCloud" "AzureCloud" "AzureUSGovernmentCloud" "AzureUSGovernment" "AzureChinaCloud" "AzureGermanCloud" "AzureStackCloud" -}}
{{- if not (regexMatch (printf "^(?i:%s)?$" (join "|" $clouds)) .Values.azureEnvironment) -}}
{{- printf "azureEnvironment: %q is no Azure cloud; set one of %s" .Values.azureEnvironment (join ", " $clouds) | fail -}}
{{- end -}}
{{- range $name, $url := dict
      "azureAuthorityHost" .Values.azureAuthorityHost
      "customTokenEndpoint.azureKubernetesTokenProxy" .Values.customTokenEndpoint.azureKubernetesTokenProxy
      "webhook.url" .Values.webhook.url -}}
{{- if and $url (not (regexMatch "^https://[^/?#@]+(/[^?#@]*)?$" $url)) -}}
{{- printf "%s: %q cannot be used; set https://HOST[:PORT][/PATH], without user, query or fragment" $name $url | fail -}}
{{- end -}}
{{- end -}}
{{- /* What pods are given is no more than what the operator takes. */}}
{{- range $name, $url := dict
      "azureAuthorityHost" .Values.azureAuthorityHost
      "customTokenEndpoint.azureKubernetesTokenProxy" .Values.customTokenEndpoint.azureKubernetesTokenProxy -}}
{{- if and $url (not (regexMatch "^https://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?$" $url)) -}}
{{- printf "%s: %q cannot be used; set https://HOST[:PORT][/PATH], in ASCII letters" $name $url | fail -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "POD_NAMESPACE" -}}
{{- fail "extraEnv: POD_NAMESPACE is the chart's own; take it out" -}}
{{- end -}}
{{- if and (eq .name "AZURE_ENVIRONMENT") (not $.Values.audience) -}}
{{- fail "extraEnv: AZURE_ENVIRONMENT decides the audience, which the chart must know too; take it out and set azureEnvironment" -}}
{{- end -}}
{{- end -}}
{{- if gt (include "workload-identity-operator.port" .Values.metricsAddr | int) 65535 -}}
{{- printf "metricsAddr: %q: ports end at 65535; set HOST:PORT, such as :8095" .Values.metricsAddr | fail -}}
{{- end -}}
{{- range $name, $url := dict
      "azureAuthorityHost" .Values.azureAuthorityHost
      "customTokenEndpoint.azureKubernetesTokenProxy" .Values.customTokenEndpoint.azureKubernetesTokenProxy
      "webhook.url" .Values.webhook.url -}}
{{- with regexFind ":[0-9]+$" (urlParse (default "" $url)).host -}}
{{- $port := trimPrefix ":" . | int -}}
{{- if or (lt $port 1) (gt $port 65535) -}}
{{- printf "%s: %q has no port from 1 to 65535" $name $url | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if or (hasKey (default dict .Values.podLabels) "azure.workload.identity/use") (hasKey (default dict .Values.commonLabels) "azure.workload.identity/use") -}}
{{- fail "podLabels, commonLabels: without azure.workload.identity/use; the operator's pods would wait for the operator" -}}
{{- end -}}
{{- if hasKey (default dict (dig "matchLabels" dict (default dict .Values.mutatingWebhookObjectSelector))) "azure.workload.identity/use" -}}
{{- fail "mutatingWebhookObjectSelector: without azure.workload.identity/use; whether pods need that label is what selection says: set it to label if they do" -}}
{{- end -}}
{{- if and .Values.legacyTokenPath (eq .Values.engine "policy") -}}
{{- fail "engine: policy cannot mount the token at the legacy path; set engine to webhook, or legacyTokenPath to false and annotate the pods that need it with azure.workload.identity/legacy-token-path: \"true\"" -}}
{{- end -}}
{{- if and .Values.webhook.url .Values.certManager.enabled -}}
{{- fail "certManager.enabled: its certificate is mounted into the operator's pods, and with webhook.url there are none; unset one of them" -}}
{{- end -}}
{{- if not .Values.webhook.url -}}
{{- include "workload-identity-operator.checkDeployment" . -}}
{{- include "workload-identity-operator.checkTokenEndpoint" .Values.customTokenEndpoint -}}
{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.checkDeployment" -}}
{{- if not .Values.azureTenantID -}}
{{- fail "azureTenantID is required: set the Entra tenant of the identities, such as --set azureTenantID=$(az account show --query tenantId --output tsv)" -}}
{{- end -}}
{{- $name := include "workload-identity-operator.fullname" . -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" $name) -}}
{{- printf "release %q: a Service cannot be called %q, whose name has only small letters, digits and dashes; set fullnameOverride to such a name" .Release.Name $name | fail -}}
{{- end -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- $sleep := int .Values.preStopSleepSeconds -}}
{{- if lt $grace (add $sleep 15 | int) -}}
{{- printf "terminationGracePeriodSeconds: %d cuts a pod off that sleeps %d s (preStopSleepSeconds) and then needs up to 15 s to finish what is under way; set at least %d" $grace $sleep (add $sleep 15) | fail -}}
{{- end -}}
{{- $ports := list 9440 (int .Values.service.targetPort) (include "workload-identity-operator.port" .Values.metricsAddr | int) -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- printf "service.targetPort: %d, metricsAddr: %q; set two ports, neither of them 9440, the health checks'" (int .Values.service.targetPort) .Values.metricsAddr | fail -}}
{{- end -}}
{{- if not (include "workload-identity-operator.port" .Values.metricsAddr | int) -}}
{{- printf "metricsAddr: %q: a Service and a NetworkPolicy must know the port; set one from 1 to 65535" .Values.metricsAddr | fail -}}
{{- end -}}
{{- if and (eq .Values.dnsPolicy "None") (not (dig "nameservers" list (default dict .Values.dnsConfig))) -}}
{{- fail "dnsPolicy: with None names are looked up as dnsConfig says, which has no nameservers; set one, or another dnsPolicy" -}}
{{- end -}}
{{- if eq .Values.updateStrategy.type "RollingUpdate" -}}
{{- $rolling := default dict .Values.updateStrategy.rollingUpdate -}}
{{- if and (regexMatch "^0+%?$" (get $rolling "maxUnavailable" | toString)) (regexMatch "^0+%?$" (get $rolling "maxSurge" | toString)) -}}
{{- fail "updateStrategy.rollingUpdate: with maxUnavailable and maxSurge both 0 no pod could be replaced; set one of them" -}}
{{- end -}}
{{- end -}}
{{- if .Values.certManager.enabled -}}
{{- $lasts := include "workload-identity-operator.minutes" .Values.certManager.duration | int -}}
{{- $ahead := include "workload-identity-operator.minutes" .Values.certManager.renewBefore | int -}}
{{- if or (lt $lasts 60) (lt $ahead 5) (ge $ahead $lasts) -}}
{{- printf "certManager: duration %s, renewBefore %s; cert-manager wants a certificate to last 1h at least, and to be renewed 5m at least before its end and after its beginning" .Values.certManager.duration .Values.certManager.renewBefore | fail -}}
{{- end -}}
{{- range concat (default list .Values.extraVolumes) (default list .Values.extraVolumeMounts) -}}
{{- if eq .name "certificate" -}}
{{- fail "extraVolumes, extraVolumeMounts: with certManager.enabled the name certificate is the chart's own; choose another" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.checkTokenEndpoint" -}}
{{- if ne (empty .annotationSuffix) (empty .audience) -}}
{{- fail "customTokenEndpoint: annotationSuffix and audience belong together; set both or neither" -}}
{{- end -}}
{{- if and .annotationSuffix (not .azureKubernetesTokenProxy) -}}
{{- fail "customTokenEndpoint.azureKubernetesTokenProxy: set the endpoint's https URL; with annotationSuffix and audience pods ask for one" -}}
{{- end -}}
{{- if eq (lower (default "" .audience)) "api://azureadtokenexchange" -}}
{{- printf "customTokenEndpoint.audience: %q is that of ordinary tokens; set the endpoint's own" .audience | fail -}}
{{- end -}}
{{- with default "" .azureKubernetesCACTBLabelSelector | trim -}}
{{- $selector := fromJson . -}}
{{- if or (hasKey $selector "Error") (not (hasPrefix "{" .)) -}}
{{- printf "customTokenEndpoint.azureKubernetesCACTBLabelSelector: %q is no JSON object; set a label selector such as {\"matchLabels\": {\"a\": \"b\"}}" . | fail -}}
{{- end -}}
{{- if omit $selector "matchLabels" "matchExpressions" -}}
{{- printf "customTokenEndpoint.azureKubernetesCACTBLabelSelector: %q has more than matchLabels and matchExpressions; take out %s" . (omit $selector "matchLabels" "matchExpressions" | keys | sortAlpha | join ", ") | fail -}}
{{- end -}}
{{- range $key, $value := $selector.matchLabels -}}
{{- if not (kindIs "string" $value) -}}
{{- printf "customTokenEndpoint.azureKubernetesCACTBLabelSelector: matchLabels has %v for %s; put it in quotes" $value $key | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if gt (list .azureKubernetesCaData .azureKubernetesCAConfigMapName .azureKubernetesCACTBSignerName | compact | len) 1 -}}
{{- fail "customTokenEndpoint: set at most one of azureKubernetesCaData, azureKubernetesCAConfigMapName and azureKubernetesCACTBSignerName" -}}
{{- end -}}
{{- if and .azureKubernetesCACTBLabelSelector (not .azureKubernetesCACTBSignerName) -}}
{{- fail "customTokenEndpoint.azureKubernetesCACTBLabelSelector: set azureKubernetesCACTBSignerName too; there is nothing to narrow without it" -}}
{{- end -}}
{{- end -}}
