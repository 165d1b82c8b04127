"""What a flow may ask of the outside world, and what it is answered. No I/O, no clock, no HTTP library.

A flow is a generator: it yields a step, is sent the answer, and returns its result. The same flow serves the
blocking and the awaiting family, and a test drives it by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from workload_identity.clock import Instant

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; answered with a `Response`, or `Unreachable` is thrown.

    Attributes:
        url: An https URL, or an http one of this machine's own.
        form: What to send; holds secrets. None: nothing.
        headers: Beside those that every request of the credential gets; may hold secrets.
        deadline: When there is no use in an answer any more, by the monotonic clock.
        method: HTTP's.
        direct: Never through a proxy that only the environment names: the address is of this machine.
        connection_timeout: Seconds a connection may take, if that is less than the options say.
    """

    url: str
    form: Mapping[str, str] | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    deadline: float
    method: str = "POST"
    direct: bool = False
    connection_timeout: float = inf


@dataclass(frozen=True, slots=True)
class Read:
    """Read a file; answered with a `Content`, or an OSError is thrown."""

    path: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for some time between the two, in seconds, chosen by chance; answered with None."""

    shortest: float
    longest: float


@dataclass(frozen=True, slots=True)
class Now:
    """Look at the clocks; answered with an `Instant`."""


@dataclass(frozen=True, slots=True)
class NewId:
    """Think of a new UUID; answered with its text."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask another credential; answered with what it gives, or whatever it raises is thrown.

    Attributes:
        credential: One of the same family.
        scopes: What the token is for.
        options: `claims`, `tenant_id`, `enable_cae`, as `TokenRequestOptions` has them.
    """

    credential: object = field(repr=False)
    scopes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function of the user's; answered with its result, awaited where that can be.

    Whatever it raises is thrown.
    """

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Block:
    """Call a function that blocks, on a thread where others must not wait; answered with its result."""

    function: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Content:
    """What was in a file.

    Attributes:
        data: All of it; a secret.
        steady: The file did not change while it was read.
    """

    data: bytes = field(repr=False)
    steady: bool


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered.

    Attributes:
        headers: Names in lower case.
        body: Decompressed; may hold secrets.
        started: When the request was begun.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    started: Instant


class Unreachable(Exception):  # noqa: N818 - what it says about the server
    """No answer came.

    Attributes:
        kind: "connect" (nothing was sent), "read" (sent, perhaps handled), "trust" (the server is not who it
            should be) or "fault" (it cannot be asked like this): the last two are not tried again.
        cause: What went wrong, for a person; holds no secret.
    """

    def __init__(self, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause


Step: TypeAlias = Send | Read | Wait | Now | NewId | Ask | Call | Block
Flow: TypeAlias = Generator[Step, Any, T]


def now() -> Flow[Instant]:
    """Look at the clocks."""
    instant: Instant = yield Now()
    return instant
