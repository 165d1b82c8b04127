"""Both families of credentials in a wired pod, with the Entra stand-in or an endpoint of the test's own.

A test is written once, for `family`: blocking and awaiting credentials must do the same.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from aiohttp import web

import workload_identity
import workload_identity.aio
from testkit import loopback
from testkit.azurite import ISSUING, Azurite, azurite
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID, entra, issuer
from testkit.entra.signing_in import device, people, person
from testkit.issuer import Issuer
from workload_identity.cache import SHARED

__all__ = ["device", "entra", "issuer", "people", "person"]

_FOREIGN = (
    "AZURE_IDENTITY_DISABLE_MULTITENANTAUTH",
    "AZURE_HTTP_USER_AGENT",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


@dataclass
class Pod:
    """A wired pod: its environment and its token file."""

    token_file: Path
    environment: dict[str, str]

    def write(self, token: str) -> None:
        """Put a token into the file, in one step as the kubelet does."""
        new = self.token_file.with_suffix(".new")
        new.write_text(token, encoding="utf-8")
        new.rename(self.token_file)


@pytest.fixture
def pod(issuer: Issuer, entra: EntraStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """The environment and the token file of a pod whose identity the stand-in knows."""
    environment = {
        "AZURE_TENANT_ID": TENANT_ID,
        "AZURE_CLIENT_ID": CLIENT_ID,
        "AZURE_AUTHORITY_HOST": f"{entra.authority}/",
        "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "azure-identity-token"),
        "SSL_CERT_FILE": str(entra.ca_file),
    }
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    wired = Pod(tmp_path / "azure-identity-token", environment)
    wired.write(issuer.mint())
    return wired


@pytest.fixture(autouse=True)
def nothing_held() -> None:
    """Each test begins with an empty process-wide cache."""
    SHARED.clear()


class Blocking:
    """Does what it is asked at once."""

    module: ModuleType = workload_identity

    def credential(self, **given: Any) -> Any:
        """Make a credential of this family."""
        return self.module.WorkloadIdentityCredential(**given)

    def do(self, call: Callable[..., Any], *args: Any, **given: Any) -> Any:
        """Call a method and return its result."""
        return call(*args, **given)

    def together(self, calls: list[Callable[[], Any]]) -> list[Any]:
        """Call all at the same time, and return results and errors in their order."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(calls)) as threads:
            futures = [threads.submit(call) for call in calls]
        return [future.exception() or future.result() for future in futures]

    def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        """Give the background time until something is true."""
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            time.sleep(0.01)

    def enter(self, credential: Any) -> Any:
        """Enter a credential's context and leave it, return what entering gave."""
        with credential as entered:
            return entered

    def close(self) -> None:
        """End the use of this family."""


class Awaiting(Blocking):
    """Awaits what it is asked, in an event loop of its own."""

    module = workload_identity.aio

    def __init__(self) -> None:
        self.runner = asyncio.Runner()

    def do(self, call: Callable[..., Any], *args: Any, **given: Any) -> Any:
        """Await a method and return its result."""

        async def awaited() -> Any:
            return await call(*args, **given)

        return self.runner.run(awaited())

    def together(self, calls: list[Callable[[], Any]]) -> list[Any]:
        """Await all at the same time, and return results and errors in their order."""

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

        return self.runner.run(gathered())

    def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        """Run the loop until something is true."""

        async def polled() -> None:
            end = time.monotonic() + seconds
            while not true() and time.monotonic() < end:  # noqa: ASYNC110 - what becomes true knows no event
                await asyncio.sleep(0.01)

        self.runner.run(polled())

    def enter(self, credential: Any) -> Any:
        """Enter a credential's context and leave it, return what entering gave."""

        async def entered() -> Any:
            async with credential as inside:
                return inside

        return self.runner.run(entered())

    def close(self) -> None:
        """Close the loop."""
        self.runner.close()


Family = Blocking


@pytest.fixture(params=[Blocking, Awaiting])
def family(request: pytest.FixtureRequest) -> Iterator[Family]:
    """The blocking family, then the awaiting one."""
    made: Family = request.param()
    yield made
    made.close()


