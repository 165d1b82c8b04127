{{/*
Names, paths and bounds that expressions share with the operator, whose they are.
*/}}
{{- define "workload-identity-operator.facts" -}}
prefix: azure.workload.identity/
mirrorPod: kubernetes.io/config.mirror
basePath: /var/run/secrets/azure/wi
tokenPath: token/azure-identity-token
volumePrefix: azure-workload-identity-reserved-
tokenFileVariable: AZURE_FEDERATED_TOKEN_FILE
policyVolume: azure-workload-identity-reserved-policy
wiredBy: workload-identity.io/wired-by
wiredByPolicy: policy
configurationPrefix: azure-
minExpiration: 3600
maxExpiration: 86400
guid: "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
{{- end -}}
