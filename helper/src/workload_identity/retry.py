"""Sending a request until it is answered: what is worth another try, after which pause, and when to give up.

Source: azure-core 1.41.0, `RetryPolicy`, for statuses, counts and backoff; RFC 9110, section 10.2.3, for
Retry-After. Pauses are jittered, and a call has an end, which azure-core's practically has not.
"""

from __future__ import annotations

import math

from workload_identity.errors import ClientAuthenticationError
from workload_identity.steps import Response, Unreachable, Wait, now
from workload_identity.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workload_identity.options import Options
    from workload_identity.steps import Flow, Send
    from workload_identity.token_proxy import TokenProxy

_ALWAYS = frozenset({408, 429, 500, 502, 503, 504})
_FROM_HERE_ON = 506
_REFUSED = 400
_WORTHLESS = frozenset({"trust", "fault"})


class Server(Value):
    """What is particular to a server that is not a token endpoint.

    Attributes:
        no_answer: Makes the error for a request that was not answered, from what kept it from that and the
            number of tries.
        factors: By status, what pauses grow from instead of the options' factor. Such pauses are not
            shortened by chance: the server needs the time.
    """

    no_answer: Callable[[Unreachable, int], ClientAuthenticationError]
    factors: Mapping[int, float]


def persistently(
    request: Send,
    options: Options,
    *,
    longest_pause: float = math.inf,
    proxy: TokenProxy | None = None,
    server: Server | None = None,
    service: str = "the token service",
) -> Flow[Response]:
    """Send a request, and again where that may help; the same one each time.

    Args:
        request: What to send, and the moment of the monotonic clock after which nobody waits any more.
        options: How often, and how long to pause.
        longest_pause: The longest pause that a server may ask for, in seconds; who asks for more is not asked
            again.
        proxy: The token proxy that the request goes to, if it does.
        server: What else it goes to; None: a token endpoint.
        service: Who is asked, for an error.

    Returns:
        The answer, whatever its status: the last one, when the tries are used up.

    Raises:
        ClientAuthenticationError: No answer came.
    """
    left = {"connect": options.retry_connect, "read": options.retry_read, "status": options.retry_status}
    repeated = 0
    while True:
        answer: Response | Unreachable
        try:
            answer = yield request
        except Unreachable as failure:
            answer = failure
        reason = _reason_to_repeat(answer, options)
        if reason is None:
            break
        left[reason] -= 1
        moment = yield from now()
        asked = asked_pause(answer.headers, moment.epoch) if isinstance(answer, Response) else None
        factor = server.factors.get(answer.status) if server and isinstance(answer, Response) else None
        pause = backoff(repeated, options, factor) if asked is None else asked
        spent = left[reason] < 0 or repeated >= options.retry_total
        if spent or pause > longest_pause or moment.monotonic + pause >= request.deadline:
            break
        if pause:
            yield Wait(pause / 2 if asked is None and factor is None else pause, pause)
        repeated += 1
    if isinstance(answer, Unreachable):
        if server is not None:
            raise server.no_answer(answer, repeated + 1) from answer
        raise _no_answer(answer, request.url, repeated + 1, proxy, service) from answer
    return answer


def _reason_to_repeat(answer: Response | Unreachable, options: Options) -> str | None:
    if isinstance(answer, Unreachable):
        return answer.kind if worth_another_try(answer) else None
    status = answer.status
    worthwhile = status in _ALWAYS or status >= _FROM_HERE_ON or status in options.retry_on_status_codes
    return "status" if worthwhile or (status >= _REFUSED and "retry-after" in answer.headers) else None


def backoff(repeated: int, options: Options, factor: float | None = None) -> float:
    """Return the longest pause before the next try, in seconds: 0, 1.6, 3.2, … by default.

    Args:
        repeated: How many tries there were beside the first.
        options: What pauses grow from, how, and to what length.
        factor: What they grow from instead.
    """
    if repeated == 0:
        return 0
    # An exponent beyond this is past every maximum, and would be past what a float holds.
    growth = 1 if options.retry_mode == "fixed" else 2 ** min(repeated, 64)
    start = options.retry_backoff_factor if factor is None else factor
    return min(start * growth, options.retry_backoff_max)


def asked_pause(headers: Mapping[str, str], epoch: float) -> float | None:
    """Return for how many seconds a server asks; None when it does not, or that is past or unreadable.

    Args:
        headers: Names in lower case.
        epoch: Now, in seconds since the epoch: the header may hold a date.
    """
    for name, unit in (("retry-after-ms", 1000), ("x-ms-retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            pause = float(value) / unit
        except ValueError:
            pause = _date(value) - epoch
        if math.isfinite(pause) and pause > 0:
            return pause
    return None


def _date(value: str) -> float:
    from email.utils import mktime_tz, parsedate_tz  # noqa: PLC0415 - servers hardly ever send a date

    try:
        parts = parsedate_tz(value)
        return math.nan if parts is None else float(mktime_tz(parts))
    except (ValueError, TypeError, OverflowError, IndexError):
        return math.nan


def _no_answer(
    failure: Unreachable, url: str, tries: int, proxy: TokenProxy | None, service: str
) -> ClientAuthenticationError:
    host = url.partition("://")[2].partition("/")[0]
    if proxy is not None:
        name = proxy.server_name or host
        change = (
            f"This is the token proxy of AZURE_KUBERNETES_TOKEN_PROXY (server name {name!r}), with settings"
            " from the operator. Entra is not asked instead: that takes enable_azure_proxy=False."
        )
    elif failure.kind == "trust":
        change = (
            "If a proxy or a private cloud stands there, name its certificate authority in SSL_CERT_FILE or"
            " connection_verify."
        )
    elif failure.kind == "fault":
        change = "Correct the options or variables that say how requests are sent."
    else:
        change = (
            "Check that this pod may reach it (network policy, firewall, DNS), and HTTPS_PROXY and NO_PROXY;"
            " AZURE_AUTHORITY_HOST says whom to ask."
        )
    return ClientAuthenticationError(
        f"no answer from {service} at {host} ({times_of(tries)}): {failure.cause}. {change}",
        retryable=worth_another_try(failure),
    )


def times_of(tries: int) -> str:
    """Return "1 try" or the like."""
    return "1 try" if tries == 1 else f"{tries} tries"


def worth_another_try(failure: Unreachable) -> bool:
    """Tell whether the same request may be answered later without a change by anyone."""
    return failure.kind not in _WORTHLESS
