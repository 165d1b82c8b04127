"""How requests are sent: keywords that every credential takes, with azure-core's names and counts.

Times are in seconds. Unlike azure-core's, the defaults let nobody hang for minutes on an endpoint that is
silent.

Source: azure-core 1.41.0, `RetryPolicy`, `ConnectionConfiguration`, `ProxyPolicy`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypedDict

    class SendingOptions(TypedDict, total=False):
        """The keywords that mean the same everywhere, for type checkers; `Options` says what they mean."""

        connection_timeout: float
        read_timeout: float
        retry_total: int
        retry_connect: int
        retry_read: int
        retry_status: int
        retry_backoff_factor: float
        retry_backoff_max: float
        retry_mode: str
        retry_on_status_codes: Iterable[int]
        connection_verify: bool | str
        connection_cert: str | tuple[str, ...] | None
        proxies: Mapping[str, str] | None
        use_env_settings: bool
        transport: object
        headers: Mapping[str, str] | None
        user_agent: str | None
        # Of other libraries, for code that moves over.
        logging_enable: bool
        enable_support_logging: bool
        connection_data_block_size: int

    class TransportOptions(SendingOptions, total=False):
        """Those, and what user credentials have a meaning of their own for."""

        timeout: float
        disable_instance_discovery: bool


WITHOUT_EFFECT = frozenset(
    {
        "connection_data_block_size",
        "disable_instance_discovery",  # nothing is ever discovered
        "enable_support_logging",
        "logging_enable",  # bodies of token requests are never logged
    }
)
"""Keywords of azure-identity that are taken without a word, as what they ask for is so anyway."""

_UNSUPPORTED = {
    "cache_persistence_options": "tokens are held in memory",
    "per_call_policies": "azure-core's policies have no place here; give a `transport`",
    "per_retry_policies": "azure-core's policies have no place here; give a `transport`",
    "policies": "azure-core's policies have no place here; give a `transport`",
    "raw_request_hook": "give an httpx client with event hooks as `transport`",
    "raw_response_hook": "give an httpx client with event hooks as `transport`",
    "session": "give an httpx client as `transport`",
}
"""Keywords of azure-identity that are not supported, and what there is instead."""


class Options:
    """Options as given, or their defaults; equal when all of them are."""

    timeout: float = 120.0
    """The most one call may take, retries and waits for the token service included."""
    connection_timeout: float = 10.0
    """The most a connection may take, TLS included."""
    read_timeout: float = 30.0
    """The longest silence of a server."""
    retry_total: int = 10
    """Repetitions of a request for any reason; the three that follow count within it."""
    retry_connect: int = 3
    """Repetitions after a connection failed."""
    retry_read: int = 3
    """Repetitions after a connection broke or stayed silent."""
    retry_status: int = 3
    """Repetitions after 408, 429, 500, 502 to 504, 506 and above, or any refusal with a Retry-After."""
    retry_backoff_factor: float = 0.8
    """The n-th repetition waits for this times two to the power of n - 1; the first does not wait."""
    retry_backoff_max: float = 120.0
    """The longest such wait."""
    retry_mode: str = "exponential"
    """Or "fixed": every wait but the first is the factor."""
    retry_on_status_codes: tuple[int, ...] = ()
    """Statuses to repeat on beside those."""
    connection_verify: bool | str = True
    """False trusts anyone; a path names the certificates to trust: a PEM file or a folder of them."""
    connection_cert: tuple[str, ...] = ()
    """Paths of a client certificate and, unless it is in the same file, its key."""
    proxies: tuple[tuple[str, str], ...] = ()
    """Proxy URLs by scheme ("https"), or by scheme and host ("https://login.microsoftonline.com")."""
    use_env_settings: bool = True
    """Heed HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE or
    CURL_CA_BUNDLE: whom they name is trusted, all of them."""
    transport: Any = None
    """An httpx transport or client of the caller's; never closed here, and trust and proxies are its own."""
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with each request."""
    user_agent: str = ""
    """Put before the User-Agent of this library."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Take options; None counts as not given.

        Raises:
            ValueError: A value that cannot work; the message names the option.
        """
        for name, value in given.items():
            if value is not None:
                setattr(self, name, _checked(name, value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self._said())

    def _said(self) -> tuple[object, ...]:
        rest = sorted((name, value) for name, value in self.__dict__.items() if name != "transport")
        return (Identical(self.transport), *rest)


class Identical:
    """Makes anything a key: equal to itself alone; a method, to the same object's same method."""

    __slots__ = ("_parts",)

    def __init__(self, thing: object) -> None:
        # Python makes a new method object each time that one is named.
        owner = getattr(thing, "__self__", None)
        function = getattr(thing, "__func__", None)
        self._parts = (thing, None) if owner is None or function is None else (owner, function)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identical):
            return False
        return self._parts[0] is other._parts[0] and self._parts[1] is other._parts[1]

    def __hash__(self) -> int:
        return hash((id(self._parts[0]), id(self._parts[1])))


def options_of(given: Mapping[str, Any], known: Iterable[str]) -> Options:
    """Return the options among a constructor's keywords, and warn its caller about those that are none.

    Args:
        given: Keywords that the constructor does not know by itself.
        known: Those it does: what a misspelt one may have been meant to be.

    Raises:
        ValueError: A value that cannot work.
    """
    for name in given.keys() - Options.__annotations__.keys() - WITHOUT_EFFECT:
        _warn(name, known)
    return Options({name: value for name, value in given.items() if name in Options.__annotations__})


def _warn(name: str, known: Iterable[str]) -> None:
    import difflib  # noqa: PLC0415 - hardly anyone comes here
    import warnings  # noqa: PLC0415

    reason = _UNSUPPORTED.get(name)
    if reason is None:
        near = difflib.get_close_matches(name, [*known, *Options.__annotations__], n=1)
        reason = f"did you mean {near[0]!r}?" if near else "it has no effect"
    # Behind this function, `options_of` and the constructor.
    warnings.warn(f"unknown option {name!r}: {reason}", UserWarning, stacklevel=4)


def _checked(name: str, value: Any) -> Any:
    if name in _READERS:
        read, wanted = _READERS[name]
        try:
            return read(value)
        except (TypeError, ValueError):
            # Not chained, as its words may quote a password.
            found = type(value).__name__ if read in {_pairs, _proxies} else repr(value)
        raise ValueError(f"{name}: wanted {wanted}; found {found}")
    kind = type(getattr(Options, name))
    if kind in {bool, str}:
        return kind(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name}: wanted a number, 0 or more, found {value!r}")
    return value


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((str(key), str(item)) for key, item in dict(value).items()))


def _proxies(value: Any) -> tuple[tuple[str, str], ...]:
    return _pairs({key: item or "" for key, item in dict(value).items()})


def _mode(value: Any) -> str:
    mode = str(getattr(value, "value", value)).lower()  # azure-core has an enumeration for it
    if mode not in {"exponential", "fixed"}:
        raise ValueError(mode)
    return mode


_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "connection_cert": (
        lambda value: (value,) if isinstance(value, str) else tuple(value),
        "the path of a certificate, or those of a certificate and its key",
    ),
    "connection_verify": (lambda value: value, ""),
    "headers": (_pairs, "values by name"),
    "proxies": (_proxies, "URLs by scheme, such as {'https': 'http://host:3128'}"),
    "retry_mode": (_mode, "'exponential' or 'fixed'"),
    "retry_on_status_codes": (
        lambda value: tuple(sorted({int(status) for status in value})),
        "several statuses",
    ),
    "transport": (lambda value: value, ""),
}
"""What reads an option's value, and what it wants."""
