"""Azure SDK clients take our credentials: azure-core's own pipelines and bearer policies."""

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import azure.core.credentials
import azure.core.credentials_async
import azure.core.exceptions
import azure.identity
import pytest
import trustme
from aiohttp import web
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, BearerTokenCredentialPolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest

import workload_identity
import workload_identity.aio
from testkit import loopback
from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID

SCOPE = "https://vault.azure.net/.default"
CHALLENGE = '{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}'
pytestmark = pytest.mark.usefixtures("pod")


@dataclass
class Resource:
    """A service that wants a bearer token, and for some tokens one with more claims.

    Attributes:
        tokens: What came as bearer tokens.
        challenges: How many requests it still answers with a claims challenge.
    """

    address: str
    ca_file: Path
    tokens: list[str] = field(default_factory=list)
    challenges: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Take the token, or ask for another."""
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        if self.challenges:
            self.challenges -= 1
            claims = base64.b64encode(CHALLENGE.encode()).decode()
            challenge = f'Bearer realm="", error="insufficient_claims", claims="{claims}"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.json_response({"hello": "pod"})


@contextmanager
def serving(folder: Path) -> Iterator[Resource]:
    """Run a resource."""
    authority = trustme.CA()
    ca_file = folder / "resource-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    with loopback.listening("127.0.0.1", 0) as listener:
        made = Resource(loopback.address(listener), ca_file)
        application = web.Application()
        application.router.add_get("/", made.answer)
        with loopback.serving(application, listener, loopback.server_tls(authority, "127.0.0.1")):
            yield made


@pytest.fixture
def resource(tmp_path: Path) -> Iterator[Resource]:
    """A resource on loopback."""
    with serving(tmp_path) as made:
        yield made


def ask(resource: Resource, credential: Any, times: int = 1, **policy: Any) -> list[int]:
    """Ask the resource through azure-core's pipeline and return the statuses."""
    policies = [BearerTokenCredentialPolicy(credential, SCOPE, **policy)]
    client: PipelineClient[Any, Any] = PipelineClient(
        resource.address, policies=policies, connection_verify=str(resource.ca_file)
    )
    with client:
        request = HttpRequest("GET", resource.address)
        return [client.send_request(request).status_code for _ in range(times)]


async def ask_awaiting(resource: Resource, credential: Any, times: int = 1, **policy: Any) -> list[int]:
    """Do the same, awaiting."""
    policies = [AsyncBearerTokenCredentialPolicy(credential, SCOPE, **policy)]
    trusted = ssl.create_default_context(cafile=str(resource.ca_file))
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted))
    transport = AioHttpTransport(session=session, session_owner=True)
    client: AsyncPipelineClient[Any, Any] = AsyncPipelineClient(
        resource.address, policies=policies, transport=transport
    )
    async with client:
        request = HttpRequest("GET", resource.address)
        return [(await client.send_request(request)).status_code for _ in range(times)]


def test_pipeline_gets_a_token(resource: Resource, entra: EntraStandIn) -> None:
    """A client of the Azure SDK calls its service with the pod's identity."""
    credential = workload_identity.WorkloadIdentityCredential()

    assert ask(resource, credential, 2) == [200, 200]
    assert resource.tokens == [credential.get_token(SCOPE).token] * 2
    assert len(entra.requests) == 1


async def test_awaiting_pipeline_gets_a_token(resource: Resource, entra: EntraStandIn) -> None:
    """So does one that awaits."""
    async with workload_identity.aio.WorkloadIdentityCredential() as credential:
        assert await ask_awaiting(resource, credential, 2) == [200, 200]
        assert resource.tokens == [(await credential.get_token(SCOPE)).token] * 2
    assert len(entra.requests) == 1


def test_claims_challenge_is_answered(resource: Resource, entra: EntraStandIn) -> None:
    """The policy hands the resource's claims to the credential, which gets another token."""
    resource.challenges = 1
    credential = workload_identity.WorkloadIdentityCredential()

    assert ask(resource, credential, enable_cae=True) == [200]
    assert len(set(resource.tokens)) == 2
    assert resource.tokens[-1] == credential.get_token(SCOPE, enable_cae=True).token
    assert len(entra.requests) == 2


async def test_awaiting_claims_challenge_is_answered(resource: Resource, entra: EntraStandIn) -> None:
    """Likewise, awaiting."""
    resource.challenges = 1
    async with workload_identity.aio.WorkloadIdentityCredential() as credential:
        assert await ask_awaiting(resource, credential, enable_cae=True) == [200]
        assert resource.tokens[-1] == (await credential.get_token(SCOPE, enable_cae=True)).token
    assert len(set(resource.tokens)) == 2
    assert len(entra.requests) == 2


def test_failure_is_caught_as_azure_cores(resource: Resource, entra: EntraStandIn) -> None:
    """A program's `except` clauses for azure-core keep working."""
    entra.unregister(CLIENT_ID, tenant_id=TENANT_ID)

    with pytest.raises(azure.core.exceptions.ClientAuthenticationError, match="AADSTS70021"):
        ask(resource, workload_identity.WorkloadIdentityCredential())


def test_protocols_of_azure_core() -> None:
    """Our credentials are instances of azure-core's protocols."""
    blocking = workload_identity.WorkloadIdentityCredential()
    awaiting = workload_identity.aio.WorkloadIdentityCredential()

    assert isinstance(blocking, azure.core.credentials.TokenCredential)
    assert isinstance(blocking, azure.core.credentials.SupportsTokenInfo)
    assert isinstance(awaiting, azure.core.credentials_async.AsyncTokenCredential)
    assert isinstance(awaiting, azure.core.credentials_async.AsyncSupportsTokenInfo)


def test_protocols_of_ours() -> None:
    """Ours are met by both families and by azure-identity's credentials."""
    theirs = azure.identity.WorkloadIdentityCredential()
    ours = workload_identity.WorkloadIdentityCredential()

    for credential in (theirs, ours):
        assert isinstance(credential, workload_identity.TokenCredential)
        assert isinstance(credential, workload_identity.SupportsTokenInfo)
    awaiting = workload_identity.aio.WorkloadIdentityCredential()
    assert isinstance(awaiting, workload_identity.aio.AsyncTokenCredential)
    assert isinstance(awaiting, workload_identity.aio.AsyncSupportsTokenInfo)


def test_chain_of_azure_identity_goes_on(entra: EntraStandIn, pod: Any) -> None:
    """A credential of ours that is not available lets their chain ask the next one."""
    pod.token_file.unlink()

    class Next:
        def get_token(self, *_: str, **__: object) -> azure.core.credentials.AccessToken:
            """Give a token."""
            return azure.core.credentials.AccessToken("next", 7)

    chain = azure.identity.ChainedTokenCredential(workload_identity.WorkloadIdentityCredential(), Next())

    assert chain.get_token(SCOPE).token == "next"
    assert entra.requests == []


def test_names_and_keywords_are_azure_identitys() -> None:
    """Moving over is changing an import: every keyword of theirs is one of ours."""
    import inspect

    theirs = inspect.signature(azure.identity.WorkloadIdentityCredential.__init__).parameters
    ours = inspect.signature(workload_identity.WorkloadIdentityCredential.__init__).parameters
    named = {name for name, parameter in theirs.items() if parameter.kind is parameter.KEYWORD_ONLY}

    assert named
    assert named <= ours.keys()
