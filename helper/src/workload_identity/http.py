"""Edge: httpx as both families use it: for proxies, and for transports and clients of the caller's.

A plain request goes without it, see `exchange`. A client lives as long as one token request with its
repetitions. Tokens are asked for about once an hour: a connection kept for that long would be closed by the
other side, be in the way of a fork, or belong to an event loop that is gone.

Only what httpx and its continuation httpx2 both have is used.
"""

from __future__ import annotations

import math
import ssl
import sys
from typing import TYPE_CHECKING, Any

from workload_identity.sending import (
    broken_off,
    causes_of,
    connecting,
    headers,
    not_connected,
    not_trusted,
    proxy_url,
    silence,
    silent,
    words_of,
)
from workload_identity.steps import Response, Unreachable
from workload_identity.trust import context_for

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from workload_identity.clock import Instant
    from workload_identity.options import Options
    from workload_identity.steps import Send
    from workload_identity.token_proxy import TokenProxy

    T = TypeVar("T")


def _import_httpx() -> Any:
    """Import httpx without its command line, which draws in click, rich and pygments where they are."""
    command_line = "httpx._main"
    if "httpx" in sys.modules or command_line in sys.modules:
        import httpx  # noqa: PLC0415

        return httpx
    sys.modules[command_line] = None  # type: ignore[assignment]  # what import takes for "not there"
    try:
        import httpx  # noqa: PLC0415
    finally:
        sys.modules.pop(command_line, None)
    return httpx


if TYPE_CHECKING:
    import httpx as httpx  # noqa: PLC0414 - the edges of both families take it from here
else:
    httpx = _import_httpx()


def client(
    clients: Callable[..., T],
    transports: Any,
    step: Send,
    options: Options,
    proxy: TokenProxy | None,
    outwards: str,
) -> T:
    """Return an httpx client of either family.

    Args:
        clients: The family's client class.
        transports: The family's transport class, for proxies.
        step: The first request.
        options: How requests are sent.
        proxy: The token proxy they go to, if any.
        outwards: The URL of the environment's proxy through which they go, "" for none.

    Raises:
        OSError: Certificates that are named cannot be read; the message has the path.
        Unreachable: The address of a proxy is none. It is not quoted, as it may have a password in it.
    """
    try:
        return clients(**_arguments(step, options, proxy, transports, outwards))
    except (httpx.InvalidURL, ValueError):
        if not options.proxies and not outwards:
            raise
    raise Unreachable(
        "fault",
        "the address of a proxy, among `proxies` or in HTTPS_PROXY or the like, is no URL such as"
        " http://user:password@host:3128; in user and password / is %2F, ? is %3F, # is %23 and @ is %40",
    )


def _arguments(
    step: Send, options: Options, proxy: TokenProxy | None, transports: Any, outwards: str
) -> dict[str, Any]:
    if options.transport is not None:
        return {"transport": options.transport}
    tls = context_for(step, options, proxy)
    # Proxies named by the caller are the only ones then; one that is empty means none.
    named = options.proxies if proxy is None else ()
    urls = {_pattern(scheme): proxy_url(url) for scheme, url in named} or {"all://": outwards}
    return {
        "verify": tls,
        "mounts": {
            pattern: transports(proxy=url, verify=tls) if url else None for pattern, url in urls.items()
        },
        # httpx would refuse any request over an entry of NO_PROXY that it does not understand.
        "trust_env": False,
    }


def _pattern(scheme: str) -> str:
    return scheme if "://" in scheme else f"{scheme}://"


def _extensions(proxy: TokenProxy | None) -> dict[str, str]:
    """Return what httpx's transports are told beside the request: another server name than the host's."""
    return {"sni_hostname": proxy.server_name} if proxy is not None and proxy.server_name else {}


def request(step: Send, options: Options, proxy: TokenProxy | None, left: float) -> dict[str, Any]:
    """Return what a client's `stream` is called with when so many seconds are left for the request."""
    timeout = httpx.Timeout(silence(options, left), connect=connecting(step, options, left))
    return {
        "method": step.method,
        "url": step.url,
        "content": step.form if isinstance(step.form, str) else None,
        "data": None if step.form is None or isinstance(step.form, str) else dict(step.form),
        "headers": headers(options, step.headers),
        "timeout": timeout,
        "follow_redirects": False,
        "extensions": _extensions(proxy),
    }


def bounding(left: Callable[[], float]) -> Callable[[str, Mapping[str, Any]], None]:
    """Return what has each read of a blocking client's new connections end when a request's time is over.

    httpx bounds the silence before each piece of an answer. Headers, or a proxy's greeting, that come letter
    by letter would take any time.

    Args:
        left: Returns the seconds that are left, or raises what is to be raised when there are none.
    """

    def trace(_event: str, facts: Mapping[str, Any]) -> None:
        stream = facts.get("return_value")
        read = getattr(stream, "read", None)
        if stream is not None and read is not None:
            stream.read = lambda most, timeout=None: read(most, min(timeout or math.inf, left()))

    return trace


def response_of(
    status: int, reason: str, headers: Mapping[str, str], body: bytearray, started: Instant
) -> Response:
    """Return an answer in the flows' terms."""
    return Response(
        status, reason, {name.lower(): value for name, value in headers.items()}, bytes(body), started
    )


def unreachable(failure: Exception, options: Options, before: BaseException | None) -> Unreachable:
    """Return an HTTP client's failure in the flows' terms, with the innermost cause that says something.

    Args:
        failure: What the client raised.
        options: How the request was sent.
        before: What our caller was handling when the request began: no cause of this.
    """
    causes = causes_of(failure, before)
    words = words_of(causes)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return not_trusted(words)
    match failure:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return not_connected(options.connection_timeout)
        case httpx.TimeoutException():
            return silent(options)
        case httpx.ProxyError():
            kind, words = "connect", f"the proxy refused: {words}"
        case httpx.ConnectError():
            kind = "connect"
        case httpx.UnsupportedProtocol():
            kind = "fault"
        case httpx.RequestError():
            return broken_off(words)
        case _:
            kind, words = "fault", words_of(causes[:1])
    return Unreachable(kind, words)
