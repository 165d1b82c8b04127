"""A program for azure-identity: makes one of each credential as the documentation does, asks none."""

from datetime import datetime
from warnings import catch_warnings, simplefilter

from azure.core.credentials import TokenCredential
from azure.identity import (
    AuthenticationRecord,
    AuthorizationCodeCredential,
    AzureCliCredential,
    AzureDeveloperCliCredential,
    AzurePipelinesCredential,
    AzurePowerShellCredential,
    ChainedTokenCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    DeviceCodeCredential,
    EnvironmentCredential,
    InteractiveBrowserCredential,
    ManagedIdentityCredential,
    OnBehalfOfCredential,
    SharedTokenCacheCredential,
    TokenCachePersistenceOptions,
    UsernamePasswordCredential,
    VisualStudioCodeCredential,
)

TENANT, CLIENT = "a-tenant", "a-client"


def prompt(address: str, code: str, until: datetime) -> None:
    """Tell a person where to sign in."""
    print(address, code, until)


def assertion() -> str:
    """Return a signed assertion."""
    return "header.payload.signature"


def main() -> None:
    """Make them."""
    record = AuthenticationRecord(TENANT, CLIENT, "login.microsoftonline.com", "a.b", "a@b")
    cache = TokenCachePersistenceOptions(allow_unencrypted_storage=True, name="my-app")
    made: list[TokenCredential] = [
        AuthorizationCodeCredential(TENANT, CLIENT, "code", "https://localhost", client_secret="s"),
        AzureCliCredential(tenant_id=TENANT, process_timeout=5),
        AzureDeveloperCliCredential(additionally_allowed_tenants=["*"]),
        AzurePipelinesCredential(
            tenant_id=TENANT, client_id=CLIENT, service_connection_id="c", system_access_token="t"
        ),
        AzurePowerShellCredential(),
        ClientAssertionCredential(TENANT, CLIENT, assertion),
        ClientSecretCredential(TENANT, CLIENT, "secret", cache_persistence_options=cache),
        DeviceCodeCredential(CLIENT, prompt_callback=prompt, authentication_record=record),
        EnvironmentCredential(),
        InteractiveBrowserCredential(redirect_uri="http://localhost:8400", timeout=10),
        ManagedIdentityCredential(identity_config={"object_id": "x"}),
        OnBehalfOfCredential(TENANT, CLIENT, client_secret="s", user_assertion="a"),
        SharedTokenCacheCredential("a@b"),
        VisualStudioCodeCredential(),
    ]
    print(len(made), record.serialize() == AuthenticationRecord.deserialize(record.serialize()).serialize())
    print(ChainedTokenCredential(*made).credentials == tuple(made))
    with catch_warnings(record=True) as warned:
        simplefilter("always")
        UsernamePasswordCredential(CLIENT, "a@b", "not-a-secret")
    print([warning.category.__name__ for warning in warned])


if __name__ == "__main__":
    main()
