"""Edge: httpx as both families use it. Nothing else imports it, and this module only when a request is made.

A client lives as long as one token request with its repetitions. Tokens are asked for about once an hour: a
connection kept for that long would be closed by the other side, be in the way of a fork, or belong to an
event loop that is gone.

Only what httpx and its continuation httpx2 both have is used.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workload_identity import __version__
from workload_identity.steps import Response, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workload_identity.clock import Instant
    from workload_identity.options import Options
    from workload_identity.steps import Send
    from workload_identity.token_proxy import TokenProxy


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

LARGEST_ANSWER = 1 << 20
"""Bytes; a token is a few thousand."""
_LONGEST = 86_400.0
"""Seconds; a socket takes no infinite timeout."""
_MOST_CONTEXTS = 8
_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}


def client_arguments(
    options: Options, proxy: TokenProxy | None, transports: Any, *, direct: bool
) -> dict[str, Any]:
    """Return what an httpx client of either family is made with.

    Args:
        options: How requests are sent.
        proxy: The token proxy they go to, if any.
        transports: The family's transport class, for proxies.
        direct: They go to this machine: a proxy of the environment is not for them.

    Raises:
        OSError: Certificates that are named cannot be read; the message has the path.
    """
    if options.transport is not None:
        return {"transport": options.transport}
    if proxy is not None:
        # It is in the cluster: a proxy of the environment is for what is outside, unless the caller insists.
        return {
            "verify": proxy.trust(),
            "trust_env": "use_env_settings" in vars(options) and options.use_env_settings,
        }
    tls = trust(options)
    mounts = {_pattern(scheme): transports(proxy=url, verify=tls) for scheme, url in options.proxies}
    return {
        "verify": tls,
        "mounts": mounts,
        # Proxies named by the caller are the only ones then.
        "trust_env": options.use_env_settings and not mounts and not direct,
    }


def _pattern(scheme: str) -> str:
    return scheme if "://" in scheme else f"{scheme}://"


def _headers(options: Options, of_request: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request: the caller's, its own, and who sends it."""
    version = ".".join(str(part) for part in sys.version_info[:3])
    own = f"workload-identity/{__version__} Python/{version} ({sys.platform})"
    agents = (options.user_agent, own, os.environ.get("AZURE_HTTP_USER_AGENT", ""))
    return {"User-Agent": " ".join(agent for agent in agents if agent), **of_request, **dict(options.headers)}


def _extensions(proxy: TokenProxy | None) -> dict[str, str]:
    """Return what httpx's transports are told beside the request: another server name than the host's."""
    return {"sni_hostname": proxy.server_name} if proxy is not None and proxy.server_name else {}


def request(step: Send, options: Options, proxy: TokenProxy | None, left: float) -> dict[str, Any]:
    """Return what a client's `stream` is called with when so many seconds are left for the request."""
    silence = min(options.read_timeout, left, _LONGEST)
    connecting = min(options.connection_timeout, step.connection_timeout, left, _LONGEST)
    return {
        "method": step.method,
        "url": step.url,
        "data": None if step.form is None else dict(step.form),
        "headers": _headers(options, step.headers),
        "timeout": httpx.Timeout(silence, connect=connecting),
        "follow_redirects": False,
        "extensions": _extensions(proxy),
    }


def trust(options: Options) -> ssl.SSLContext:
    """Return whom to trust: who the caller names, or the environment, the system, or certifi.

    Raises:
        OSError: Certificates that are named cannot be read; the message has the path.
    """
    places = _places(options)
    stamps = tuple((place, _stamp(place)) for place in (*places, *options.connection_cert))
    key = (options.connection_verify is False, options.use_env_settings, stamps)
    context = _contexts.get(key)
    if context is None:
        if len(_contexts) >= _MOST_CONTEXTS:
            _contexts.clear()
        context = _contexts[key] = _context(options, places)
    return context


def _places(options: Options) -> tuple[str, ...]:
    """Return the files and folders of certificates that are named, none if nobody names any."""
    if options.connection_verify is False:
        return ()
    if not isinstance(options.connection_verify, bool):
        return (os.fspath(options.connection_verify),)
    if not options.use_env_settings:
        return ()
    file = os.environ.get("SSL_CERT_FILE", "")
    folders = [
        name for name in os.environ.get("SSL_CERT_DIR", "").split(os.pathsep) if name and Path(name).is_dir()
    ]
    bundle = "" if file or folders else os.environ.get("REQUESTS_CA_BUNDLE", "")
    return tuple(place for place in (file, *folders, bundle) if place)


