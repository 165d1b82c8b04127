"""What a flow may ask of the outside world, and what it is answered. No I/O, no clock, no HTTP library.

A flow is a generator: it yields a step, is sent the answer, and returns its result. The same flow serves the
blocking and the awaiting family, and a test drives it by hand.
"""

from __future__ import annotations

from math import inf

from workload_identity.values import NOTHING, Value, hidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any, TypeAlias, TypeVar

    from workload_identity.clock import Instant
    from workload_identity.credentials import Order

    T = TypeVar("T")


class Send(Value):
    """Send a request; answered with a `Response`, or `Unreachable` is thrown.

    Attributes:
        url: An https URL, or an http one of this machine's own.
        form: What to send; holds secrets. A text is sent as it is, with the Content-Type among the headers.
            None: nothing.
        headers: Beside those that every request of the credential gets; may hold secrets.
        deadline: When there is no use in an answer any more, by the monotonic clock.
        method: HTTP's.
        direct: Never through a proxy that only the environment names: the address is of this machine.
        connection_timeout: Seconds a connection may take, if that is less than the options say.
        thumbprint: SHA-1 of the only certificate to trust, 40 lower-case hex digits; "": who the options say.
    """

    url: str
    form: Mapping[str, str] | str | None = hidden()
    headers: Mapping[str, str] = hidden()
    deadline: float
    method: str = "POST"
    direct: bool = False
    connection_timeout: float = inf
    thumbprint: str = ""


class Read(Value):
    """Read a file; answered with a `Content`, or an OSError is thrown.

    Attributes:
        most: Bytes after which no more is read.
        folder: The folder in which the file must be when all links are followed; "": anywhere.
    """

    path: str
    most: int = 1 << 20
    folder: str = ""


class Wait(Value):
    """Wait for some time between the two, in seconds, chosen by chance; answered with None."""

    shortest: float
    longest: float


class Now(Value):
    """Look at the clocks; answered with an `Instant`."""


class NewId(Value):
    """Think of a new UUID; answered with its text."""


class Ask(Value):
    """Ask another credential; answered with what it gives, or whatever it raises is thrown.

    Attributes:
        credential: One of the same family.
        scopes: What the token is for.
        options: `claims`, `tenant_id`, `enable_cae`, as `TokenRequestOptions` has them.
        method: Which of a credential's two methods is called, if it has both.
    """

    credential: object = hidden()
    scopes: tuple[str, ...]
    options: Mapping[str, Any] = NOTHING
    method: str = "get_token_info"


class Share(Value):
    """Have an order fulfilled, together with all who ask for the same; answered with a `Held`.

    Whatever the order's own flow raises is thrown, for each who waits for it.
    """

    order: Order = hidden()


class Call(Value):
    """Call a function of the user's; answered with its result, awaited where that can be.

    Whatever it raises is thrown.
    """

    function: Callable[[], object]


class Block(Value):
    """Call a function that blocks, on a thread where others must not wait; answered with its result."""

    function: Callable[[], object]


class Find(Value):
    """Look for a program on the PATH; answered with its whole path, or None.

    Attributes:
        names: What it may be called, the first one that is found wins.
    """

    names: tuple[str, ...]


class Run(Value):
    """Run a program without input, in a session of its own; answered with a `Ran`.

    An OSError is thrown when it cannot be started, a TimeoutError when it was ended, with all that it had
    started, after its time.

    Attributes:
        argv: Its whole path, and its arguments.
        environment: Variables beside this process's own.
        folder: Where it runs.
        timeout: Seconds it may take.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    timeout: float


class Ran(Value):
    """What a program left.

    Attributes:
        status: Its exit status; negative: the signal that ended it.
        stdout: What it wrote; may be a secret.
        stderr: Likewise.
    """

    status: int
    stdout: bytes = hidden()
    stderr: bytes = hidden()


class Lend(Value):
    """Call a function that blocks and cannot be a flow, as a library with I/O of its own.

    It runs where `Block` has its function run, and is answered with its result. It gets a function that
    performs a step for it and returns the answer, or raises what a flow would have thrown in; when the flow
    ends early, that function raises too.
    """

    function: Callable[[Perform], object]


class Content(Value):
    """What was in a file.

    Attributes:
        data: All of it; a secret.
        steady: The file did not change while it was read.
    """

    data: bytes = hidden()
    steady: bool


class Response(Value):
    """What a server answered.

    Attributes:
        headers: Names in lower case.
        body: Decompressed; may hold secrets.
        started: When the request was begun.
    """

    status: int
    reason: str
    headers: Mapping[str, str] = hidden()
    body: bytes = hidden()
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


Step: TypeAlias = Send | Read | Wait | Now | NewId | Ask | Share | Call | Block | Lend | Find | Run
Perform: TypeAlias = "Callable[[Step], Any]"
Flow: TypeAlias = "Generator[Step, Any, T]"


def now() -> Flow[Instant]:
    """Look at the clocks."""
    instant: Instant = yield Now()
    return instant
