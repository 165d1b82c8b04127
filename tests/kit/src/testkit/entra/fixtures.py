"""Fixtures for pytest: a stand-in and an issuer that it trusts. A conftest imports the names it wants."""

from collections.abc import Iterator

import pytest

from testkit.entra import EntraStandIn
from testkit.issuer import Issuer

TENANT_ID = "7d2f5d3a-51c3-4d0b-9f3e-1c52c0f1a001"
CLIENT_ID = "0b8e9c54-8a0e-4a52-8d5a-6f0f3a6bc002"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of service account tokens."""
    with Issuer() as running:
        yield running


@pytest.fixture
def entra(issuer: Issuer) -> Iterator[EntraStandIn]:
    """A stand-in where ServiceAccount default/default of `issuer` may act as CLIENT_ID of TENANT_ID."""
    with EntraStandIn(trust=[issuer.ca_file]) as running:
        running.register(
            CLIENT_ID,
            tenant_id=TENANT_ID,
            issuer=issuer.url,
            subject="system:serviceaccount:default:default",
        )
        yield running
