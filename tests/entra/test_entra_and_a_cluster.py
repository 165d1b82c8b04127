"""The stand-in before a real kube-apiserver: its documents are fetched, its tokens judged."""

from collections.abc import Iterator

import pytest

from testkit.control_plane import ControlPlane
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, Ask

AUDIENCE = "api://AzureADTokenExchange"


@pytest.fixture
def entra(control_plane: ControlPlane, namespace: str) -> Iterator[EntraStandIn]:
    """A stand-in that knows ServiceAccount `default` of the namespace."""
    with EntraStandIn(trust=[control_plane.ca_file]) as running:
        subject = f"system:serviceaccount:{namespace}:default"
        running.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=control_plane.issuer, subject=subject)
        yield running


def test_a_token_of_a_real_api_server_is_traded(
    ask: Ask, control_plane: ControlPlane, namespace: str
) -> None:
    """Discovery, key set, signature and claims are as kube-apiserver makes them."""
    token = control_plane.kubectl(
        "create", "token", "default", f"--namespace={namespace}", f"--audience={AUDIENCE}"
    )

    answer = ask(client_assertion=token.strip())

    assert answer.json().get("error_description") is None
    assert answer.json()["token_type"] == "Bearer"


def test_the_api_servers_own_audience_is_refused(
    ask: Ask, control_plane: ControlPlane, namespace: str
) -> None:
    """The token that a pod talks to the API server with is none for Entra."""
    token = control_plane.kubectl("create", "token", "default", f"--namespace={namespace}")

    assert ask(client_assertion=token.strip()).json()["error_codes"] == [700212]
