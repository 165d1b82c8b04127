"""What a credential hands out: azure-core's shapes, without secrets in their repr."""

import copy
import pickle

import azure.core.credentials
import pytest

from workload_identity import AccessToken, AccessTokenInfo, TokenRequestOptions

SECRET = "planted-secret"


def test_access_token_is_a_tuple() -> None:
    """It unpacks, compares and indexes as azure-core's does."""
    token = AccessToken(SECRET, 7)
    text, expires_on = token

    assert (text, expires_on) == (SECRET, 7)
    assert token == azure.core.credentials.AccessToken(SECRET, 7)
    assert token._fields == azure.core.credentials.AccessToken._fields
    assert (token.token, token.expires_on) == (SECRET, 7)


def test_info_has_azure_cores_attributes() -> None:
    """Constructor and attributes are azure-core's."""
    info = AccessTokenInfo(SECRET, 7, token_type="pop", refresh_on=5)
    theirs = azure.core.credentials.AccessTokenInfo(SECRET, 7, token_type="pop", refresh_on=5)

    assert {name: getattr(info, name) for name in vars(theirs)} == vars(theirs)
    assert (AccessTokenInfo(SECRET, 7).token_type, AccessTokenInfo(SECRET, 7).refresh_on) == ("Bearer", None)


@pytest.mark.parametrize("token", [AccessToken(SECRET, 7), AccessTokenInfo(SECRET, 7)])
def test_repr_has_a_mask(token: object) -> None:
    """The end of a token is no secret, the token is."""
    assert SECRET not in repr(token)
    assert SECRET not in f"{token}"
    assert "expires_on=7" in repr(token)


def test_info_cannot_be_changed() -> None:
    """It is shared by all who asked."""
    info = AccessTokenInfo(SECRET, 7)

    with pytest.raises(AttributeError, match="shared"):
        info.token = "other"
    with pytest.raises(AttributeError, match="shared"):
        del info.token


def pickled(token: object) -> object:
    """Return what another process would get."""
    return pickle.loads(pickle.dumps(token))  # noqa: S301 - our own


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, pickled])
def test_tokens_can_be_copied(twin: object) -> None:
    """A copy is equal in all attributes."""
    info = twin(AccessTokenInfo(SECRET, 7, refresh_on=5))  # type: ignore[operator]

    assert (info.token, info.expires_on, info.token_type, info.refresh_on) == (SECRET, 7, "Bearer", 5)
    assert twin(AccessToken(SECRET, 7)) == (SECRET, 7)  # type: ignore[operator]


def test_options_are_azure_cores() -> None:
    """The keys that `get_token_info` knows are those that azure-core's policies send."""
    theirs = azure.core.credentials.TokenRequestOptions.__annotations__

    assert TokenRequestOptions.__annotations__.keys() == theirs.keys()
