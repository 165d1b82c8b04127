"""What a credential raises, alone and beside azure-core."""

import copy
import pickle
import subprocess
import sys
import textwrap
import traceback

import azure.core.exceptions
import azure.identity
import pytest

from workload_identity import (
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
)
from workload_identity.errors import FailedResponse, another

KINDS = [ClientAuthenticationError, CredentialUnavailableError]


@pytest.mark.parametrize("kind", KINDS)
def test_error_is_azure_cores_too(kind: type[ClientAuthenticationError]) -> None:
    """Where azure-core is imported, its `except` clauses catch our errors, and ours still do."""
    for caught in (azure.core.exceptions.ClientAuthenticationError, azure.core.exceptions.AzureError, kind):
        with pytest.raises(caught, match="no token"):
            raise kind("no token")


def test_unavailable_is_azure_identitys_too() -> None:
    """A chain of azure-identity goes on when a member of ours is not available."""
    with pytest.raises(azure.identity.CredentialUnavailableError):
        raise CredentialUnavailableError("not here")
    assert not isinstance(ClientAuthenticationError("no"), azure.identity.CredentialUnavailableError)


def test_ancestry_of_ours() -> None:
    """An error is of its class and that class's ancestors, and of no other."""
    required = AuthenticationRequiredError(["a", "b"], claims="{}")

    assert isinstance(required, CredentialUnavailableError)
    assert isinstance(CredentialUnavailableError("x"), ClientAuthenticationError)
    assert not isinstance(ClientAuthenticationError("x"), CredentialUnavailableError)
    assert (required.scopes, required.claims) == (("a", "b"), "{}")
    assert "authenticate" in str(required)


def test_class_has_its_own_name() -> None:
    """A traceback and a repr show our class, not the joint one."""
    failure = CredentialUnavailableError("why")

    assert repr(failure) == "CredentialUnavailableError('why')"
    assert (
        "workload_identity.errors.CredentialUnavailableError: why"
        in traceback.format_exception_only(failure)[0]
    )


def test_azure_cores_attributes_are_there() -> None:
    """Code that looks at azure-core's attributes finds them."""
    failure = ClientAuthenticationError("why", FailedResponse(401, "Unauthorized", {}, "{}"))

    assert issubclass(type(failure), azure.core.exceptions.HttpResponseError)
    assert (failure.message, failure.status_code, failure.reason) == ("why", 401, "Unauthorized")
    for name in ("inner_exception", "continuation_token", "model"):
        assert getattr(failure, name) is None
    assert str(failure) == "why"


def test_fields() -> None:
    """Entra's words are fields, empty ones by default."""
    failure = ClientAuthenticationError(
        "why", error="e", error_codes=[7], suberror="s", claims="c", retry_after=3
    )

    assert (failure.error, failure.error_codes, failure.suberror, failure.claims) == ("e", [7], "s", "c")
    assert (failure.retryable, failure.retry_after, failure.correlation_id) == (False, 3, None)


@pytest.mark.parametrize("message", [None, ""])
def test_message_is_never_empty(message: str | None) -> None:
    """Whoever reads it learns at least that."""
    assert str(ClientAuthenticationError(message)) == "No token was given, and no reason either."


def test_message_is_redacted() -> None:
    """Whatever a message is made of."""
    failure = ClientAuthenticationError(
        'got {"access_token": "planted"}', error_description="eyJhbGciOiJSUzI1NiJ9.x"
    )

    assert "planted" not in str(failure)
    assert "planted" not in repr(failure)
    assert failure.error_description == "***"


def pickled(failure: object) -> object:
    """Return what another process would get."""
    return pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own


@pytest.mark.parametrize("twin", [copy.copy, pickled, another])
def test_errors_can_be_copied(twin: object) -> None:
    """A copy has the class, the text and the fields."""
    response = FailedResponse(401, "Unauthorized", {"a": "b"}, "text")
    failure = CredentialUnavailableError("why", response, error="e", error_codes=[7], retryable=True)

    copied = twin(failure)  # type: ignore[operator]

    assert type(copied) is type(failure)
    assert copied is not failure
    assert (str(copied), copied.args, copied.error, copied.error_codes) == ("why", ("why",), "e", [7])
    assert copied.response.text() == "text"
    assert copied.retryable


def test_copy_for_another_caller_has_no_traceback() -> None:
    """Tracebacks of many waiters do not pile up on one error; its cause is kept."""
    cause = OSError("cause")
    try:
        raise ClientAuthenticationError("why") from cause
    except ClientAuthenticationError as failure:
        copied = another(failure)

    assert copied.__traceback__ is None
    assert copied.__cause__ is cause


def test_foreign_error_that_cannot_be_copied_stays() -> None:
    """An error of a credential of somebody else's may need more to be made."""

    class ForeignError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    failure = ForeignError(1, 2)

    assert another(failure) is failure


def test_foreign_error_is_copied_where_it_can_be() -> None:
    """Other errors are copied likewise."""
    failure = KeyError("x")
    copied = another(failure)

    assert copied is not failure
    assert copied.args == ("x",)


def test_response_of_an_error() -> None:
    """What was answered can be looked at, as text, bytes and JSON; cookies cannot."""
    response = FailedResponse(
        400, "Bad Request", {"content-type": "application/json", "set-cookie": "planted"}, '{"a": 1}'
    )

    assert (response.text(), response.body(), response.json()) == ('{"a": 1}', b'{"a": 1}', {"a": 1})
    assert response.content_type == "application/json"
    assert "set-cookie" not in response.headers
    assert repr(response) == "<FailedResponse 400 Bad Request, application/json>"


def test_class_of_a_users_own() -> None:
    """A subclass made elsewhere works, also one that is azure-core's already."""

    class OwnError(ClientAuthenticationError):
        pass

    class BothError(ClientAuthenticationError, azure.core.exceptions.ClientAuthenticationError):  # type: ignore[misc]
        pass

    assert isinstance(OwnError("x"), azure.core.exceptions.ClientAuthenticationError)
    assert type(BothError("x")) is BothError


def test_nobody_pays_for_azure_core() -> None:
    """Without azure-core imported errors are ours alone; those made after its import are its own too."""
    program = """
        import pickle, sys
        from workload_identity import ClientAuthenticationError, CredentialUnavailableError

        before = CredentialUnavailableError("before")
        assert type(before) is CredentialUnavailableError
        assert not any(name.startswith("azure") for name in sys.modules)

        import azure.core.exceptions
        after = CredentialUnavailableError("after")
        assert isinstance(after, azure.core.exceptions.ClientAuthenticationError)
        assert isinstance(after, CredentialUnavailableError)
        assert not isinstance(before, azure.core.exceptions.ClientAuthenticationError)
        assert isinstance(pickle.loads(pickle.dumps(before)), azure.core.exceptions.ClientAuthenticationError)
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False
    )

    assert (done.stdout, done.stderr) == ("done\n", "")
