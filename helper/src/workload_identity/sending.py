"""Edge: what a request is sent with, and what is said when no answer comes, whoever carries it."""

from __future__ import annotations

import os
import sys

from workload_identity import __version__
from workload_identity.steps import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workload_identity.exchange import Address
    from workload_identity.options import Options
    from workload_identity.steps import Send
    from workload_identity.token_proxy import TokenProxy

LARGEST_ANSWER = 1 << 20
"""Bytes; a token is a few thousand."""
_PORTS = {"http": 80, "https": 443}
_PROXY_VARIABLES = frozenset({"http_proxy", "https_proxy", "all_proxy"})
_IN_NAMES = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_LONGEST = 86_400.0
"""Seconds; a socket takes no infinite timeout."""
_SHORTEST = 0.001
"""Seconds; a socket takes 0 for "never wait"."""


def headers(options: Options, of_request: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request: the caller's, its own, and who sends it.

    Raises:
        Unreachable: One cannot be sent; its value, which may be a secret, is not quoted.
    """
    version = ".".join(str(part) for part in sys.version_info[:3])
    own = f"workload-identity/{__version__} Python/{version} ({sys.platform})"
    agents = (options.user_agent, own, os.environ.get("AZURE_HTTP_USER_AGENT", ""))
    given = {
        "User-Agent": " ".join(agent for agent in agents if agent),
        **of_request,
        **dict(options.headers),
    }
    return {name: _sendable(name, value) for name, value in given.items()}


def _sendable(name: str, value: str) -> str:
    """Return a header's value without the blanks around it, which are no part of it.

    Who carries a request quotes what it refuses, in errors, tracebacks and debug records: it never gets it.

    Source: RFC 9110, sections 5.1, 5.5 and 5.6.2.
    """
    if not name or not _IN_NAMES.issuperset(name):
        raise Unreachable("fault", f"a header is called {name!r}, which is no name of one")
    value = value.strip(" \t")
    if value.isascii() and value.isprintable():
        return value
    found = {"\r": "a line end", "\n": "a line end"}
    for letter in value:
        if letter in found or not letter.isascii() or (not letter.isprintable() and letter != "\t"):
            what = found.get(letter, "a control character" if letter.isascii() else "a letter outside ASCII")
            raise Unreachable(
                "fault", f"the value of the header {name} has {what} in it, so it cannot be sent"
            )
    return value


def plain(step: Send, options: Options, proxy: TokenProxy | None) -> tuple[Address, bytes] | None:
    """Return where a request goes and its bytes, if a connection is all it needs; None: httpx carries it.

    Args:
        step: The request.
        options: How it is sent.
        proxy: The token proxy it goes to, if any.
    """
    if options.transport is not None or options.proxies or proxy_of_environment(step, options, proxy):
        return None
    from workload_identity.exchange import address_of, request_bytes  # noqa: PLC0415 - not for httpx

    address = address_of(step.url)
    if address is None:
        return None
    content = request_bytes(step.method, address, headers(options, step.headers), step.form)
    return None if content is None else (address, content)


def proxy_of_environment(step: Send, options: Options, proxy: TokenProxy | None) -> str:
    """Return the URL of the proxy that the environment, or the system, names for this request; "" for none.

    One is for what is outside: not for a token proxy in the cluster, unless the caller insists, nor for this
    machine's own addresses. NO_PROXY has names, which stand for all below them too, addresses and networks; a
    port behind them, or "https://" before, narrows them.
    """
    if step.direct or not options.use_env_settings:
        return ""
    if proxy is not None and "use_env_settings" not in vars(options):
        return ""
    of_system = sys.platform in {"win32", "darwin"}
    if not of_system and not any(
        name.lower() in _PROXY_VARIABLES and os.environ.get(name) for name in os.environ
    ):
        return ""
    from urllib.parse import urlsplit  # noqa: PLC0415 - few have a proxy
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - likewise

    known, url = getproxies(), urlsplit(step.url)
    found = proxy_url(known.get(url.scheme) or known.get("all", ""))
    host, port = (url.hostname or "").rstrip("."), url.port or _PORTS.get(url.scheme, 0)
    if not found or any(
        _stands_for(entry, url.scheme, host, port) for entry in known.get("no", "").split(",")
    ):
        return ""
    return "" if of_system and proxy_bypass(f"{host}:{port}") else found


def proxy_url(given: str) -> str:
    """Return a proxy's URL: a host and a port are enough, as for curl; "" for none."""
    given = given.strip()
    return given if not given or "://" in given else f"http://{given.removeprefix('//')}"


def _stands_for(entry: str, scheme: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY stands for a host."""
    before, mark, name = entry.strip().lower().rpartition("://")
    if not name or (mark and before not in {scheme, "all"}):
        return False
    if name == "*":
        return True
    if ":" in host or host.replace(".", "").isdecimal():
        from ipaddress import ip_address, ip_network  # noqa: PLC0415 - hardly any token service has no name

        address, _, at = name.partition("]")
        if at and at != f":{port}":
            return False
        try:
            return ip_address(host) in ip_network(address.removeprefix("["), strict=False)
        except ValueError:
            return name == f"{host}:{port}"
    name = name.removeprefix("*").lstrip(".").removesuffix(f":{port}")
    return bool(name) and f".{host}".endswith(f".{name}")


def silence(options: Options, left: float) -> float:
    """Return for how many seconds a server may be silent when so many are left for the request."""
    return min(options.read_timeout, left, _LONGEST)


def connecting(step: Send, options: Options, left: float) -> float:
    """Return how many seconds a connection may take, TLS included."""
    return min(options.connection_timeout, step.connection_timeout, left, _LONGEST)


def share(left: float, among: int) -> float:
    """Return the seconds for the next of so many addresses of a host, when so many are left for all."""
    return max(left / among, _SHORTEST)


def server_name(address: Address, proxy: TokenProxy | None) -> str:
    """Return what the certificate of who answers there must name."""
    # A dot at the end says that a name is whole; certificates do without.
    return (proxy and proxy.server_name) or address.host.rstrip(".")


def too_long() -> Unreachable:
    """Return what to raise for an answer that does not end."""
    return Unreachable("fault", f"its answer is longer than {LARGEST_ANSWER} bytes")


def too_late(options: Options) -> Unreachable:
    """Return what to raise when the time of a call is over."""
    return Unreachable("read", f"no whole answer within the {options.timeout:g} s that a call may take")


def not_connected(seconds: float) -> Unreachable:
    """Return what to raise when a connection took too long."""
    return Unreachable("connect", f"no connection within {seconds:g} s")


def silent(options: Options) -> Unreachable:
    """Return what to raise when a server said nothing for too long."""
    return Unreachable("read", f"it was silent for {options.read_timeout:g} s")


def broken_off(words: str) -> Unreachable:
    """Return what to raise when a connection ended within an exchange."""
    return Unreachable("read", f"the exchange broke off: {words}")


def not_trusted(words: str) -> Unreachable:
    """Return what to raise for a server that cannot prove who it is."""
    return Unreachable("trust", f"its certificate is not trusted: {words}")


def failed(
    failure: Exception, step: Send, options: Options, before: BaseException | None, *, connected: bool
) -> Unreachable:
    """Return what went wrong with a plain request in the flows' terms.

    Args:
        failure: What the system, TLS or `exchange` raised.
        step: The request.
        options: How it was sent.
        before: What our caller was handling when the request began: no cause of this.
        connected: Whether it went wrong after the request was sent.
    """
    from workload_identity.exchange import Broken, TooLong  # noqa: PLC0415 - hardly ever

    words = words_of(causes_of(failure, before))
    ssl = sys.modules.get("ssl")  # where nobody has loaded it, it has refused nobody
    if ssl is not None and isinstance(failure, ssl.SSLCertVerificationError):
        return not_trusted(words)
    match failure:
        case TooLong():
            unreachable = too_long()
        case Broken():
            unreachable = broken_off(str(failure))
        case TimeoutError() if connected:
            unreachable = silent(options)
        case TimeoutError():
            unreachable = not_connected(min(options.connection_timeout, step.connection_timeout))
        case OSError():
            unreachable = broken_off(words) if connected else Unreachable("connect", words)
        case _:
            unreachable = Unreachable("fault", words_of([failure]))
    return unreachable


def causes_of(failure: BaseException, before: BaseException | None) -> list[BaseException]:
    """Return a failure and what caused it, the innermost last."""
    causes = []
    cause: BaseException | None = failure
    while cause is not None and cause is not before:
        causes.append(cause)
        # httpcore raises "from None" what it has translated: the context has the system's own error then.
        group = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = group or cause.__cause__ or cause.__context__
    return causes


def words_of(causes: Sequence[BaseException]) -> str:
    """Return what the innermost of them says that says anything."""
    for cause in reversed(causes):
        if str(cause):
            return f"{cause} ({type(cause).__name__})"
    return type(causes[0]).__name__
