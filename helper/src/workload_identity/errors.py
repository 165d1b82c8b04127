"""Everything a credential raises; names and ancestry are azure-identity's.

    ClientAuthenticationError              no token; a chain of credentials stops here
    └── CredentialUnavailableError         not possible here, nothing was asked; a chain goes on
        └── AuthenticationRequiredError    a person must sign in

Where azure-core is in use, an error of ours is one of its errors too: the class of a new error then also
derives from `azure.core.exceptions.ClientAuthenticationError` (or from azure-identity's
CredentialUnavailableError), so that `except` clauses written for those keep working. Nothing is imported for
it: only what the program has imported already is looked at, when an error is made.

Beside these a credential raises ValueError, for arguments that can never work.
"""

from __future__ import annotations

import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NamedTuple, Self

    class _Pair(NamedTuple):
        name: str
        error: Exception
else:
    _Pair = namedtuple("_Pair", ("name", "error"))  # noqa: PYI024 - importing typing costs more


class FailedResponse:
    """The answer that became an error; its text is redacted.

    Attributes:
        status_code: The HTTP status.
        reason: The phrase beside it.
        headers: Names in lower case; without cookies.
    """

    __slots__ = ("_text", "headers", "reason", "status_code")

    def __init__(self, status_code: int, reason: str, headers: Mapping[str, str], text: str) -> None:
        self.status_code = status_code
        self.reason = reason
        self.headers = {name: value for name, value in headers.items() if name != "set-cookie"}
        self._text = text

    @property
    def content_type(self) -> str | None:
        """The media type as sent; None when there was none."""
        return self.headers.get("content-type")

    def text(self, encoding: str | None = None) -> str:  # noqa: ARG002 - azure-core's signature
        """Return the redacted body."""
        return self._text

    def body(self) -> bytes:
        """Return the redacted body in UTF-8."""
        return self._text.encode()

    def json(self) -> Any:
        """Return the redacted body, parsed.

        Raises:
            ValueError: It is no JSON.
        """
        import json  # noqa: PLC0415 - for who asks

        return json.loads(self._text)

    def __repr__(self) -> str:
        return f"<FailedResponse {self.status_code} {self.reason}, {self.content_type or 'no content type'}>"


class Attempt(_Pair):
    """What a member of a chain said: a pair of its name and its error.

    Attributes:
        name: The member's class.
        error: What it raised.
        seconds: How long it took.
        went_on: Whether the chain then asked its next member.
    """

    seconds: float
    went_on: bool

    def __new__(cls, name: str, error: Exception, seconds: float = 0, *, went_on: bool = True) -> Self:
        """Make an attempt."""
        made = super().__new__(cls, name, error)
        made.seconds = seconds
        made.went_on = went_on
        return made


class ClientAuthenticationError(Exception):
    """No token was given.

    Attributes:
        message: What was wanted, what was found, what to change; never holds a secret.
        response: The token service's last answer, a `FailedResponse`; None when none came.
        status_code: Its HTTP status.
        reason: The phrase beside the status.
        error: OAuth's error, such as "invalid_client".
        error_codes: Entra's numbers, such as [700213].
        error_description: Entra's own text.
        suberror: Entra's further classification.
        correlation_id: What Microsoft's support asks for.
        trace_id: Likewise.
        claims: A claims challenge of the token service.
        retryable: Whether the same call may succeed later without a change by anyone.
        retry_after: Seconds that the token service asked to wait, if it did.
        attempts: What each member of a chain said, in its order: `Attempt`s, which are pairs of a name and an
            error; empty where no chain was asked.
    """

    def __new__(cls, *_args: object, **_kwargs: object) -> Self:
        """Make an error that is azure-core's too, where that is in use."""
        kin: type[Self] = _kin(cls)
        return Exception.__new__(kin)

    def __init__(
        self,
        message: str | None = None,
        response: Any = None,
        *,
        error: str | None = None,
        error_codes: Iterable[int] = (),
        error_description: str | None = None,
        suberror: str | None = None,
        correlation_id: str | None = None,
        trace_id: str | None = None,
        claims: str | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        attempts: Iterable[Attempt] = (),
        **_others: object,
    ) -> None:
        from workload_identity.redaction import redacted  # noqa: PLC0415 - only a failure needs it

        self.message = redacted(str(message)) if message else "No token was given, and no reason either."
        self.response = response
        self.status_code: int | None = getattr(response, "status_code", None)
        self.reason: str | None = getattr(response, "reason", None)
        self.error = error
        self.error_codes = list(error_codes)
        self.error_description = redacted(error_description) if error_description else None
        self.suberror = suberror
        self.correlation_id = correlation_id
        self.trace_id = trace_id
        self._claims = claims
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = list(attempts)
        super(Exception, self).__init__(self.message)

    @property
    def claims(self) -> str | None:
        """A claims challenge, JSON text; None when there was none."""
        return self._claims

    @property
    def all_unavailable(self) -> bool:
        """Whether a chain was asked and came to its end: no member could even try, or none that counts."""
        return bool(self.attempts) and all(attempt.went_on for attempt in self.attempts)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _revived, (_own(type(self)), dict(self.__dict__))


