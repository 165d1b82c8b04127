"""DefaultAzureCredential: who is in it, what ends its walk, and what it remembers."""

import asyncio
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import workload_identity
import workload_identity.aio
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from workload_identity import (
    ClientAuthenticationError,
    CredentialUnavailableError,
    TokenCachePersistenceOptions,
)

Family = Any
Pod = Any
Toolbox = Any
SCOPE = "https://vault.azure.net/.default"
ENVIRONMENT = "EnvironmentCredential"
WORKLOAD = "WorkloadIdentityCredential"
MANAGED = "ManagedIdentityCredential"
SHARED = "SharedTokenCacheCredential"
CODE = "VisualStudioCodeCredential"
AZ = "AzureCliCredential"
PWSH = "AzurePowerShellCredential"
AZD = "AzureDeveloperCliCredential"
BROWSER = "InteractiveBrowserCredential"
BROKER = "InteractiveBrowserBrokerCredential"
PROD = [ENVIRONMENT, WORKLOAD, MANAGED]
DEV = [SHARED, CODE, AZ, PWSH, AZD, BROKER]
GIVEN = {"accessToken": "of-az", "expires_on": 2_000_000_000}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is no pod and has no variable of Azure's, nor a metadata service to look for."""
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # An endpoint that no host of Azure's has by itself: managed identity is unavailable, without asking.
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:1")


def members(chain: Any) -> list[str]:
    """Return the names of a chain's members."""
    return repr(chain).removesuffix(">").partition(" of ")[2].split(", ")


def make(family: Family, **given: Any) -> Any:
    """Make the chain."""
    return family.module.DefaultAzureCredential(**given)


def refused(family: Family, chain: Any, *scopes: str) -> ClientAuthenticationError:
    """Return what it raises."""
    with pytest.raises(ClientAuthenticationError) as failure:
        family.do(chain.get_token, *(scopes or (SCOPE,)))
    return failure.value


def test_order(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the browser; in a pod without what only a desk has."""
    assert members(make(family)) == PROD + DEV
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert members(make(family)) == [*PROD, AZ, PWSH, AZD]
    with_cache = make(family, exclude_shared_token_cache_credential=False)
    assert members(with_cache) == [*PROD, SHARED, AZ, PWSH, AZD]


@pytest.mark.parametrize("pod", [False, True])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", None),
        ("  ", None),
        ("dev", DEV),
        (" PROD ", PROD),
        *((name, [name]) for name in (*PROD, CODE, AZ, PWSH, AZD, BROWSER)),
        (AZ.upper(), [AZ]),
    ],
)
def test_variable(
    family: Family, monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str] | None, pod: bool
) -> None:
    """A group or a name; it is said, so in a pod it counts too."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", value)
    if pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    chain = make(family)

    assert members(chain) == (expected or ([*PROD, AZ, PWSH, AZD] if pod else PROD + DEV))


@pytest.mark.parametrize("value", [SHARED, BROKER, "dev,prod", "AzureCli", "none"])
def test_variable_that_names_nothing(family: Family, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The error says what may stand there."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", value)

    with pytest.raises(ValueError, match="wanted one of dev, prod, EnvironmentCredential,"):
        make(family)


