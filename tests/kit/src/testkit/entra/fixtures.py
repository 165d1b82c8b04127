"""Fixtures for pytest: a stand-in, an issuer that it trusts, a client. A conftest imports what it wants."""

import functools
import ssl
from collections.abc import Callable, Iterator
from typing import TypeAlias

import httpx
import pytest

from testkit.entra import EntraStandIn
from testkit.entra.grants import JWT_BEARER
from testkit.issuer import Issuer
from testkit.signing import SigningKey

TENANT_ID = "7d2f5d3a-51c3-4d0b-9f3e-1c52c0f1a001"
CLIENT_ID = "0b8e9c54-8a0e-4a52-8d5a-6f0f3a6bc002"

Ask: TypeAlias = Callable[..., httpx.Response]


@functools.cache
def _key(owner: str) -> SigningKey:
    """Make a key once for all tests: it takes longer than most of them."""
    del owner
    return SigningKey.generate()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of service account tokens."""
    with Issuer(key=_key("issuer")) as running:
        yield running


@pytest.fixture
def entra(issuer: Issuer) -> Iterator[EntraStandIn]:
    """A stand-in where ServiceAccount default/default of `issuer` may act as CLIENT_ID of TENANT_ID."""
    with EntraStandIn(trust=[issuer.ca_file], key=_key("entra")) as running:
        running.register(
            CLIENT_ID,
            tenant_id=TENANT_ID,
            issuer=issuer.url,
            subject="system:serviceaccount:default:default",
        )
        yield running


@pytest.fixture
def client(entra: EntraStandIn) -> Iterator[httpx.Client]:
    """An HTTPS client of the stand-in that trusts it and nobody else."""
    trusted = ssl.create_default_context(cafile=str(entra.ca_file))
    with httpx.Client(base_url=entra.authority, verify=trusted) as running:
        yield running


@pytest.fixture
def ask(client: httpx.Client, issuer: Issuer) -> Ask:
    """Ask for a token as ServiceAccount default/default; members given replace the form's, None removes."""

    def asking(
        *, tenant: str = TENANT_ID, headers: dict[str, str] | None = None, **changes: str | None
    ) -> httpx.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "scope": "https://vault.azure.net/.default",
            "client_assertion_type": JWT_BEARER,
            "client_assertion": issuer.mint(),
            **changes,
        }
        data = {name: value for name, value in form.items() if value is not None}
        return client.post(f"/{tenant}/oauth2/v2.0/token", data=data, headers=headers)

    return asking
