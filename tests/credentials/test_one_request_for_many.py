"""A hundred callers, threads or tasks, with twenty instances: one request, of every unattended credential."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.client_certificates import Issued
from testkit.entra import EntraStandIn
from testkit.entra.faults import Slow
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.hosts import AppService, Arc, AzureMl, CloudShell, IdentityHost, Imds, ServiceFabric, arc_keys
from testkit.issuer import Issuer
from testkit.pipelines import running_job
from workload_identity.cache import SHARED

Family = Any
Toolbox = Any
Make = Callable[[], Any]
SCOPE = "https://vault.azure.net/.default"
SECRET = "a-secret"
CALLERS, INSTANCES = 100, 20


def all_at_once(family: Family, make: Make) -> None:
    """Have all ask, and check that all got the same."""
    instances = [make() for _ in range(INSTANCES)]

    tokens = family.together(
        [lambda one=one: one.get_token(SCOPE) for one in instances] * (CALLERS // INSTANCES)
    )

    assert len(set(tokens)) == 1, tokens[0]
    assert not isinstance(tokens[0], BaseException), tokens[0]


@pytest.fixture
def entra_of_all(entra: EntraStandIn, pod: Any) -> EntraStandIn:
    """A stand-in that knows the application's secret too."""
    del pod
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    return entra


def secret(family: Family) -> Make:
    """Return what makes a credential with the secret."""
    return lambda: family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, SECRET)


def certificate(family: Family, entra: EntraStandIn) -> Make:
    """Return the same with a certificate."""
    issued = Issued.of("client")
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    return lambda: family.module.CertificateCredential(TENANT_ID, CLIENT_ID, certificate_data=issued.pem())


def behalf(family: Family, entra: EntraStandIn) -> Make:
    """Return the same for a user."""
    ada = entra.user_token(CLIENT_ID, tenant_id=TENANT_ID, user="ada")
    return lambda: family.module.OnBehalfOfCredential(
        TENANT_ID, CLIENT_ID, user_assertion=ada, client_secret=SECRET
    )


def environment(family: Family, patch: pytest.MonkeyPatch) -> Make:
    """Return the same by variables."""
    patch.setenv("AZURE_CLIENT_SECRET", SECRET)
    made: Make = family.module.EnvironmentCredential
    return made


def chained(family: Family) -> Make:
    """Return the same in a chain, behind a member that has nothing."""
    return lambda: family.module.ChainedTokenCredential(
        family.module.AzurePipelinesCredential(
            tenant_id=TENANT_ID, client_id=CLIENT_ID, service_connection_id="c", system_access_token="t"
        ),
        secret(family)(),
    )


@pytest.mark.parametrize(
    "name", ["secret", "certificate", "assertion", "behalf", "environment", "workload", "default", "chained"]
)
def test_token_endpoint(
    family: Family,
    entra_of_all: EntraStandIn,
    issuer: Issuer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Entra is asked once."""
    entra = entra_of_all
    monkeypatch.delenv("SYSTEM_OIDCREQUESTURI", raising=False)
    monkeypatch.delenv("AZURE_TOKEN_CREDENTIALS", raising=False)
    makers: dict[str, Callable[[], Make]] = {
        "secret": lambda: secret(family),
        "certificate": lambda: certificate(family, entra),
        "assertion": lambda: (
            lambda: family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, issuer.mint)
        ),
        "behalf": lambda: behalf(family, entra),
        "environment": lambda: environment(family, monkeypatch),
        "workload": lambda: family.credential,
        "default": lambda: family.module.DefaultAzureCredential,
        "chained": lambda: chained(family),
    }
    make = makers[name]()

    with entra.fault(Slow(0.2)):
        all_at_once(family, make)

    assert [request.outcome for request in entra.requests] == ["granted"]


def test_pipelines(
    family: Family,
    entra_of_all: EntraStandIn,
    issuer: Issuer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job's endpoint and Entra are asked once."""
    subject = "sc://organization/project/connection"
    entra_of_all.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=issuer.url, subject=subject)
    with running_job(tmp_path, "access", connection=lambda: issuer.mint(sub=subject)) as job:
        monkeypatch.setenv("SYSTEM_OIDCREQUESTURI", job.url)
        both = tmp_path / "both.pem"
        both.write_bytes(job.ca_file.read_bytes() + entra_of_all.ca_file.read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(both))

        all_at_once(
            family,
            lambda: family.module.AzurePipelinesCredential(
                tenant_id=TENANT_ID,
                client_id=CLIENT_ID,
                service_connection_id="connection",
                system_access_token="access",
            ),
        )

    assert len(job.requests) == len(entra_of_all.requests) == 1


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable says where this runs."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "IDENTITY_", "IMDS_", "MSI_")):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    """The folder of Azure Arc's keys."""
    try:
        with arc_keys() as folder:
            yield folder
    except PermissionError as failure:
        pytest.skip(f"it cannot be made, that takes root: {failure}")


@pytest.mark.parametrize(
    "kind", [Imds, AppService, Arc, ServiceFabric, CloudShell, AzureMl], ids=lambda kind: kind.__name__
)
def test_machines(
    family: Family, kind: type[IdentityHost], nowhere: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The machine's endpoint gives one token."""
    if kind is Arc:
        request.getfixturevalue("keys")
    with kind() as host:
        for name, value in host.environment.items():
            nowhere.setenv(name, value)

        all_at_once(family, family.module.ManagedIdentityCredential)

        assert len(host.tokens) == 1
        # Azure Arc challenges before.
        assert len(host.requests) == (2 if kind is Arc else 1)


@pytest.mark.parametrize(
    ("name", "credential", "output"),
    [
        ("az", "AzureCliCredential", '{"accessToken": "t", "expires_on": 2000000000}'),
        ("azd", "AzureDeveloperCliCredential", '{"token": "t", "expiresOn": "2033-05-18T03:33:20Z"}'),
        ("pwsh", "AzurePowerShellCredential", "azsdk%t%2000000000"),
    ],
)
def test_tools(family: Family, toolbox: Toolbox, name: str, credential: str, output: str) -> None:
    """One process serves all who come while it runs; nothing is held, so it runs until all are there."""
    gate = toolbox.folder / "gate"
    toolbox.put(name, f"while [ ! -e {gate} ]; do sleep 0.02; done; echo '{output}'")

    def open_when_all_wait() -> None:
        end = time.monotonic() + 50
        while time.monotonic() < end:
            flights = [
                flight
                for slots in list(SHARED._slots.values())
                for slot in list(slots.values())
                for flight in list(slot.flights.values())
            ]
            if sum(len(flight.waiting) for flight in flights) >= CALLERS - 1:
                break
            time.sleep(0.02)
        gate.touch()

    opening = threading.Thread(target=open_when_all_wait)
    opening.start()
    all_at_once(family, lambda: getattr(family.module, credential)(process_timeout=60))
    opening.join()

    assert toolbox.runs_begun(name) == 1