def test_variable_that_must_be_set(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """`require_envvar` guards production against a chain that tries everything."""
    with pytest.raises(ValueError, match="AZURE_TOKEN_CREDENTIALS is not set"):
        make(family, require_envvar=True)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
    assert members(make(family, require_envvar=True)) == PROD


EXCLUDE = {
    ENVIRONMENT: "environment",
    WORKLOAD: "workload_identity",
    MANAGED: "managed_identity",
    SHARED: "shared_token_cache",
    CODE: "visual_studio_code",
    AZ: "cli",
    PWSH: "powershell",
    AZD: "developer_cli",
    BROWSER: "interactive_browser",
    BROKER: "broker",
}


@pytest.mark.parametrize("name", list(EXCLUDE))
def test_excluding(family: Family, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """True leaves out, False puts in, whatever the variable says; None does nothing."""
    keyword = f"exclude_{EXCLUDE[name]}_credential"

    assert name not in members(make(family, **{keyword: True}))
    assert name in members(make(family, **{keyword: False}))
    assert members(make(family, **{keyword: None})) == PROD + DEV
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    assert set(members(make(family, **{keyword: False}))) == {AZ, name}


def test_nothing_left(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain without members is a mistake."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    with pytest.raises(ValueError, match="no member left"):
        make(family, exclude_cli_credential=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"authority": "http://login.example"}, "authority"),
        ({"workload_identity_tenant_id": "a/b"}, "workload_identity_tenant_id: "),
        ({"shared_cache_tenant_id": "a/b"}, "shared_cache_tenant_id: "),
        ({"interactive_browser_tenant_id": "a b"}, "interactive_browser_tenant_id: "),
        ({"process_timeout": -1}, "process_timeout"),
        ({"token_file_timeout": "long"}, "token_file_timeout"),
        ({"retry_total": -1}, "retry_total"),
        ({"transport": object()}, "transport"),
        ({"identity_config": {"client_id": "a", "object_id": "b"}}, "identity_config|object_id"),
        ({"managed_identity_client_id": "a", "managed_identity_object_id": "b"}, "give one of them"),
        ({"managed_identity_resource_id": "a", "identity_config": {"client_id": "b"}}, "give one of them"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_the_caller_gives_must_do(family: Family, given: dict[str, Any], words: str) -> None:
    """A keyword that cannot work is told at once."""
    with pytest.raises(ValueError, match=words):
        make(family, **given)


def test_tenant_id(family: Family) -> None:
    """There is no one tenant for all members."""
    with pytest.raises(TypeError, match="workload_identity_tenant_id"):
        make(family, tenant_id=TENANT_ID)


def test_unknown_keyword(family: Family) -> None:
    """One warning for the whole chain, at the caller's line."""
    with pytest.warns(UserWarning, match="did you mean 'exclude_cli_credential'") as warned:
        make(family, exclude_cli_credentials=True)

    assert [warning.filename for warning in warned] == [__file__]


def test_what_the_environment_says_may_be_broken(
    family: Family, monkeypatch: pytest.MonkeyPatch, pod: Pod
) -> None:
    """Construction works; the member that it was said for is there and fails when it is asked."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_TENANT_ID", "no tenant")

    chain = make(family)
    refusal = refused(family, chain)

    assert members(chain) == PROD + DEV
    assert [(name, type(error).__name__) for name, error in refusal.attempts] == [
        (ENVIRONMENT, "CredentialUnavailableError"),
        (WORKLOAD, "ClientAuthenticationError"),
    ]
    assert "tenant id 'no tenant'" in str(refusal)
    assert not refusal.all_unavailable


@pytest.mark.usefixtures("toolbox")
def test_what_the_environment_does_not_say(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that lacks something is passed over, under its own name; the error says what to do."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    refusal = refused(family, make(family))

    assert [name for name, _ in refusal.attempts] == [*PROD, AZ, PWSH, AZD]
    assert refusal.all_unavailable
    lines = str(refusal).splitlines()
    assert len(lines) == 8
    assert lines[2].startswith(f"  {WORKLOAD}: WorkloadIdentityCredential lacks tenant_id")
    assert "azure.workload.identity/client-id" in lines[-1]


def test_in_a_wired_pod(
    family: Family, pod: Pod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workload identity answers; one INFO line says so, and in how many milliseconds."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    caplog.set_level(logging.INFO, "workload_identity")
    chain = make(family)

    token = family.do(chain.get_token, SCOPE)
    info = family.do(chain.get_token_info, SCOPE)

    assert (info.token, info.token_type) == (token.token, "Bearer")
    records = [record.getMessage() for record in caplog.records if "gave a token" in record.getMessage()]
    assert len(records) == 1
    assert records[0].startswith(f"DefaultAzureCredential for {SCOPE}: {WORKLOAD} gave a token, in ")
    assert records[0].endswith(" ms")


def test_refusal_stops(family: Family, pod: Pod, toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that is wired wrongly does not get the token of whoever is signed in to `az`."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    toolbox.put_answer("az", json.dumps(GIVEN))
    chain = make(family, workload_identity_client_id="00000000-0000-0000-0000-00000000dead")

    refusal = refused(family, chain)

    assert refusal.attempts[-1].name == WORKLOAD
    assert refusal.error_codes
    assert refusal.__cause__ is refusal.attempts[-1].error
    assert toolbox.runs("az") == []


def test_tools_do_not_stop(family: Family, toolbox: Toolbox) -> None:
    """A developer's tool that was asked and failed is passed over, here alone."""
    toolbox.put_answer("az", "", "ERROR: AADSTS70043: expired", 1)
    toolbox.put_answer("pwsh", "azsdk%%", "", 0)
    toolbox.put_answer("azd", '{"token": "of-azd", "expiresOn": "2033-05-18T03:33:20Z"}')
    chain = make(family)

    assert family.do(chain.get_token, SCOPE).token == "of-azd"
    (toolbox.folder / "azd").unlink()
    chain.reset()
    refusal = refused(family, chain)
    assert refusal.all_unavailable
    failed = dict(refusal.attempts)
    assert not isinstance(failed[AZ], CredentialUnavailableError)
    assert isinstance(failed[AZD], CredentialUnavailableError)
    alone = family.module.ChainedTokenCredential(family.module.AzureCliCredential(), chain)
    assert [name for name, _ in refused(family, alone).attempts] == [AZ]


def test_first_success_is_kept(family: Family, toolbox: Toolbox) -> None:
    """Later calls go to the same member, and its error is theirs; `reset` has all of them asked again."""
    toolbox.put_answer("azd", '{"token": "of-azd", "expiresOn": "2033-05-18T03:33:20Z"}')
    chain = make(family)
    assert family.do(chain.get_token, SCOPE).token == "of-azd"
    toolbox.put_answer("az", json.dumps(GIVEN))

    assert family.do(chain.get_token, SCOPE).token == "of-azd"
    assert family.do(chain.get_token_info, SCOPE).token == "of-azd"
    assert toolbox.runs("az") == []
    toolbox.put_answer("azd", "", "ERROR: it broke", 1)
    failure = refused(family, chain)
    assert str(failure).startswith("Azure Developer CLI ended with status 1")
    assert failure.attempts == []
    chain.reset()
    assert family.do(chain.get_token, SCOPE).token == "of-az"


def slowly(toolbox: Toolbox, name: str, seconds: float) -> None:
    """Have a tool take some time."""
    tool = toolbox.folder / name
    tool.write_text(tool.read_text().replace("cat > $run/input", f"cat > $run/input; sleep {seconds}"))


def test_one_walk_for_all(family: Family, toolbox: Toolbox) -> None:
    """Calls at the same time for the same thing share a walk and its answer."""
    toolbox.put_answer("az", "", "ERROR: it broke", 1)
    toolbox.put_answer("pwsh", "azsdk%of-pwsh%2000000000")
    slowly(toolbox, "pwsh", 0.5)
    chain = make(family)

    results = family.together(
        [lambda: chain.get_token(SCOPE)] * 10 + [lambda: chain.get_token_info(SCOPE)] * 10
    )

    assert {result.token for result in results} == {"of-pwsh"}
    assert len(toolbox.runs("az")) == len(toolbox.runs("pwsh")) == 1


def test_one_walk_at_a_time(family: Family, toolbox: Toolbox) -> None:
    """Those who ask for something else wait for the walk, and then ask the member that was found."""
    toolbox.put_answer("az", "", "ERROR: it broke", 1)
    toolbox.put_answer("pwsh", "azsdk%of-pwsh%2000000000")
    slowly(toolbox, "pwsh", 0.5)
    chain = make(family)

    results = family.together(
        [lambda number=number: chain.get_token(f"scope-{number}") for number in range(5)]
    )

    assert {getattr(result, "token", result) for result in results} == {"of-pwsh"}
    assert len(toolbox.runs("az")) == 1
    assert len(toolbox.runs("pwsh")) == 5


def test_one_failure_for_all(family: Family, toolbox: Toolbox) -> None:
    """Who waited for a walk in vain is told so, each by an error of their own; others have another walk."""
    toolbox.put_answer("az", "", "ERROR: it broke", 1)
    slowly(toolbox, "az", 0.5)
    chain = make(family)

    results = family.together(
        [lambda: chain.get_token(SCOPE)] * 8 + [lambda: chain.get_token("https://another/.default")] * 8
    )

    assert all(isinstance(result, ClientAuthenticationError) for result in results)
    assert len({id(result) for result in results}) == 16
    assert all(SCOPE in str(result) for result in results[:8])
    assert all("https://another/.default" in str(result) for result in results[8:])
    assert len(toolbox.runs("az")) == 2


async def test_leader_that_is_cancelled(toolbox: Toolbox) -> None:
    """The walk goes on for those who wait for it."""
    toolbox.put_answer("az", json.dumps(GIVEN))
    slowly(toolbox, "az", 0.5)
    chain = workload_identity.aio.DefaultAzureCredential()
    leader = asyncio.create_task(chain.get_token(SCOPE))
    await asyncio.sleep(0)
    followers = [asyncio.create_task(chain.get_token(SCOPE)) for _ in range(5)]
    async with asyncio.timeout(30):
        while not toolbox.runs_begun("az"):  # noqa: ASYNC110 - a process is no event
            await asyncio.sleep(0.01)
    leader.cancel()

    assert {token.token for token in await asyncio.gather(*followers)} == {"of-az"}
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert len(toolbox.runs("az")) == 1


def test_several_event_loops(toolbox: Toolbox) -> None:
    """One chain serves the loops of several threads."""
    toolbox.put_answer("az", json.dumps(GIVEN))
    slowly(toolbox, "az", 0.3)
    chain = workload_identity.aio.DefaultAzureCredential()
    tokens: list[str] = []

    def ask() -> None:
        tokens.append(asyncio.run(chain.get_token(SCOPE)).token)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert tokens == ["of-az"] * 5
    assert len(toolbox.runs("az")) == 1


def test_keywords_reach_the_members(family: Family, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Authority, tenants, options and ids go to all that take them."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "a secret")
    monkeypatch.delenv("AZURE_AUTHORITY_HOST")
    chain = make(
        family,
        authority="login.example",
        additionally_allowed_tenants=iter(["another"]),
        workload_identity_client_id="a-client",
        token_file_timeout=3,
        retry_on_propagation=4,
        process_timeout=7,
        timeout=8,
        exclude_interactive_browser_credential=False,
        managed_identity_object_id="an-object",
        cache_persistence_options=TokenCachePersistenceOptions(name="a-store"),
        disable_instance_discovery=True,
        shared_cache=False,
    )

    of = dict(zip(members(chain), chain.credentials, strict=True))
    workload = of[WORKLOAD]
    assert workload._authority == of[ENVIRONMENT]._chosen._authority == "https://login.example"
    assert workload._allowed_tenants == of[ENVIRONMENT]._chosen._allowed_tenants == ("another",)
    assert (workload._client_id, workload._tenant_id) == ("a-client", TENANT_ID)
    assert (workload._token_file_timeout, workload._retry_on_propagation) == (3, 4)
    assert of[AZ]._process_timeout == of[PWSH]._process_timeout == of[AZD]._process_timeout == 7
    assert workload._options.timeout == of[MANAGED]._options.timeout == 8
    assert of[MANAGED]._identified == ("object_id", "an-object")
    assert "login.example" in repr(vars(of[BROWSER]))
    assert of[ENVIRONMENT]._chosen._persistence.name == of[BROWSER]._persistence.name == "a-store"
    assert not of[BROWSER]._discovery
    assert not of[ENVIRONMENT]._chosen._shared
    assert not workload._shared


def test_none_is_not_given(family: Family) -> None:
    """Code that passes settings on has None for those that nobody made."""
    chain = make(family, additionally_allowed_tenants=None, process_timeout=None, timeout=None)

    of = dict(zip(members(chain), chain.credentials, strict=True))
    assert of[AZ]._process_timeout == 10
    assert of[MANAGED]._options.timeout == 120


@pytest.mark.parametrize(
    ("given", "identified"),
    [
        ({}, ("client_id", CLIENT_ID)),
        ({"managed_identity_client_id": None}, None),
        ({"managed_identity_client_id": "another"}, ("client_id", "another")),
        ({"managed_identity_resource_id": "/a/resource"}, ("resource_id", "/a/resource")),
        ({"identity_config": {"object_id": "x"}}, ("object_id", "x")),
    ],
    ids=str,
)
def test_which_managed_identity(
    family: Family,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    identified: tuple[str, str] | None,
) -> None:
    """AZURE_CLIENT_ID names it, unless the caller does, be it with None."""
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT_ID)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")

    assert make(family, **given).credentials[2]._identified == identified


def test_managed_identity_is_no_second_workload_identity(
    family: Family, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token file is tried once."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("IDENTITY_ENDPOINT")

    for given in ({}, {"exclude_workload_identity_credential": True}):
        chain = make(family, **given)
        managed = dict(zip(members(chain), chain.credentials, strict=True))[MANAGED]
        assert managed._host.kind == "IMDS"


def test_token_proxy(family: Family, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy of an identity binding is used where there is one, unless the caller says no."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AZURE_KUBERNETES_TOKEN_PROXY", "https://127.0.0.1:1")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")

    assert make(family).credentials[1]._proxy is not None
    assert make(family, enable_azure_proxy=False).credentials[1]._proxy is None
    monkeypatch.setenv("AZURE_KUBERNETES_TOKEN_PROXY", "http://127.0.0.1:1")
    assert "an https address was wanted" in str(refused(family, make(family)))
    with pytest.raises(ValueError, match="an https address was wanted"):
        make(family, enable_azure_proxy=True)


def test_copies_and_closing(family: Family, toolbox: Toolbox) -> None:
    """A copy in another process has no token and no memory; a closed chain says that it is."""
    toolbox.put_answer("az", json.dumps(GIVEN))
    chain = make(family)
    family.do(chain.get_token, SCOPE)
    pickled = pickle.dumps(chain)

    assert b"of-az" not in pickled
    twin = pickle.loads(pickled)  # noqa: S301 - our own
    assert twin._chosen is None
    assert family.do(twin.get_token, SCOPE).token == "of-az"
    family.do(chain.close)
    family.do(chain.close)
    with pytest.raises(ValueError, match="DefaultAzureCredential is closed"):
        family.do(chain.get_token, SCOPE)
    with pytest.raises(ValueError, match="DefaultAzureCredential is closed"):
        family.do(chain.get_token_info, SCOPE)


@pytest.mark.parametrize("module", ["workload_identity", "workload_identity.aio"])
def test_nothing_is_imported_early(module: str) -> None:
    """The class costs nothing of its members', and the chain itself none of what they need to ask."""
    program = f"""
import sys, time
from {module} import DefaultAzureCredential
of_members = {{"tools", "managed", "users", "principals", "environment", "workload", "placeholders"}}
print(sorted(of_members & {{name.rpartition(".")[2] for name in sys.modules}}))
DefaultAzureCredential()
heavy = {{"msal", "httpx", "ssl", "subprocess", "asyncio", "cryptography", "shutil"}}
print(sorted(heavy & set(sys.modules)))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AZURE_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment
    )

    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


@pytest.mark.usefixtures("pod")
def test_calls_after_the_first_are_cheap(
    family: Family, pod: Pod, entra: EntraStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand calls make one request."""
    for name, value in pod.environment.items():
        monkeypatch.setenv(name, value)
    chain = make(family)
    family.do(chain.get_token, SCOPE)
    before = len(entra.requests)
    end = time.time() + 30

    assert all(family.do(chain.get_token, SCOPE).expires_on > end for _ in range(100))
    assert len(entra.requests) == before
