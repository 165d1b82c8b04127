"""Which keys are meant to be one of ours, and which are another's."""

import pytest

from workload_identity_operator import contract
from workload_identity_operator.check.annotations import Keys


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("azure.workload.identity/clientid", contract.CLIENT_ID),
        ("azure.workload.identity/client_id", contract.CLIENT_ID),
        ("azure.workload.identity/Client-Id", contract.CLIENT_ID),
        ("azure.workload.identiy/client-id", contract.CLIENT_ID),
        ("azure-workload-identity/client-id", contract.CLIENT_ID),
        ("azure.workload-identity/client-id", contract.CLIENT_ID),
        ("azure.workload.identity.client-id", contract.CLIENT_ID),
        ("Azure.Workload.Identity/tenant-id", contract.TENANT_ID),
        ("azure.workload.identity.io/tenant-id", contract.TENANT_ID),
        ("workload.identity.azure/tenant-id", contract.TENANT_ID),
        ("azure.workload.identity/used", contract.USE_LABEL),
        ("azure.workload.identity", contract.USE_LABEL),
        ("workload.identity/use", contract.USE_LABEL),
        ("azure.workload.identity/token-expiration", contract.EXPIRATION),
        ("azure.workload.identity/skip-container", contract.SKIP_CONTAINERS),
        ("azure.workload.identity/inject-sidecar", contract.INJECT_PROXY),
        ("workload-identity.io/kept-by", ""),
        ("azure-workload-identity.io/system", ""),
        ("eks.amazonaws.com/role-arn", ""),
        ("iam.gke.io/gcp-service-account", ""),
        ("kubernetes.azure.com/managedby", ""),
        ("app.kubernetes.io/name", ""),
        ("meta.helm.sh/release-name", ""),
        ("client-id", ""),
    ],
)
def test_what_a_key_is_meant_to_be(key: str, meant: str) -> None:
    """One that has most of the letters of ours in their order, and the words that make it ours."""
    assert Keys().meant_by(key) == meant
