"""azure-identity's ManagedIdentityCredential and ours, asked the same on the same hosts.

They send the same and end the same way, but for what `DIFFERENCES` lists, each with its reason.
"""

import asyncio
import copy
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import azure.identity
import azure.identity.aio
import pytest
from azure.core.exceptions import ClientAuthenticationError

import workload_identity
import workload_identity.aio
from testkit.hosts import (
    ARC_KEYS,
    CLIENT_ID,
    OBJECT_ID,
    RESOURCE,
    RESOURCE_ID,
    AppService,
    Arc,
    AzureMl,
    CloudShell,
    IdentityHost,
    Imds,
    Scripted,
    ServiceFabric,
    arc_keys,
    saying,
)

HOSTS = {
    "imds": Imds,
    "app": AppService,
    "ml": AzureMl,
    "shell": CloudShell,
    "arc": Arc,
    "fabric": ServiceFabric,
}
VARIABLES = ("AZURE_", "IDENTITY_", "IMDS_", "MSI_")
FAST: Any = {"retry_backoff_factor": 0, "retry_backoff_max": 0}


@dataclass(frozen=True)
class Scenario:
    """One call on a host.

    Attributes:
        given: Keywords of the credential.
        script: What the host answers first.
        members: What is put into its tokens.
        scopes: What is asked for.
        gone: Nobody listens there.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    script: tuple[Scripted, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)
    scopes: tuple[str, ...] = (f"{RESOURCE}/.default",)
    gone: bool = False


JSON_400 = saying(400, '{"error": "invalid_request", "error_description": "no"}')
JSON_403 = saying(403, '{"error": "forbidden", "error_description": "no"}')
SCENARIOS = {
    "system": Scenario(),
    "bare resource": Scenario(scopes=(RESOURCE,)),
    "two scopes": Scenario(scopes=(RESOURCE, "https://storage.azure.com")),
    "no scope": Scenario(scopes=()),
    "client id": Scenario({"client_id": CLIENT_ID}),
    "client id of config": Scenario({"identity_config": {"client_id": CLIENT_ID}}),
    "object id": Scenario({"identity_config": {"object_id": OBJECT_ID}}),
    "resource id": Scenario({"identity_config": {"resource_id": RESOURCE_ID}}),
    "id that is not there": Scenario({"client_id": "another"}),
    "client id twice": Scenario({"client_id": CLIENT_ID, "identity_config": {"client_id": CLIENT_ID}}),
    "two ids": Scenario({"identity_config": {"object_id": OBJECT_ID, "resource_id": RESOURCE_ID}}),
    "unknown resource": Scenario(scopes=("vault",)),
    "400": Scenario(script=(JSON_400,) * 2),
    "403": Scenario(script=(JSON_403,) * 2),
    "403 unreachable": Scenario(
        script=(saying(403, '{"error": {"code": "x", "message": "unreachable"}}'),) * 2
    ),
    "500": Scenario(script=(saying(500, '{"error": "odd", "error_description": "no"}'),) * 12),
    "404": Scenario(script=(saying(404, '{"error": "odd", "error_description": "no"}'),) * 12),
    "503 once": Scenario(script=(saying(503, "{}"),)),
    "html": Scenario(script=(saying(200, "<html>", "text/html"),) * 2),
    "empty": Scenario(script=(saying(200, ""),) * 2),
    "cut": Scenario(script=(saying(200, '{"access_token": "x"'),) * 2),
    "no token": Scenario(script=(saying(200, '{"expires_in": "3600", "resource": "x"}'),) * 2),
    "no resource": Scenario(members={"resource": None}),
    "date": Scenario(members={"expires_on": "12/31/2099 23:59:59 +00:00", "expires_in": None}),
    "gone": Scenario(gone=True),
}


def outcome_of(failure: Exception) -> str:
    """Return what a chain would see."""
    if isinstance(failure, azure.identity.CredentialUnavailableError):
        return "unavailable"
    if isinstance(failure, ClientAuthenticationError):
        return "failed"
    return "ValueError" if type(failure) is ValueError else "another error"


def blocking(module: Any, given: Mapping[str, Any], scopes: tuple[str, ...]) -> str:
    """Ask, blocking."""
    try:
        with module.ManagedIdentityCredential(**given) as credential:
            credential.get_token(*scopes)
    except Exception as failure:  # noqa: BLE001 - whatever comes out is what is compared
        return outcome_of(failure)
    return "token"


def awaiting(module: Any, given: Mapping[str, Any], scopes: tuple[str, ...]) -> str:
    """Ask, awaiting."""

    async def ask() -> str:
        try:
            async with module.ManagedIdentityCredential(**given) as credential:
                await credential.get_token(*scopes)
        except Exception as failure:  # noqa: BLE001 - as above
            return outcome_of(failure)
        return "token"

    return asyncio.run(ask())


BOTH = ("blocking", "awaiting")
OTHERS = ("app", "ml", "shell", "arc", "fabric")
REFUSED = (
    "id that is not there",
    "unknown resource",
    "400",
    "403",
    "403 unreachable",
    "500",
    "404",
    "no token",
)
_ANSWERED = "a host that is there and gives no token ends a chain, in both families alike"
_RAW = "nothing but errors of ours comes out"
_DATE = "dates are read on every host"
_RESOURCE = "an answer need not repeat the resource"
_NAME = "each host is asked by the names that it knows"

DIFFERENCES = [
    # hosts, scenarios, families of theirs, how theirs ends, how ours does, why
    (("imds",), ("403", "500", "404", "empty", "no token"), BOTH[:1], "unavailable", "failed", _ANSWERED),
    (
        ("imds",),
        ("unknown resource",),
        BOTH,
        "unavailable",
        "failed",
        "a caller's mistake is not passed over",
    ),
    (("imds",), ("resource id",), BOTH[1:], "unavailable", "token", _NAME),
    (("app", "ml"), ("resource id",), BOTH[1:], "failed", "token", _NAME),
    (("ml",), ("client id of config",), BOTH[1:], "failed", "token", _NAME),
    (("imds",), ("no resource",), BOTH[1:], "unavailable", "token", _RESOURCE),
    (OTHERS, ("no resource",), BOTH[1:], "another error", "token", _RESOURCE),
    (("shell",), ("no resource",), BOTH[:1], "another error", "token", _RESOURCE),
    (("imds",), ("date",), BOTH, "unavailable", "token", _DATE),
    (("app", "shell", "fabric"), ("date",), BOTH, "ValueError", "token", _DATE),
    (("ml",), ("date",), BOTH[:1], "ValueError", "token", _DATE),
    (("arc",), ("date",), BOTH[:1], "unavailable", "token", _DATE),
    (("arc",), ("date",), BOTH[1:], "ValueError", "token", _DATE),
    (("app", "ml", "arc"), REFUSED, BOTH[:1], "unavailable", "failed", _ANSWERED),
    (
        ("fabric",),
        ("unknown resource", "403 unreachable", "no token"),
        BOTH[:1],
        "unavailable",
        "failed",
        _ANSWERED,
    ),
    (("fabric",), ("400", "403", "500", "404"), BOTH[:1], "another error", "failed", _RAW),
    (("app", "ml", "fabric"), ("html", "empty", "cut"), BOTH[:1], "another error", "failed", _RAW),
    (("arc",), ("cut",), BOTH[:1], "another error", "failed", _RAW),
    (("arc",), ("html", "empty"), BOTH[:1], "unavailable", "failed", _ANSWERED),
    (("shell",), ("html",), BOTH[:1], "unavailable", "failed", _ANSWERED),
    (OTHERS, ("html",), BOTH[1:], "unavailable", "failed", _ANSWERED),
    (OTHERS, ("gone",), BOTH, "another error", "failed", "a host that the environment names is there"),
    (("fabric",), ("503 once",), BOTH[:1], "unavailable", "token", "every host is asked again"),
]
OTHER_REQUESTS = {
    ("imds", "resource id", "awaiting"): _NAME,
    ("app", "resource id", "awaiting"): _NAME,
    ("ml", "resource id", "awaiting"): _NAME,
    ("ml", "client id of config", "awaiting"): _NAME,
    ("fabric", "500", "blocking"): "every host is asked again",
    ("fabric", "503 once", "blocking"): "every host is asked again",
}


def listed(host: str, scenario: str, family: str) -> tuple[str, str] | None:
    """Return how theirs and ours end where they differ."""
    rows = [
        (theirs, ours)
        for kinds, scenarios, families, theirs, ours, _ in DIFFERENCES
        if host in kinds and scenario in scenarios and family in families
    ]
    assert len(rows) <= 1
    return rows[0] if rows else None


@pytest.fixture(scope="module")
def keys() -> Iterator[None]:
    """The folder of Azure Arc's keys."""
    try:
        with arc_keys():
            yield
    except PermissionError as failure:
        pytest.skip(f"{ARC_KEYS} cannot be made, that takes root: {failure}")


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[tuple[str, IdentityHost]]:
    """Each host."""
    kind = HOSTS[request.param]
    if kind is Arc:
        request.getfixturevalue("keys")
    with kind() as running:
        yield request.param, running


