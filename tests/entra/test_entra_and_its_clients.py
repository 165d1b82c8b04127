"""Microsoft's own libraries take the stand-in for Entra."""

from pathlib import Path

import msal
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import WorkloadIdentityCredential

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.issuer import Issuer

SCOPE = "https://vault.azure.net/.default"


def credential(entra: EntraStandIn, token_file: Path) -> WorkloadIdentityCredential:
    """Return azure-identity's credential for a pod's token, as the pod's environment would make it."""
    return WorkloadIdentityCredential(
        tenant_id=TENANT_ID,
        client_id=CLIENT_ID,
        token_file_path=str(token_file),
        authority=entra.authority,
        connection_verify=str(entra.ca_file),
        retry_total=0,
    )


def test_azure_identity_gets_a_token(entra: EntraStandIn, issuer: Issuer, tmp_path: Path) -> None:
    """With a claims-capable request, as Azure SDK clients make it."""
    token_file = tmp_path / "token"
    token_file.write_text(issuer.mint())
    with credential(entra, token_file) as ours:
        token = ours.get_token(SCOPE, enable_cae=True)

    assert len(token.token.split(".")) == 3
    assert [request.outcome for request in entra.requests] == ["granted"]


def test_azure_identity_understands_a_refusal(entra: EntraStandIn, issuer: Issuer, tmp_path: Path) -> None:
    """Its error quotes Entra's description, code and all."""
    token_file = tmp_path / "token"
    token_file.write_text(issuer.mint(namespace="other"))
    with credential(entra, token_file) as ours, pytest.raises(ClientAuthenticationError) as refused:
        ours.get_token(SCOPE)

    assert "AADSTS700213" in str(refused.value)
    assert "'system:serviceaccount:other:default'" in str(refused.value)


def test_msal_finds_the_token_endpoint_by_discovery(
    entra: EntraStandIn, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the tenant's discovery document first, and asks where that points."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(entra.ca_file))  # its requests heed it before `verify`
    application = msal.ConfidentialClientApplication(
        CLIENT_ID,
        authority=f"{entra.authority}/{TENANT_ID}",
        client_credential={"client_assertion": issuer.mint},
        instance_discovery=False,
    )

    answer = application.acquire_token_for_client([SCOPE])

    assert answer.get("error_description") is None
    assert len(answer["access_token"].split(".")) == 3
