"""A program for azure-identity: hands a token provider to another library's client, as OpenAI's wants."""

from collections.abc import Callable

from azure.identity import AzureAuthorityHosts, DefaultAzureCredential, get_bearer_token_provider


class Client:
    """A client that asks for a token whenever it needs one."""

    def __init__(self, azure_ad_token_provider: Callable[[], str]) -> None:
        self._provider = azure_ad_token_provider

    def headers(self) -> dict[str, str]:
        """Return a request's headers."""
        return {"Authorization": f"Bearer {self._provider()}"}


def main() -> None:
    """Ask twice."""
    credential = DefaultAzureCredential(
        exclude_managed_identity_credential=True,
        exclude_interactive_browser_credential=True,
        process_timeout=5,
    )
    client = Client(get_bearer_token_provider(credential, "https://cognitiveservices.azure.com/.default"))
    first, second = client.headers(), client.headers()
    print(first == second, first["Authorization"].count("."), AzureAuthorityHosts.AZURE_PUBLIC_CLOUD)
    credential.close()


if __name__ == "__main__":
    main()
