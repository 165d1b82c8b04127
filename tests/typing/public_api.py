"""The public API as a user's program has it: never run, only type-checked."""

from collections.abc import Callable, Coroutine
from typing import Any

import azure.core.credentials
import azure.core.credentials_async
import azure.core.exceptions
import httpx
from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy, BearerTokenCredentialPolicy

import workload_identity
from workload_identity import (
    AccessToken,
    AccessTokenInfo,
    AuthenticationRecord,
    AuthenticationRequiredError,
    AzureAuthorityHosts,
    ClientAuthenticationError,
    CredentialUnavailableError,
    DeviceCodeCredential,
    InteractiveBrowserCredential,
    ManagedIdentityCredential,
    SupportsTokenInfo,
    TokenCachePersistenceOptions,
    TokenCredential,
    TokenRequestOptions,
    WorkloadIdentityCredential,
    aio,
    get_bearer_token_provider,
)

credential = WorkloadIdentityCredential()
explicit = WorkloadIdentityCredential(
    tenant_id="a-tenant",
    client_id="a-client",
    token_file_path="/a/file",
    authority=AzureAuthorityHosts.AZURE_PUBLIC_CLOUD,
    additionally_allowed_tenants=["*"],
    token_file_timeout=30,
    retry_on_propagation=180.0,
    shared_cache=False,
    enable_azure_proxy=None,
    timeout=60,
    connection_timeout=5,
    read_timeout=5,
    retry_total=3,
    connection_verify="/a/file",
    proxies={"https": "http://proxy"},
    use_env_settings=False,
    transport=httpx.HTTPTransport(),
    headers={"a": "b"},
    user_agent="an-app/1",
)
WorkloadIdentityCredential(tenant="a-tenant")  # type: ignore[call-arg]
WorkloadIdentityCredential(timeout="60")  # type: ignore[arg-type]
ManagedIdentityCredential(client_id="a-client", shared_cache=False, timeout=60)
aio.ManagedIdentityCredential(identity_config={"object_id": "an-object"})
ManagedIdentityCredential(object_id="an-object")  # type: ignore[call-arg]

token: AccessToken = credential.get_token("a-scope", claims=None, tenant_id="a-tenant", enable_cae=True)
text: str = token.token
ends: int = token.expires_on
first, second = token
info: AccessTokenInfo = credential.get_token_info("a-scope", options={"enable_cae": True})
refresh: int | None = info.refresh_on
kind: str = info.token_type
options: TokenRequestOptions = {"claims": "{}", "tenant_id": "a-tenant"}
credential.get_token_info("a-scope", options=options)

with credential as entered:
    same: WorkloadIdentityCredential = entered
    entered.close()

# Where azure-core wants a credential, ours will do; where ours are wanted, theirs will.
theirs: azure.core.credentials.TokenCredential = credential
theirs_with_info: azure.core.credentials.SupportsTokenInfo = credential
ours: TokenCredential = credential
ours_with_info: SupportsTokenInfo = credential
policy: object = BearerTokenCredentialPolicy(credential, "a-scope")
azure_token: azure.core.credentials.AccessToken = token
azure_info: azure.core.credentials.AccessTokenInfo = info

provider: Callable[[], str] = get_bearer_token_provider(credential, "a-scope")


def providing(other: azure.core.credentials.TokenCredential) -> Callable[[], str]:
    """Take a credential of azure-identity's, too."""
    return get_bearer_token_provider(other, "a-scope")


# A person signs in; what tells them may be awaited in the awaiting family.
stored = TokenCachePersistenceOptions(name="a-program", allow_unencrypted_storage=True)
device = DeviceCodeCredential(
    "a-client",
    prompt_callback=lambda page, code, until: print(page, code, until.isoformat()),
    timeout=60,
    cache_persistence_options=stored,
    disable_instance_discovery=True,
    connection_timeout=5,
)
record: AuthenticationRecord = device.authenticate(scopes=["a-scope"])
browser = InteractiveBrowserCredential(authentication_record=record, redirect_uri="http://localhost:8400")
whose: str = AuthenticationRecord.deserialize(record.serialize()).username
of_person: azure.core.credentials.TokenCredential = browser


async def signing_in() -> AuthenticationRecord:
    """Do the same, awaiting."""
    async with aio.DeviceCodeCredential(authentication_record=record) as awaited:
        return await awaited.authenticate(claims="{}")


async def awaiting() -> None:
    """Do the same, awaiting."""
    async with aio.WorkloadIdentityCredential(client_id="a-client") as awaited:
        same: aio.WorkloadIdentityCredential = awaited
        token: AccessToken = await same.get_token("a-scope")
        info: AccessTokenInfo = await same.get_token_info("a-scope", options=options)
        theirs: azure.core.credentials_async.AsyncTokenCredential = awaited
        theirs_with_info: azure.core.credentials_async.AsyncSupportsTokenInfo = awaited
        ours: aio.AsyncTokenCredential = awaited
        ours_with_info: aio.AsyncSupportsTokenInfo = awaited
        policy = AsyncBearerTokenCredentialPolicy(awaited, "a-scope")
        provider: Callable[[], Coroutine[Any, Any, str]] = aio.get_bearer_token_provider(awaited, "a-scope")
        text: str = await provider()
        print(token, info, theirs, theirs_with_info, ours, ours_with_info, policy, text)
        await same.close()


def catching() -> str:
    """Look at an error's fields."""
    try:
        credential.get_token("a-scope")
    except AuthenticationRequiredError as failure:
        scopes: tuple[str, ...] = failure.scopes
        return " ".join(scopes)
    except CredentialUnavailableError as failure:
        return failure.message
    except ClientAuthenticationError as failure:
        codes: list[int] = failure.error_codes
        status: int | None = failure.status_code
        words = [failure.error, failure.error_description, failure.suberror, failure.claims]
        ids = [failure.correlation_id, failure.trace_id]
        again: bool = failure.retryable
        return f"{codes} {status} {words} {ids} {again}"
    except azure.core.exceptions.ClientAuthenticationError as failure:
        return str(failure)
    return workload_identity.__version__
