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
{{- if or (hasKey (default dict .Values.podLabels) "azure.workload.identity/use") (hasKey (default dict .Values.commonLabels) "azure.workload.identity/use") -}}
{{- fail "podLabels, commonLabels: without azure.workload.identity/use; the operator's pods would wait for the operator" -}}
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
{{- if .Values.certManager.enabled -}}
{{- range concat (default list .Values.extraVolumes) (default list .Values.extraVolumeMounts) -}}
{{- if eq .name "certificate" -}}
{{- fail "extraVolumes, extraVolumeMounts: with certManager.enabled the name certificate is the chart's own; choose another" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "POD_NAMESPACE" -}}
{{- fail "extraEnv: POD_NAMESPACE is the chart's own; take it out" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.checkTokenEndpoint" -}}
{{- if ne (empty .annotationSuffix) (empty .audience) -}}
{{- fail "customTokenEndpoint: annotationSuffix and audience belong together; set both or neither" -}}
{{- end -}}
{{- if gt (list .azureKubernetesCaData .azureKubernetesCAConfigMapName .azureKubernetesCACTBSignerName | compact | len) 1 -}}
{{- fail "customTokenEndpoint: set at most one of azureKubernetesCaData, azureKubernetesCAConfigMapName and azureKubernetesCACTBSignerName" -}}
{{- end -}}
{{- if and .azureKubernetesCACTBLabelSelector (not .azureKubernetesCACTBSignerName) -}}
{{- fail "customTokenEndpoint.azureKubernetesCACTBLabelSelector: set azureKubernetesCACTBSignerName too; there is nothing to narrow without it" -}}
{{- end -}}
{{- end -}}
