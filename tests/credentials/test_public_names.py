"""What the package exports: complete, sorted, and all of it there."""

import importlib.metadata
import subprocess
import sys

import pytest

import workload_identity
import workload_identity.aio


@pytest.mark.parametrize("module", [workload_identity, workload_identity.aio])
def test_names_are_sorted_and_there(module: object) -> None:
    """Every exported name exists."""
    names = module.__all__  # type: ignore[attr-defined]

    assert list(names) == sorted(names)
    assert all(getattr(module, name) is not None for name in names)


def test_names_of_the_package() -> None:
    """A name that is added or lost is a decision."""
    assert workload_identity.__all__ == [
        "AccessToken",
        "AccessTokenInfo",
        "AuthenticationRecord",
        "AuthenticationRequiredError",
        "AuthorizationCodeCredential",
        "AzureAuthorityHosts",
        "AzureCliCredential",
        "AzureDeveloperCliCredential",
        "AzurePipelinesCredential",
        "AzurePowerShellCredential",
        "CertificateCredential",
        "ChainedTokenCredential",
        "ClientAssertionCredential",
        "ClientAuthenticationError",
        "ClientCertificateCredential",
        "ClientSecretCredential",
        "CredentialUnavailableError",
        "DefaultAzureCredential",
        "DeviceCodeCredential",
        "EnvironmentCredential",
        "InteractiveBrowserBrokerCredential",
        "InteractiveBrowserCredential",
        "KnownAuthorities",
        "ManagedIdentityCredential",
        "OnBehalfOfCredential",
        "SharedTokenCacheCredential",
        "SupportsTokenInfo",
        "TokenCachePersistenceOptions",
        "TokenCredential",
        "TokenRequestOptions",
        "UsernamePasswordCredential",
        "VisualStudioCodeCredential",
        "WorkloadIdentityCredential",
        "get_bearer_token_provider",
    ]


@pytest.mark.parametrize("module", [workload_identity, workload_identity.aio])
def test_every_name_is_told(module: object) -> None:
    """What is exported is listed by `dir` before it is loaded."""
    assert set(module.__all__) <= set(dir(module))  # type: ignore[attr-defined]


def test_unknown_name() -> None:
    """It is told as any module does."""
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = workload_identity.nothing  # type: ignore[attr-defined]


def test_names_come_with_a_star() -> None:
    """`from workload_identity import *` gives all of them."""
    program = "from workload_identity import *; print(WorkloadIdentityCredential.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "WorkloadIdentityCredential\n"


def test_version_is_the_distributions() -> None:
    """The package knows its version without asking the file system."""
    assert workload_identity.__version__ == importlib.metadata.version("workload-identity")


@pytest.mark.parametrize("module", [workload_identity, workload_identity.aio])
def test_public_things_are_documented(module: object) -> None:
    """Every class, function and method has words."""
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
        assert thing.__doc__, name
        for method, value in vars(thing).items() if isinstance(thing, type) else ():
            if callable(value) and not method.startswith("_"):
                assert value.__doc__, f"{name}.{method}"
