"""Edge: whom to trust at the other end of a TLS connection. Without pathlib, which is no light import."""

from __future__ import annotations

import os
import ssl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from workload_identity.options import Options
    from workload_identity.steps import Send
    from workload_identity.token_proxy import TokenProxy

_MOST_CONTEXTS = 8
_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}


def context_for(step: Send, options: Options, proxy: TokenProxy | None) -> ssl.SSLContext:
    """Return whom to trust for a request, or at the token proxy it goes to.

    Raises:
        OSError: Certificates that are named cannot be read; the message has the path.
        ValueError: The token proxy's are no PEM.
    """
    if step.thumbprint:
        from workload_identity.pinning import Pinned  # noqa: PLC0415 - for one rare host

        return Pinned(step.thumbprint)
    return trust(options) if proxy is None else proxy.trust()


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
        name for name in os.environ.get("SSL_CERT_DIR", "").split(os.pathsep) if name and os.path.isdir(name)
    ]
    # The first is what `requests` takes.
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE", "")
    return tuple(place for place in (file, *folders, bundle) if place)


def _stamp(place: str) -> tuple[int, int]:
    found = os.stat(place)
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
        known = [place for place in (paths.openssl_cafile, paths.openssl_capath) if os.path.exists(place)]
        context = _trusting(known) if known else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if context.verify_mode is ssl.CERT_REQUIRED and not places and _knows_nobody(context):
        import certifi  # noqa: PLC0415 - few images have no certificates of their own

        context.load_verify_locations(cafile=certifi.where())
    if options.connection_cert:
        context.load_cert_chain(*options.connection_cert)
    return context


def _trusting(places: Sequence[str]) -> ssl.SSLContext:
    files = [place for place in places if not os.path.isdir(place)]
    folders = [place for place in places if os.path.isdir(place)]
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
    folder = ssl.get_default_verify_paths().openssl_capath
    return not context.cert_store_stats()["x509_ca"] and not (os.path.isdir(folder) and os.listdir(folder))