def _stamp(place: str) -> tuple[int, int]:
    found = Path(place).stat()
    return found.st_mtime_ns, found.st_size


def _context(options: Options, places: tuple[str, ...]) -> ssl.SSLContext:
    if options.connection_verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif places:
        context = _trusting(places)
    elif options.use_env_settings:
        context = ssl.create_default_context()
    else:
        paths = ssl.get_default_verify_paths()
        known = [place for place in (paths.openssl_cafile, paths.openssl_capath) if Path(place).exists()]
        context = _trusting(known) if known else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if context.verify_mode is ssl.CERT_REQUIRED and not places and _knows_nobody(context):
        import certifi  # noqa: PLC0415 - few images have no certificates of their own

        context.load_verify_locations(cafile=certifi.where())
    if options.connection_cert:
        context.load_cert_chain(*options.connection_cert)
    return context


def _trusting(places: Sequence[str]) -> ssl.SSLContext:
    files = [place for place in places if not Path(place).is_dir()]
    folders = [place for place in places if Path(place).is_dir()]
    try:
        context = ssl.create_default_context(cafile=next(iter(files), None), capath=next(iter(folders), None))
        for file in files[1:]:
            context.load_verify_locations(cafile=file)
        for folder in folders[1:]:
            context.load_verify_locations(capath=folder)
    except ssl.SSLError as failure:
        raise OSError(
            f"{', '.join(places)}: certificates in PEM were wanted, none could be read"
        ) from failure
    return context


def _knows_nobody(context: ssl.SSLContext) -> bool:
    # A folder is looked into when a certificate is checked, so an empty store may still know everybody.
    folder = Path(ssl.get_default_verify_paths().openssl_capath)
    return not context.cert_store_stats()["x509_ca"] and not (folder.is_dir() and any(folder.iterdir()))


def response_of(
    status: int, reason: str, headers: Mapping[str, str], body: bytearray, started: Instant
) -> Response:
    """Return an answer in the flows' terms."""
    return Response(
        status, reason, {name.lower(): value for name, value in headers.items()}, bytes(body), started
    )


def too_long() -> Unreachable:
    """Return what to raise for an answer that does not end."""
    return Unreachable("fault", f"its answer is longer than {LARGEST_ANSWER} bytes")


def too_late(options: Options) -> Unreachable:
    """Return what to raise when the time of a call is over."""
    return Unreachable("read", f"no whole answer within the {options.timeout:g} s that a call may take")


def unreachable(failure: Exception, options: Options, before: BaseException | None) -> Unreachable:
    """Return an HTTP client's failure in the flows' terms, with the innermost cause that says something.

    Args:
        failure: What the client raised.
        options: How the request was sent.
        before: What our caller was handling when the request began: no cause of this.
    """
    causes = _causes(failure, before)
    words = _words(causes)
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return Unreachable("trust", f"its certificate is not trusted: {words}")
    match failure:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            kind, words = "connect", f"no connection within {options.connection_timeout:g} s"
        case httpx.TimeoutException():
            kind, words = "read", f"it was silent for {options.read_timeout:g} s"
        case httpx.ProxyError():
            kind, words = "connect", f"the proxy refused: {words}"
        case httpx.ConnectError():
            kind = "connect"
        case httpx.UnsupportedProtocol():
            kind = "fault"
        case httpx.RequestError():
            kind, words = "read", f"the exchange broke off: {words}"
        case _:
            kind, words = "fault", _words(causes[:1])
    return Unreachable(kind, words)


def _causes(failure: BaseException, before: BaseException | None) -> list[BaseException]:
    """Return a failure and what caused it, the innermost last."""
    causes = []
    cause: BaseException | None = failure
    while cause is not None and cause is not before:
        causes.append(cause)
        # httpcore raises "from None" what it has translated: the context has the system's own error then.
        group = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else None
        cause = group or cause.__cause__ or cause.__context__
    return causes


def _words(causes: Sequence[BaseException]) -> str:
    for cause in reversed(causes):
        if str(cause):
            return f"{cause} ({type(cause).__name__})"
    return type(causes[0]).__name__