@dataclass
class Endpoint:
    """A token endpoint that answers what a test wants, over TLS.

    Attributes:
        address: Its authority.
        answers: Handlers, one for each request, the last one again and again.
        headers: Of each request so far.
        forms: Likewise; they hold what was sent as an assertion.
    """

    address: str
    ca_file: Path
    answers: list[Callable[[web.Request], Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request."""
        self.headers.append(dict(request.headers))
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        answered = self.answers[min(len(self.forms), len(self.answers)) - 1](request)
        result: web.StreamResponse = await answered if asyncio.iscoroutine(answered) else answered
        return result


@pytest.fixture
def endpoint(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """An endpoint that the pod asks in place of the stand-in; without more it grants a token."""
    del pod
    authority = trustme.CA()
    ca_file = tmp_path / "endpoint-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with loopback.listening("127.0.0.1", 0) as listener:
        made = Endpoint(loopback.address(listener), ca_file, [granting()])
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", made.answer)
        monkeypatch.setenv("AZURE_AUTHORITY_HOST", made.address)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        with loopback.serving(application, listener, loopback.server_tls(authority, "127.0.0.1")):
            yield made


def granting(token: str = "a-token", expires_in: int = 3600) -> Callable[[web.Request], web.Response]:
    """Return a handler that grants a token."""
    return lambda _: web.json_response({"access_token": token, "expires_in": expires_in})


@pytest.fixture
def environment_of_child(pod: Pod) -> dict[str, str]:
    """The environment for a process of its own in the same pod."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, **pod.environment, "PYTHONWARNINGS": "error"}


@pytest.fixture
def trusting(entra: EntraStandIn) -> ssl.SSLContext:
    """Trust in the stand-in, for a test's own HTTP client."""
    return ssl.create_default_context(cafile=str(entra.ca_file))


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A storage account that takes bearer tokens of Entra; those of `entra_of_azure`."""
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def entra_of_azure(issuer: Issuer) -> Iterator[EntraStandIn]:
    """A stand-in whose tokens name the issuer that Entra's do; a test that wants it calls it `entra`."""
    with EntraStandIn(trust=[issuer.ca_file], issuing=ISSUING) as running:
        running.register(
            CLIENT_ID,
            tenant_id=TENANT_ID,
            issuer=issuer.url,
            subject="system:serviceaccount:default:default",
        )
        yield running


@dataclass
class Toolbox:
    """A folder on the PATH with tools that write down how they were run and then do what a test says."""

    folder: Path

    def put(self, name: str, body: str) -> None:
        """Put a tool there: a shell script."""
        record = self.folder / f"{name}.runs"
        record.mkdir(exist_ok=True)
        program = self.folder / name
        program.write_text(
            f"""#!/bin/sh
run=$(mktemp -d {record}/XXXXXX)
printf '%s\\0' "$@" > $run/arguments
env -0 > $run/environment
pwd > $run/folder
cat > $run/input
{body}
""",
            encoding="utf-8",
        )
        program.chmod(0o755)

    def put_answer(self, name: str, stdout: str | bytes, stderr: str = "", status: int = 0) -> None:
        """Put a tool there that writes what it is told to."""
        written = self.folder / f"{name}.out"
        written.write_bytes(stdout if isinstance(stdout, bytes) else stdout.encode())
        complaint = self.folder / f"{name}.err"
        complaint.write_text(stderr, encoding="utf-8")
        self.put(name, f"cat {written}; cat {complaint} >&2; exit {status}")

    def runs_begun(self, name: str) -> int:
        """Return how often a tool was started so far."""
        return len(list((self.folder / f"{name}.runs").glob("*/folder")))

    def runs(self, name: str) -> list[dict[str, Any]]:
        """Return how a tool was run, in no order."""
        return [
            {
                "arguments": (run / "arguments").read_text().split("\0")[:-1],
                "environment": dict(
                    line.partition("=")[::2] for line in (run / "environment").read_text().split("\0")[:-1]
                ),
                "folder": (run / "folder").read_text().strip(),
                "input": (run / "input").read_text(),
            }
            for run in (self.folder / f"{name}.runs").iterdir()
        ]


@pytest.fixture
def toolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toolbox:
    """An empty toolbox, the first folder on the PATH; the machine's own tools of these names are not seen."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("AZURE_IDENTITY_DISABLE_MULTITENANTAUTH", raising=False)
    return Toolbox(folder)
