"""A program for azure-identity: asks for tokens from an event loop, for several scopes at once."""

import asyncio

from azure.core.credentials import AccessToken
from azure.core.credentials_async import AsyncTokenCredential
from azure.identity.aio import ChainedTokenCredential, DefaultAzureCredential, WorkloadIdentityCredential

SCOPES = ("https://vault.azure.net/.default", "https://storage.azure.com/.default")


async def tokens(credential: AsyncTokenCredential) -> list[AccessToken]:
    """Return a token for each scope."""
    return [
        AccessToken(*token)
        for token in await asyncio.gather(*(credential.get_token(scope) for scope in SCOPES))
    ]


async def main() -> None:
    """Ask a credential, a chain and the default one."""
    async with WorkloadIdentityCredential() as alone:
        for token in await tokens(alone):
            print(token.token.count("."), token.expires_on > 0)
    async with ChainedTokenCredential(WorkloadIdentityCredential()) as chain:
        print(len(await tokens(chain)))
    async with DefaultAzureCredential(exclude_managed_identity_credential=True) as default:
        info = await default.get_token_info(SCOPES[0], options={"enable_cae": True})
        print(info.token_type)


if __name__ == "__main__":
    asyncio.run(main())
