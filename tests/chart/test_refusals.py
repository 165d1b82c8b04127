"""Values that the chart refuses, and what it says then."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from testkit.manifests import CHART, read_values, rendered
from testkit.processes import ProcessFailed
from workload_identity_operator import clouds
from workload_identity_operator.settings import LOG_LEVELS, TLS_VERSIONS

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
CTE = "customTokenEndpoint"
ENDPOINT = {"annotationSuffix": "a", "audience": "b", "azureKubernetesTokenProxy": "https://h"}
SPREAD = "topologySpreadConstraints"
SELECTOR, TERMS = "mutatingWebhookNamespaceSelector", "matchExpressions"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        # Nothing that is not there: a misspelt value is no silent default.
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"image": {"tag": "v1"}}, "at '/image': additional properties 'tag' not allowed"),
        ({"webhook": {"port": 9443}}, "at '/webhook': additional properties 'port' not allowed"),
        ({"tolerations": [{"kye": "a"}]}, "at '/tolerations/0': additional properties 'kye' not allowed"),
        ({"extraEnv": [{"name": "A", "vaule": "b"}]}, "at '/extraEnv/0': additional properties 'vaule'"),
        ({"mutatingWebhookNamespaceSelector": {"a": "b"}}, "'/mutatingWebhookNamespaceSelector'"),
        ({"mutatingWebhookObjectSelector": {"a": "b"}}, "'/mutatingWebhookObjectSelector'"),
        ({"affinity": {"nodeAfinity": {}}}, "at '/affinity': additional properties 'nodeAfinity'"),
        ({"resources": {"limit": {}}}, "at '/resources': additional properties 'limit' not allowed"),
        # Wrong types and ranges.
        ({"replicaCount": "two"}, "at '/replicaCount': got string, want integer"),
        ({"replicaCount": -1}, "at '/replicaCount': minimum: got -1, want 0"),
        ({"azureTenantID": 42}, "at '/azureTenantID': got number, want string"),
        ({"azureTenantID": "https://contoso.com"}, "at '/azureTenantID'"),
        ({"engine": "both"}, "at '/engine': value must be one of 'auto', 'policy', 'webhook'"),
        ({"selection": "all"}, "at '/selection': value must be one of 'serviceAccount', 'label'"),
        ({"guard": "yes"}, "at '/guard': got string, want boolean"),
        ({"timeoutSeconds": 31}, "at '/timeoutSeconds': maximum: got 31, want 30"),
        ({"timeoutSeconds": 0}, "at '/timeoutSeconds': minimum"),
        ({"failurePolicy": "Warn"}, "at '/failurePolicy': value must be one of 'Fail', 'Ignore'"),
        ({"tlsMinVersion": 1.3}, "at '/tlsMinVersion'"),
        ({"tlsMinVersion": "1.4"}, "at '/tlsMinVersion': value must be one of '1.0', '1.1', '1.2', '1.3'"),
        ({"logLevel": "verbose"}, "at '/logLevel': value must be one of"),
        ({"metricsAddr": "8095"}, "at '/metricsAddr'"),
        ({"metricsAddr": "[::1:8095"}, "at '/metricsAddr'"),
        ({"metricsAddr": ":08095"}, "at '/metricsAddr'"),
        ({"audience": "a\u00a0b"}, "at '/audience'"),
        ({"minReadySeconds": 600}, "at '/minReadySeconds': maximum: got 600, want 599"),
        ({"metricsBackend": "statsd"}, "at '/metricsBackend'"),
        ({"service": {"type": "Headless"}}, "at '/service/type'"),
        ({"service": {"targetPort": 0}}, "at '/service/targetPort': minimum"),
        ({"image": {"repository": "wio:v1"}}, "at '/image/repository'"),
        ({"image": {"registry": "https://r.example.com"}}, "at '/image/registry'"),
        ({"image": {"digest": "0" * 64}}, "at '/image/digest'"),
        ({"image": {"pullPolicy": "Sometimes"}}, "at '/image/pullPolicy'"),
        ({"imagePullSecrets": ["a"]}, "at '/imagePullSecrets/0': got string, want object"),
        ({"global": {"imagePullSecrets": "a"}}, "at '/global/imagePullSecrets'"),
        ({"extraEnv": {"A": "b"}}, "at '/extraEnv': got object, want array"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "at '/extraEnv/0/value': got number, want string"),
        ({"extraVolumes": [{"emptyDir": {}}]}, "at '/extraVolumes/0': missing property 'name'"),
        ({"extraVolumeMounts": [{"name": "a"}]}, "at '/extraVolumeMounts/0': missing property 'mountPath'"),
        ({"serviceAccount": {"create": "yes"}}, "at '/serviceAccount/create': got string, want boolean"),
        ({"serviceAccount": {"name": "Not_A_Name"}}, "at '/serviceAccount/name'"),
        ({"commonLabels": {"a": "b c"}}, "at '/commonLabels/a'"),
        ({"commonLabels": {"A/b": "c"}}, "at '/commonLabels': additional properties 'A/b' not allowed"),
        ({"podAnnotations": {"a b": "c"}}, "at '/podAnnotations': additional properties 'a b' not allowed"),
        ({SELECTOR: {TERMS: [{"key": "a", "operator": "In"}]}}, f"'/{SELECTOR}/{TERMS}/0': missing property"),
        (
            {SELECTOR: {TERMS: [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            f"'/{SELECTOR}/{TERMS}/0/values': maxItems: got 1, want 0",
        ),
        ({"podLabels": {"a": 1}}, "at '/podLabels/a'"),
        ({"podAnnotations": {"a": True}}, "at '/podAnnotations/a'"),
        ({"mutatingWebhookAnnotations": {"a": True}}, "at '/mutatingWebhookAnnotations/a'"),
        ({"nodeSelector": ["a"]}, "at '/nodeSelector': got array, want object"),
        ({SPREAD: [{"topologyKey": "rack"}]}, f"at '/{SPREAD}/0': missing properties"),
        ({"updateStrategy": {"type": "Rolling"}}, "at '/updateStrategy/type'"),
        ({"podDisruptionBudget": {"minAvailable": "most"}}, "at '/podDisruptionBudget/minAvailable'"),
        ({"podDisruptionBudget": {"maxUnavailable": "101%"}}, "at '/podDisruptionBudget/maxUnavailable'"),
        (
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
            "'/updateStrategy/rollingUpdate/maxUnavailable'",
        ),
        ({"admissionsEnforcer": {"disabled": "no"}}, "at '/admissionsEnforcer/disabled'"),
        ({"nameOverride": "Big"}, "at '/nameOverride'"),
        ({"serviceMonitor": {"interval": "often"}}, "at '/serviceMonitor/interval'"),
        ({"serviceMonitor": {"selector": {}}}, "at '/serviceMonitor': additional properties 'selector'"),
        ({"prometheusRule": {"runbookURL": "https://a/b#c"}}, "at '/prometheusRule/runbookURL'"),
        ({"grafanaDashboard": {"labels": {"a": 1}}}, "at '/grafanaDashboard/labels/a'"),
        ({"fullnameOverride": "1st"}, "at '/fullnameOverride'"),
        ({"webhook": {"url": "http://127.0.0.1:9443"}}, "at '/webhook/url'"),
        ({"webhook": None}, "missing property 'webhook'"),
        # A null, which takes the default away, of what cannot be empty.
        ({"serviceAccount": {"create": None}}, "at '/serviceAccount': missing property 'create'"),
        ({"admissionsEnforcer": {"disabled": None}}, "at '/admissionsEnforcer': missing property 'disabled'"),
        ({"image": {"repository": None}}, "at '/image': missing property 'repository'"),
        ({"service": {"targetPort": None}}, "at '/service': missing property 'targetPort'"),
        ({"test": {"namespace": None}}, "at '/test': missing property 'namespace'"),
        ({"hostNetwork": None}, "missing property 'hostNetwork'"),
        ({"terminationGracePeriodSeconds": None}, "missing property 'terminationGracePeriodSeconds'"),
        ({"networkPolicy": {"webhookFrom": [{"ipblock": {}}]}}, "at '/networkPolicy/webhookFrom/0'"),
        (
            {"networkPolicy": {"webhookFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}},
            "at '/networkPolicy/webhookFrom/0': maxProperties: got 2, want 1",
        ),
        ({"networkPolicy": {"apiServerPorts": []}}, "at '/networkPolicy/apiServerPorts': minItems"),
        ({"proxySidecar": {"image": "a b"}}, "at '/proxySidecar/image'"),
        ({"test": {"namespace": ""}}, "at '/test/namespace'"),
        ({"extraObjects": [{"kind": "ConfigMap"}]}, "at '/extraObjects/0': missing properties 'apiVersion'"),
        ({"dnsPolicy": "Cluster"}, "at '/dnsPolicy': value must be one of"),
        ({"dnsConfig": {"nameservers": ["dns.example.com"]}}, "at '/dnsConfig/nameservers/0'"),
        ({"dnsConfig": {"nameservers": ["::1"] * 4}}, "at '/dnsConfig/nameservers': maxItems: got 4, want 3"),
        ({"certManager": {"duration": "1y"}}, "at '/certManager/duration'"),
        ({"certManager": {"issuerRef": {"kind": "ClusterIssuer"}}}, "at '/certManager/issuerRef'"),
        # What only a sentence can say.
        ({"engine": "policy", "legacyTokenPath": True}, "engine: policy cannot mount the token at"),
        ({"certManager": {"enabled": True}, "webhook": {"url": "https://h"}}, "there are none; unset one"),
        (
            {"certManager": {"enabled": True}, "extraVolumes": [{"name": "certificate", "emptyDir": {}}]},
            "the name certificate is the chart's own",
        ),
        ({"azureTenantID": ""}, "azureTenantID is required: set the Entra tenant"),
        ({"azureEnvironment": "Azure"}, 'azureEnvironment: "Azure" is no Azure cloud; set one of Azure'),
        ({"azureAuthorityHost": "https://u@h"}, 'azureAuthorityHost: "https://u@h" cannot be used'),
        ({"azureAuthorityHost": "https://h:"}, 'azureAuthorityHost: "https://h:" cannot be used'),
        ({CTE: {**ENDPOINT, "azureKubernetesTokenProxy": "https://h/\u00e9"}}, "in ASCII letters"),
        ({"certificateSecret": "a..b"}, "at '/certificateSecret'"),
        ({"webhook": {"url": "https://h/p?q=1"}}, 'webhook.url: "https://h/p?q=1" cannot be used'),
        ({"podLabels": {"azure.workload.identity/use": "true"}}, "without azure.workload.identity/use"),
        ({"commonLabels": {"azure.workload.identity/use": "true"}}, "without azure.workload.identity/use"),
        (
            {"mutatingWebhookObjectSelector": {"matchLabels": {"azure.workload.identity/use": "true"}}},
            "mutatingWebhookObjectSelector: without azure.workload.identity/use; whether pods need that",
        ),
        ({"terminationGracePeriodSeconds": 20}, "terminationGracePeriodSeconds: 20 cuts a pod off"),
        ({"metricsAddr": ":9443"}, 'service.targetPort: 9443, metricsAddr: ":9443"; set two ports'),
        ({"metricsAddr": ":9440"}, "neither of them 9440"),
        ({"metricsAddr": ":0"}, 'metricsAddr: ":0": a Service and a NetworkPolicy must know the port'),
        ({"metricsAddr": ":65536"}, 'metricsAddr: ":65536": ports end at 65535'),
        ({"azureAuthorityHost": "https://h:65536"}, '"https://h:65536" has no port from 1 to 65535'),
        ({"webhook": {"url": "https://[::1]:0/a"}}, '"https://[::1]:0/a" has no port from 1 to 65535'),
        ({"dnsPolicy": "None"}, "dnsConfig says, which has no nameservers"),
        (
            {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "0%", "maxSurge": 0}}},
            "maxUnavailable and maxSurge both 0",
        ),
        ({"certManager": {"enabled": True, "duration": "24h"}}, "duration 24h, renewBefore 2160h"),
        ({"certManager": {"enabled": True, "duration": "59m", "renewBefore": "9m"}}, "to last 1h at least"),
        ({"extraEnv": [{"name": "AZURE_ENVIRONMENT"}]}, "take it out and set azureEnvironment"),
        ({"extraEnv": [{"name": "POD_NAMESPACE", "value": "a"}]}, "POD_NAMESPACE is the chart's own"),
        ({CTE: {"audience": "a"}}, "annotationSuffix and audience belong together"),
        ({CTE: {"annotationSuffix": "a"}}, "annotationSuffix and audience belong together"),
        (
            {CTE: {"azureKubernetesCaData": "a", "azureKubernetesCAConfigMapName": "b"}},
            "at most one of azureKubernetesCaData, azureKubernetesCAConfigMapName and azureKubernetesCACTB",
        ),
        ({CTE: {"annotationSuffix": "a", "audience": "b"}}, "azureKubernetesTokenProxy: set the endpoint's"),
        ({CTE: {**ENDPOINT, "audience": "API://AzureADTokenExchange"}}, "is that of ordinary tokens"),
        ({CTE: {"azureKubernetesCACTBLabelSelector": "a=b"}}, '"a=b" is no JSON object'),
        ({CTE: {"azureKubernetesCACTBLabelSelector": "null"}}, '"null" is no JSON object'),
        ({CTE: {"azureKubernetesCACTBLabelSelector": '{"app": "a"}'}}, "take out app"),
        (
            {CTE: {"azureKubernetesCACTBLabelSelector": '{"matchLabels": {"a": 1}}'}},
            "matchLabels has 1 for a; put it in quotes",
        ),
        ({CTE: {"azureKubernetesCACTBLabelSelector": "{}"}}, "set azureKubernetesCACTBSignerName too"),
        ({CTE: {"azureKubernetesTokenProxy": "https://h#f"}}, "azureKubernetesTokenProxy"),
        (
            {"serviceMonitor": {"enabled": True}, "webhook": {"url": "https://127.0.0.1:9443"}},
            "with webhook.url nothing runs in the cluster that could be scraped",
        ),
        (
            {"prometheusRule": {"enabled": True, "disabled": ["PeerPresent"]}},
            '"PeerPresent" is no alert; name any of WorkloadIdentityOperatorAbsent, ',
        ),
    ],
    ids=str,
)  # fmt: skip
def test_refused(values: dict[str, Any], told: str) -> None:
    """The message names the value and says what is wanted."""
    with pytest.raises(ProcessFailed) as refusal:
        rendered(values)

    assert told in str(refusal.value)


@pytest.mark.parametrize("release", ["wi.prod", "wi.prod.eu"])
def test_a_release_whose_service_could_not_be_made(release: str) -> None:
    """Names of releases may be what names of Services may not; that is told before anything is installed."""
    with pytest.raises(ProcessFailed, match=rf'release "{release}": a Service cannot.*set fullnameOverride'):
        rendered(release=release)

    assert "\n  name: wi\n" in rendered({"fullnameOverride": "wi"}, release=release)
    assert "url: " in rendered({"webhook": {"url": "https://h"}}, release=release)  # which has no Service


def test_all_clouds_are_offered() -> None:
    """Who mistypes a cloud is shown the names that the operator knows."""
    with pytest.raises(ProcessFailed) as refusal:
        rendered({"azureEnvironment": "Azure"})

    assert ", ".join([*clouds.NAMES, clouds.STACK]) in str(refusal.value)


def properties(schema: dict[str, Any], within: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and schema of each value, with references followed."""
    for name, found in schema["properties"].items():
        if reference := found.get("$ref"):
            found = SCHEMA["$defs"][reference.rpartition("/")[2]]  # noqa: PLW2901 - the same, followed
        yield within + name, found
        if "properties" in found:
            yield from properties(found, f"{within}{name}.")


def test_schema_and_values_are_of_one_mind() -> None:
    """Every value is in the schema with the type its comment says, and every property is a value."""
    known = dict(properties(SCHEMA))
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))

    types = {name: found["type"] for name, found in known.items()}
    told = {value.name: value.type.partition(",")[0].split(" or ") for value in values}
    assert {name: types[name] if isinstance(types[name], list) else [types[name]] for name in told} == told
    described = {name for name in known if not any(name.startswith(f"{value}.") for value in told)}
    objects = {name.rpartition(".")[0] for name in told} - {""}
    assert described - objects == told.keys()


def test_schema_knows_what_the_operator_knows() -> None:
    """TLS versions and log levels are the operator's, no more and no fewer."""
    assert SCHEMA["properties"]["tlsMinVersion"]["enum"] == list(TLS_VERSIONS)
    assert SCHEMA["properties"]["logLevel"]["enum"] == list(LOG_LEVELS)


def test_defaults_pass_their_own_schema() -> None:
    """Giving every default explicitly changes nothing."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    del defaults["azureTenantID"]

    assert rendered(defaults) == rendered()
