"""Authentication records: a text that azure-identity reads and writes too."""

import copy
import json
import pickle

import azure.identity
import pytest

from workload_identity import AuthenticationRecord
from workload_identity.authentication_record import record_of

VALUES = ("a-tenant", "a-client", "login.microsoftonline.com", "uid.utid", "ada@contoso.test")
RECORD = AuthenticationRecord(*VALUES)
NAMES = ("tenant_id", "client_id", "authority", "home_account_id", "username")


def values(record: object) -> tuple[str, ...]:
    """Return what a record of ours or of theirs says."""
    return tuple(getattr(record, name) for name in NAMES)


def test_azure_identity_reads_ours() -> None:
    """Every member."""
    assert values(azure.identity.AuthenticationRecord.deserialize(RECORD.serialize())) == VALUES


def test_we_read_azure_identitys() -> None:
    """Likewise; the text is the same but for the order of its members."""
    theirs = azure.identity.AuthenticationRecord(*VALUES).serialize()

    assert AuthenticationRecord.deserialize(theirs) == RECORD
    assert json.loads(theirs) == json.loads(RECORD.serialize())


def test_unknown_members_are_ignored() -> None:
    """A later version of a version may have more."""
    text = json.dumps({**json.loads(RECORD.serialize()), "more": 1})

    assert AuthenticationRecord.deserialize(text) == RECORD


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "2.0"}, "known are: 1.0"),
        ({"version": None}, "known are: 1.0"),
        ({"username": None}, "username"),
        ({"tenantId": 1, "homeAccountId": []}, "homeAccountId, tenantId"),
    ],
)
def test_what_is_no_record(change: dict[str, object], words: str) -> None:
    """The error names the members."""
    text = json.dumps({**json.loads(RECORD.serialize()), **change})

    with pytest.raises(ValueError, match=words):
        AuthenticationRecord.deserialize(text)
    for other in ("", "[]", "null", "{}"):
        with pytest.raises(ValueError, match=r"version|Expecting value"):
            AuthenticationRecord.deserialize(other)


def test_record_is_a_value() -> None:
    """Equal, hashable, copied, pickled and shown; nothing can be set."""
    assert {RECORD: 1}[copy.copy(RECORD)] == 1
    assert pickle.loads(pickle.dumps(RECORD)) == RECORD  # noqa: S301 - our own
    assert AuthenticationRecord(*VALUES[:-1], "grace") != RECORD
    assert "ada@contoso.test" in repr(RECORD)
    with pytest.raises(AttributeError):
        RECORD.username = "grace"  # type: ignore[misc]


def test_record_of_an_id_token() -> None:
    """Entra's, and that of ADFS, which has no tenant, no client_info and another name for the user."""
    entra = {
        "iss": "https://login.microsoftonline.com/a-tenant/v2.0",
        "aud": "a-client",
        "tid": "a-tenant",
        "preferred_username": "ada@contoso.test",
        "sub": "s",
    }
    adfs = {"iss": "https://fs.contoso.test/adfs", "aud": "a-client", "upn": "ada", "sub": "s"}

    assert record_of(entra, "uid.utid") == RECORD
    assert values(record_of(adfs, None)) == ("adfs", "a-client", "fs.contoso.test", "s", "ada")
    with pytest.raises(ValueError, match="authority, username"):
        record_of({"tid": "t", "aud": "c"}, "uid.utid")
