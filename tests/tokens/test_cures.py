"""What an error says to change, by Entra's code."""

import pytest

from workload_identity.cures import Case, cure

CLAIMS = {
    "iss": "https://oidc.example/cluster/",
    "sub": "system:serviceaccount:shop:cart",
    "aud": ["api://AzureADTokenExchange"],
    "nbf": 1_000_000,
    "exp": 1_003_600,
}
REGISTER = (
    "--issuer https://oidc.example/cluster/ --subject system:serviceaccount:shop:cart"
    " --audiences api://AzureADTokenExchange"
)


def told(
    code: int, description: str = "", epoch: float = 1_000_100, proof: str = "pod", **changes: object
) -> str:
    """Return what is said about a code."""
    case = Case(
        client_id="the-client",
        tenant_id="the-tenant",
        authority="https://login.microsoftonline.com",
        scopes=("https://vault.azure.net",),
        claims={**CLAIMS, **changes},
        description=description,
        epoch=epoch,
        proof=proof,
    )
    return cure([code], case)


@pytest.mark.parametrize("code", [70021, 700211, 700212, 700213, 7002131])
def test_federation_errors_show_what_the_token_has(code: int) -> None:
    """Issuer, subject and audience of the pod's token are named, and the command to register them."""
    words = told(code)

    for value in (
        "https://oidc.example/cluster/",
        "system:serviceaccount:shop:cart",
        "api://AzureADTokenExchange",
    ):
        assert repr(value) in words
    assert REGISTER in words


@pytest.mark.parametrize(
    ("code", "member", "value"),
    [
        (700211, "issuer", "https://oidc.example/cluster/"),
        (700212, "audience", "api://AzureADTokenExchange"),
        (700213, "subject", "system:serviceaccount:shop:cart"),
    ],
)
def test_the_member_that_differs_is_named_first(code: int, member: str, value: str) -> None:
    """The first words say which of the three differs, what the token has and who lacks it."""
    words = told(code)

    assert words.startswith(f"The {member} differs: the pod's token has {value!r}")
    assert "client the-client" in words
    assert "azure.workload.identity/client-id of ServiceAccount shop/cart" in words


def test_registered_value_is_shown_where_entra_tells_it() -> None:
    """Both values stand side by side then."""
    words = told(700213, "... subject 'a'. The registered subject is 'system:serviceaccount:shop:Cart'.")

    assert "registered is 'system:serviceaccount:shop:Cart'" in words


def test_usual_audience_of_the_cloud_is_named() -> None:
    """Whoever took another cloud's audience sees the right one."""
    assert "In this cloud it is 'api://AzureADTokenExchange'" in told(700212, aud="api://Other")


def test_token_of_an_identity_binding_is_recognised() -> None:
    """Its audience is no mistake in a registration: it should have gone to the proxy."""
    words = told(700212, aud=["api://AKSIdentityBinding"])

    assert "AZURE_KUBERNETES_TOKEN_PROXY" in words
    assert "federated-credential create" not in words


def test_values_are_quoted_for_the_shell() -> None:
    """What is pasted does what it seems to do, whatever the token holds."""
    assert "--subject 'x; rm -rf /'" in told(70021, sub="x; rm -rf /")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (700016, "Tenant the-tenant does not know client the-client"),
        (90002, "does not know tenant 'the-tenant'"),
        (900023, "azure.workload.identity/tenant-id of ServiceAccount shop/cart"),
        (700027, "keys of its issuer 'https://oidc.example/cluster/'"),
        (50012, "publish the cluster's current signing keys"),
        (90061, "https://oidc.example/cluster/.well-known/openid-configuration"),
        (50166, "must be readable from the Internet"),
        (501661, "az aks update"),
        (900612, "cannot be parsed"),
        (7000215, "AZURE_FEDERATED_TOKEN_FILE"),
        (700222, "service account token"),
        (500011, "does not know the resource of 'https://vault.azure.net'"),
        (70011, "'/.default' is wanted"),
        (1002012, "'/.default' is wanted"),
        (53003, "Conditional Access"),
        (50005, "Conditional Access"),
        (50020, "not of tenant the-tenant"),
    ],
)
def test_other_codes(code: int, words: str) -> None:
    """Each known code says what to change with the values at hand."""
    assert words in told(code)


@pytest.mark.parametrize(
    ("epoch", "words"),
    [(1_009_999, "The kubelet did not renew the file"), (999_000, "clocks"), (1_000_100, "clocks")],
)
def test_time_of_the_token_and_ours(epoch: float, words: str) -> None:
    """For a token out of its time the message has its times, ours, and what may be wrong."""
    told_words = told(700024, epoch=epoch)

    assert "1970-01-12 13:46:40 UTC to 1970-01-12 14:46:40 UTC" in told_words
    assert words in told_words


@pytest.mark.parametrize("time", [None, "soon", 1e30, True, [], float("nan")])
def test_strange_times_are_survived(time: object) -> None:
    """A token may hold anything."""
    assert "UTC" in told(700024, exp=time, nbf=time)


def test_token_without_claims_is_survived() -> None:
    """Nothing known about the token is no reason to fail."""
    case = Case("c", "t", "https://a", ("s",), {}, "", 0)

    assert "the pod's ServiceAccount" in cure([700213], case)
    assert cure([90061], case)


def test_unknown_code_says_nothing() -> None:
    """No cure is better than a wrong one."""
    assert told(12345) == ""
    assert cure([], Case("c", "t", "https://a", ("s",), {}, "", 0)) == ""


@pytest.mark.parametrize("proof", ["assertion", "secret", "certificate", ""])
@pytest.mark.parametrize(
    "code", [70021, 700211, 700212, 700213, 700016, 90002, 900023, 50020, 700024, 700027]
)
def test_who_is_no_pod_hears_nothing_of_pods(proof: str, code: int) -> None:
    """No annotation, no kubelet, no ServiceAccount."""
    words = told(code, proof=proof).lower()

    for foreign in ("pod", "annotation", "kubelet", "retry_on_propagation", "operator"):
        assert foreign not in words


@pytest.mark.parametrize(
    ("proof", "code", "words"),
    [
        ("assertion", 700213, "The subject differs: the assertion has 'system:serviceaccount:shop:cart'"),
        ("assertion", 700027, "keys that its issuer 'https://oidc.example/cluster/' publishes"),
        ("assertion", 700024, "1970-01-12 13:46:40 UTC to 1970-01-12 14:46:40 UTC"),
        ("secret", 7000215, "a secret's value is wanted, not its id"),
        ("secret", 7000222, "has run out"),
        ("secret", 50013, "good until an unknown time"),
        ("certificate", 700027, "with thumbprint"),
        ("certificate", 700024, "correct that"),
        ("", 7000218, "give its client_secret"),
        ("", 54005, "works once"),
        ("", 500112, "letter by letter"),
        ("secret", 50076, "as a claims challenge"),
        ("secret", 65001, "administrator consent to 'https://vault.azure.net'"),
        ("secret", 700082, "sign in again"),
    ],
)
def test_each_proof_has_its_own_words(proof: str, code: int, words: str) -> None:
    """The same code means something else for another proof."""
    assert words in told(code, proof=proof)
