"""Making a credential: what it needs, and that it does nothing yet."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (("AZURE_TENANT_ID",), ("tenant_id",)),
        (("AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"), ("client_id", "token_file_path")),
    ],
)
def test_missing_variables_are_listed(
    family: Family,
    monkeypatch: pytest.MonkeyPatch,
    missing: tuple[str, ...],
    named: tuple[str, ...],
) -> None:
    """All that lack are named, absent or empty, with what pods may lack."""
    monkeypatch.setenv(missing[0], "")
    for name in missing[1:]:
        monkeypatch.delenv(name)

    with pytest.raises(ValueError, match="lacks") as raised:
        family.credential()

    for text in (*missing, *named, 'azure.workload.identity/use: "true"', "create the pod again"):
        assert text in str(raised.value)
    kept = {"AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"} - set(missing)
    assert not any(name in str(raised.value) for name in kept)


def test_keywords_win_over_the_environment(family: Family, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names something means it; what is empty does not count."""
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.setenv(name, "wrong")

    credential = family.credential(
        tenant_id=TENANT_ID, client_id=CLIENT_ID, token_file_path=Path(pod.token_file)
    )
    assert family.do(credential.get_token, SCOPE)
    assert "client_id='wrong'" in repr(family.credential(client_id=""))


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (None, ()),
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        ([None, "", "one"], ("one",)),
        ([None], ()),
    ],
)
def test_tenants_that_are_allowed_too(family: Family, given: Any, allowed: tuple[str, ...]) -> None:
    """Several, one as it is, or none: every credential takes all three."""
    module = family.module
    credentials = [
        module.WorkloadIdentityCredential(additionally_allowed_tenants=given),
        module.ManagedIdentityCredential(additionally_allowed_tenants=given)._workload,
        module.ClientSecretCredential(TENANT_ID, "x", "y", additionally_allowed_tenants=given),
        module.SharedTokenCacheCredential(additionally_allowed_tenants=given),
        module.AzureCliCredential(additionally_allowed_tenants=given),
        module.InteractiveBrowserCredential(additionally_allowed_tenants=given, timeout=None),
    ]

    assert [one._allowed_tenants for one in credentials] == [allowed] * len(credentials)


def test_empty_authority_is_the_public_cloud(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set but empty counts as unset."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "")

    assert "https://login.microsoftonline.com'" in repr(family.credential())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"authority": "http://login.example"}, "https"),
        ({"tenant_id": "../x"}, "tenant id"),
        ({"tenant_id": "a tenant"}, "az account show"),
        ({"tenant_id": 5}, "tenant_id: wanted a text, found int"),
        ({"client_id": b"x"}, "client_id: wanted a text, found bytes"),
        ({"token_file_path": 5}, "token_file_path: wanted a text, found int"),
        ({"additionally_allowed_tenants": [5]}, r"additionally_allowed_tenants: .* found \[5\]"),
        ({"additionally_allowed_tenants": 5}, "additionally_allowed_tenants: .* found 5"),
    ],
)
def test_malformed_values_are_refused(family: Family, given: dict[str, Any], words: str) -> None:
    """At construction, by name."""
    with pytest.raises(ValueError, match=words):
        family.credential(**given)


def test_malformed_authority_of_the_environment_is_refused(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment is held to the same rules as a keyword."""
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "http://login.example")

    with pytest.raises(ValueError, match=r"http://login\.example"):
        family.credential()


def test_nothing_is_read_or_sent(family: Family, pod: Pod, entra: EntraStandIn) -> None:
    """A file that comes later is early enough."""
    pod.token_file.unlink()
    family.credential()

    assert entra.requests == []


def test_repr_says_whose_it_is(family: Family, pod: Pod) -> None:
    """Nothing in it is secret."""
    text = repr(family.credential(headers={"Authorization": "planted"}))

    assert (CLIENT_ID in text, TENANT_ID in text, str(pod.token_file) in text) == (True, True, True)
    assert "planted" not in text


def test_pickle_has_no_token(family: Family) -> None:
    """A credential can be sent to another process; its tokens stay here."""
    for shared in (True, False):
        credential = family.credential(shared_cache=shared, timeout=60)
        token = family.do(credential.get_token, SCOPE)

        sent = pickle.dumps(credential)

        assert token.token.encode() not in sent
        assert b"eyJ" not in sent
        received = pickle.loads(sent)  # noqa: S301 - our own
        assert repr(received) == repr(credential)
        assert family.do(received.get_token, SCOPE)


def test_environment_is_read_at_construction(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes afterwards does not count."""
    credential = family.credential()
    monkeypatch.setenv("AZURE_CLIENT_ID", "another")

    assert family.do(credential.get_token, SCOPE)


def test_claims_that_are_no_text_are_refused(family: Family) -> None:
    """A challenge is passed on as it came."""
    wrong: tuple[Any, ...] = ({"access_token": {}}, b"{}")
    for claims in wrong:
        with pytest.raises(ValueError, match="JSON text was wanted"):
            family.do(family.credential().get_token, SCOPE, claims=claims)
