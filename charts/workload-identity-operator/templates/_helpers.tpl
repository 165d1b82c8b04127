{{- define "workload-identity-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of every object: the release's, with the chart's where it does not already hold it. */}}
{{- define "workload-identity-operator.fullname" -}}
{{- $name := include "workload-identity-operator.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "workload-identity-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "workload-identity-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Where the user's labels repeat one of ours, ours counts. */}}
{{- define "workload-identity-operator.labels" -}}
{{- $own := include "workload-identity-operator.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- merge $own (default dict .Values.commonLabels) | toYaml -}}
{{- end -}}

{{- define "workload-identity-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "workload-identity-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.certificateSecret" -}}
{{- default (printf "%s-certificate" (include "workload-identity-operator.fullname" .)) .Values.certificateSecret -}}
{{- end -}}

{{/* What `helm test` brings. */}}
{{- define "workload-identity-operator.test" -}}
{{- printf "%s-test" (include "workload-identity-operator.fullname" . | trunc 58 | trimSuffix "-") -}}
{{- end -}}

{{/* What lets that have a pod rehearsed, where the pod would be. */}}
{{- define "workload-identity-operator.rehearsal" -}}
{{- printf "%s-rehearsal" (include "workload-identity-operator.fullname" . | trunc 53 | trimSuffix "-") -}}
{{- end -}}

{{/* Labels of both: none by which a Service, a Deployment or a budget would take its pod for one of the operator's. */}}
{{- define "workload-identity-operator.testLabels" -}}
{{- $labels := include "workload-identity-operator.labels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/name" (include "workload-identity-operator.test" . | trunc 63) -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* Whether cert-manager keeps the certificate and the caBundle, instead of the operator. */}}
{{- define "workload-identity-operator.certManager" -}}
{{- if .Values.certManager.enabled -}}true{{- end -}}
{{- end -}}

{{/* What cert-manager issues: the serving certificate, its Secret, and what it is mounted from. */}}
{{- define "workload-identity-operator.serving" -}}
{{- printf "%s-serving" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{/* The authority that it issues by, where the release makes one. */}}
{{- define "workload-identity-operator.authority" -}}
{{- printf "%s-authority" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{/* What comes before other webhooks: the API server calls them in the order of these names. */}}
{{- define "workload-identity-operator.configuration" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- print $facts.configurationPrefix (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{/* Where the release says once more what it installs of the policy. */}}
{{- define "workload-identity-operator.declared" -}}
{{- printf "%s-declared" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{/*
Changes with what PodWirings are compiled with, and with nothing else: replicas that would write the same all may.
The environment may point to files, so what is mounted counts.
*/}}
{{- define "workload-identity-operator.settingsChecksum" -}}
{{- pick .Values "azureTenantID" "azureEnvironment" "azureAuthorityHost" "audience" "extraEnv" "extraVolumes" "extraVolumeMounts" | toJson | sha256sum -}}
{{- end -}}

{{/* That where the release says it; it does not know the settings of an operator outside the cluster. */}}
{{- define "workload-identity-operator.declaredChecksum" -}}
{{- if not .Values.webhook.url -}}{{ include "workload-identity-operator.settingsChecksum" . }}{{- end -}}
{{- end -}}

{{/* The operator's environment, by names: for the ConfigMap, and for who starts it outside the cluster. */}}
{{- define "workload-identity-operator.variables" -}}
{{- $variables := dict "AZURE_TENANT_ID" .Values.azureTenantID "AZURE_ENVIRONMENT" .Values.azureEnvironment -}}
{{- $endpoint := .Values.customTokenEndpoint -}}
{{- range $name, $value := dict
      "PROXY_IMAGE" .Values.proxySidecar.image
      "PROXY_INIT_IMAGE" .Values.proxySidecar.initImage
      "AZURE_KUBERNETES_TOKEN_PROXY" $endpoint.azureKubernetesTokenProxy
      "AZURE_KUBERNETES_SNI_NAME" $endpoint.azureKubernetesSniName
      "AZURE_KUBERNETES_CA_DATA" $endpoint.azureKubernetesCaData
      "AZURE_KUBERNETES_CA_CONFIGMAP_NAME" $endpoint.azureKubernetesCAConfigMapName
      "AZURE_KUBERNETES_CA_CTB_SIGNER_NAME" $endpoint.azureKubernetesCACTBSignerName
      "AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR" $endpoint.azureKubernetesCACTBLabelSelector -}}
{{- if $value -}}
{{- $_ := set $variables $name $value -}}
{{- end -}}
{{- end -}}
{{- toJson $variables -}}
{{- end -}}

{{/* The operator's flags with a value, by names, likewise: all but where reviews and probes come. */}}
{{- define "workload-identity-operator.flags" -}}
{{- $flags := dict -}}
{{- range $flag, $value := dict
      "metrics-addr" .Values.metricsAddr
      "metrics-backend" .Values.metricsBackend
      "log-level" .Values.logLevel
      "tls-min-version" .Values.tlsMinVersion
      "webhook-configuration" (include "workload-identity-operator.configuration" .)
      "declaration" (include "workload-identity-operator.declared" .)
      "settings-checksum" (include "workload-identity-operator.declaredChecksum" .)
      "certificate-secret" (include "workload-identity-operator.certificateSecret" .)
      "audience" .Values.audience
      "authority-host" .Values.azureAuthorityHost
      "custom-token-endpoint-annotation-suffix" .Values.customTokenEndpoint.annotationSuffix
      "custom-token-endpoint-audience" .Values.customTokenEndpoint.audience -}}
{{- if $value -}}
{{- $_ := set $flags $flag $value -}}
{{- end -}}
{{- end -}}
{{- toJson $flags -}}
{{- end -}}

{{/* A word for a shell, in quotes where it would be read as something else. */}}
{{- define "workload-identity-operator.shell" -}}
{{- ternary . (replace "'" "'\\''" . | printf "'%s'") (regexMatch "^[A-Za-z0-9_./:=@%+,-]+$" .) -}}
{{- end -}}

{{- define "workload-identity-operator.metrics" -}}
{{- printf "%s-metrics" (include "workload-identity-operator.fullname" . | trunc 55 | trimSuffix "-") -}}
{{- end -}}

{{- define "workload-identity-operator.dashboard" -}}
{{- printf "%s-dashboard" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{/* What is done for owners of pods that are not wired as they should be; empty for nothing. YAML reads off as false. */}}
{{- define "workload-identity-operator.healing" -}}
{{- if ne (toString (default "off" .Values.healing.mode)) "off" -}}{{ .Values.healing.mode }}{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.guard" -}}
{{- printf "%s-guard" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}

{{- define "workload-identity-operator.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- $repository := list $registry .Values.image.repository | compact | join "/" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.release) -}}
{{- end -}}
{{- end -}}

{{- define "workload-identity-operator.webhookURL" -}}
{{- with .Values.webhook.url -}}
{{- ternary (printf "%s/mutate-v1-pod" (trimSuffix "/" .)) . (has (urlParse .).path (list "" "/")) -}}
{{- end -}}
{{- end -}}

{{/* Minutes of a duration such as 2160h or 1h30m. */}}
{{- define "workload-identity-operator.minutes" -}}
{{- $hours := regexFind "^[0-9]+h" . | trimSuffix "h" | int64 -}}
{{- $rest := regexFind "[0-9]+m$" . | trimSuffix "m" | int64 -}}
{{- add (mul 60 $hours) $rest -}}
{{- end -}}

{{/* Port of a HOST:PORT address. */}}
{{- define "workload-identity-operator.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* Audience of the projected tokens: the operator derives the same one from the cloud. */}}
{{- define "workload-identity-operator.audience" -}}
{{- $national := dict
      "azureusgovernmentcloud" "api://AzureADTokenExchangeUSGov"
      "azureusgovernment" "api://AzureADTokenExchangeUSGov"
      "azurechinacloud" "api://AzureADTokenExchangeChina" -}}
{{- $cloud := lower .Values.azureEnvironment -}}
{{- default (get $national $cloud | default "api://AzureADTokenExchange") .Values.audience -}}
{{- end -}}

{{/* Namespaces whose pods are wired. */}}
{{- define "workload-identity-operator.namespaceSelector" -}}
{{- with (default dict .Values.mutatingWebhookNamespaceSelector).matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
matchExpressions:
  {{- with (default dict .Values.mutatingWebhookNamespaceSelector).matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # Nothing that the cluster or the operator itself needs to start may wait for the operator.
  - key: kubernetes.io/metadata.name
    operator: NotIn
    {{- if .Values.webhook.url }}
    values: [kube-system]
    {{- else }}
    values: {{ list "kube-system" .Release.Namespace | uniq | toJson }}
    {{- end }}
  {{- if not .Values.admissionsEnforcer.disabled }}
  - key: control-plane
    operator: DoesNotExist
  {{- end }}
  - key: control-plane
    operator: NotIn
    values: ["true"]
  - key: kubernetes.azure.com/managedby
    operator: NotIn
    values: [aks]
{{- end -}}

{{/* Pods that ask for an identity by their label. */}}
{{- define "workload-identity-operator.labelled" -}}
matchLabels:
  {{- merge (dict "azure.workload.identity/use" "true") (dig "matchLabels" dict (default dict .Values.mutatingWebhookObjectSelector)) | toYaml | nindent 2 }}
{{- with (default dict .Values.mutatingWebhookObjectSelector).matchExpressions }}
matchExpressions:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Those of them for which the webhook may be asked: all, or beside the policy those that it has not wired. */}}
{{- define "workload-identity-operator.asked" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
{{- $selector := include "workload-identity-operator.labelled" . | fromYaml -}}
{{- if include "workload-identity-operator.policyEngine" . -}}
{{- $others := dict "key" $facts.wiredBy "operator" "NotIn" "values" (list $facts.wiredByPolicy) -}}
{{- $_ := append (default list $selector.matchExpressions) $others | set $selector "matchExpressions" -}}
{{- end -}}
{{- toYaml $selector -}}
{{- end -}}

{{/* Where a pod says that the policy has wired it, as a JSON Pointer. */}}
{{- define "workload-identity-operator.wiredByPath" -}}
{{- $facts := include "workload-identity-operator.facts" . | fromYaml -}}
/metadata/labels/{{ replace "/" "~1" $facts.wiredBy }}
{{- end -}}

{{/* What takes that off where an author wrote it. */}}
{{- define "workload-identity-operator.unmark" -}}
{{- printf "%s-unmark" (include "workload-identity-operator.fullname" .) -}}
{{- end -}}