class CredentialUnavailableError(ClientAuthenticationError):
    """This credential cannot even try here: what it needs is missing. A chain goes on to the next."""


class AuthenticationRequiredError(CredentialUnavailableError):
    """A person must sign in.

    Attributes:
        scopes: What was asked for.
    """

    def __init__(
        self, scopes: Iterable[str], message: str | None = None, claims: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(
            message or "A person must sign in to get this token: call `authenticate`.",
            claims=claims,
            **kwargs,
        )
        self._scopes = tuple(scopes)

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes asked for."""
        return self._scopes


def another(failure: BaseException) -> BaseException:
    """Return an equal error for another caller, so that tracebacks do not pile up on one object.

    An error of a foreign class comes back as it is when it cannot be copied.
    """
    import copy  # noqa: PLC0415 - only a failure needs it

    try:
        twin = copy.copy(failure)
    except Exception:  # noqa: BLE001 - a foreign class may do anything here
        return failure
    if type(twin) is not type(failure):
        return failure
    twin.__cause__ = failure.__cause__
    twin.__suppress_context__ = failure.__suppress_context__
    return twin.with_traceback(None)


_MARK = "_own"
_kins: dict[tuple[type, type], Any] = {}


def _kin(cls: type) -> Any:
    """Return the class, joined with the foreign one that the program knows and would catch it by."""
    foreign = _foreign(cls)
    if foreign is None or issubclass(cls, foreign):
        return cls
    kin = _kins.get((cls, foreign))
    if kin is None:
        # What azure-core's constructors would have set; they are not called, as they rewrite messages.
        azure = dict.fromkeys(
            ("continuation_token", "exc_traceback", "exc_type", "exc_value", "inner_exception", "model")
        )
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        kin = _kins[cls, foreign] = type(
            cls.__name__, (cls, foreign), {**azure, **names, "exc_msg": "", _MARK: cls}
        )
    return kin


def _foreign(cls: type) -> type | None:
    names = [("azure.core.exceptions", "ClientAuthenticationError")]
    if issubclass(cls, CredentialUnavailableError):
        names.insert(0, ("azure.identity", "CredentialUnavailableError"))
    for module, name in names:
        foreign = getattr(sys.modules.get(module), name, None)
        if isinstance(foreign, type):
            return foreign
    return None


def _own(cls: type) -> type:
    return getattr(cls, _MARK, cls)


def _revived(cls: type[ClientAuthenticationError], state: Mapping[str, object]) -> ClientAuthenticationError:
    failure = cls.__new__(cls)
    failure.__dict__.update(state)
    failure.args = (failure.message,)
    return failure


def is_unavailable(failure: BaseException) -> bool:
    """Tell whether who failed says that it could not even try: with our error, or with azure-identity's."""
    return any(
        kind is CredentialUnavailableError
        or (
            kind.__name__ == "CredentialUnavailableError"
            and f"{kind.__module__}.".startswith("azure.identity.")
        )
        for kind in type(failure).__mro__
    )