@pytest.mark.parametrize("name", SCENARIOS)
def test_beside_azure_identity(
    host: tuple[str, IdentityHost], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same requests, same end, or a difference that is listed and is one."""
    kind, running = host
    scenario = SCENARIOS[name]
    for variable in [found for found in os.environ if found.startswith(VARIABLES)]:
        monkeypatch.delenv(variable)
    for variable, value in running.environment.items():
        gone = value.replace(running.url, f"{running.scheme}://127.0.0.1:9") if scenario.gone else value
        monkeypatch.setenv(variable, gone)

    def ask(family: str, module: Any, **more: object) -> tuple[str, list[object]]:
        running.requests.clear()
        running._scripted[:] = scenario.script
        running.members = dict(scenario.members)
        given = {**copy.deepcopy(dict(scenario.given)), **FAST, **more}
        asking = {"blocking": blocking, "awaiting": awaiting}[family]
        ended = asking(module, given, scenario.scopes)
        # theirs does not send Metadata to App Service when it awaits; Automation wants it
        heed = kind != "app"
        return ended, [sent(asked, metadata=heed) for asked in running.requests]

    ours = ask("blocking", workload_identity, shared_cache=False)
    assert ask("awaiting", workload_identity.aio, shared_cache=False) == ours
    for family, module in (("blocking", azure.identity), ("awaiting", azure.identity.aio)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = ask(family, module)
        assert (theirs[0], ours[0]) == (listed(kind, name, family) or (ours[0], ours[0]))
        assert (theirs[1] != ours[1]) is ((kind, name, family) in OTHER_REQUESTS)


def sent(asked: Any, *, metadata: bool) -> object:
    """Return what must be equal of a request: not who sends it, nor the order of parameters."""
    of_host = ("metadata", "secret", "x-identity-header") if metadata else ("secret", "x-identity-header")
    proof = asked.headers.get("authorization", "").partition(" ")[0]
    return asked.method, dict(asked.given), [asked.headers.get(name) for name in of_host], proof
