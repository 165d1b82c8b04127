"""What is logged: tokens given, refused and renewed; never a token, an assertion or a body.

`logging` is no light import. Where nobody has loaded it, nobody can have asked for more than warnings, which
it writes to stderr by itself: so it is loaded for those alone.
"""

from __future__ import annotations

import sys

from workload_identity.assertions import claims_of
from workload_identity.context import IN_CHAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

    from workload_identity.cache import Held
    from workload_identity.credentials import Order
    from workload_identity.errors import ClientAuthenticationError

_DEBUG, _INFO, _WARNING = 10, 20, 30
"""The levels of `logging`."""


def given(order: Order, held: Held, seconds: float) -> None:
    """Log a token that the token service gave, and in debug records whose it is."""
    level = _level(_INFO)
    if _heard(level):
        until = _time(held.info.expires_on)
        _log(level, "%s: got a token in %.0f ms, good until %s", order.label, seconds * 1000, until)
    if _heard(_DEBUG):
        claims = claims_of(held.token.token)
        whose = {name: str(claims[name])[:100] for name in ("appid", "tid", "oid") if name in claims}
        _log(_DEBUG, "%s: the token's claims: %s", order.label, whose or "not readable")


def refused(order: Order, failure: BaseException) -> None:
    """Log that a caller got no token."""
    _log(_level(_WARNING), "%s: %s", order.label, _words(failure))


def chosen(label: str, member: str, seconds: float, *, inside: bool) -> None:
    """Log which member of a chain gave a token.

    Args:
        label: The chain, and what was asked for.
        member: The member.
        seconds: How long it took to come to it and to ask it.
        inside: Another chain asks this one.
    """
    level = _DEBUG if inside else _INFO
    _log(level, "%s: %s gave a token, in %.0f ms", label, member, seconds * 1000)


def walked_in_vain(failure: ClientAuthenticationError, *, inside: bool) -> None:
    """Log that no member of a chain gave a token, and what each of them said."""
    _log(_DEBUG if inside else _WARNING, "%s", _words(failure))


def complained(tool: str, words: str) -> None:
    """Log what a tool wrote about its failure, already redacted: too much for an error."""
    _log(_DEBUG, "%s wrote: %s", tool, words)


def not_stored(failure: ClientAuthenticationError) -> None:
    """Log that a store of tokens could not be written; tokens are given all the same."""
    _log(_WARNING, "tokens are not stored: %s", failure)


def begun_anew(store: str) -> None:
    """Log that what is in a store of tokens cannot be read by anybody and is replaced."""
    _log(_WARNING, "the token store %r is damaged, as after a full disk, and is begun anew", store)


def not_renewed(order: Order, failure: BaseException) -> None:
    """Log that a token could not be renewed ahead of its end; callers go on with it."""
    held = order.slot.held
    until = _time(held.info.expires_on) if held is not None else "its end"
    _log(
        _WARNING,
        "%s: not renewed yet, the token held is good until %s: %s",
        order.label,
        until,
        _words(failure),
    )


def _log(level: int, words: str, *facts: object) -> None:
    if _heard(level):
        _logger().log(level, words, *facts, stacklevel=2)


def _heard(level: int) -> bool:
    return (level >= _WARNING or "logging" in sys.modules) and _logger().isEnabledFor(level)


def _logger() -> logging.Logger:
    import logging  # noqa: PLC0415 - see above

    return logging.getLogger("workload_identity")


def _level(alone: int) -> int:
    """Return the level of a record: a chain tells of its members in a record of its own."""
    return _DEBUG if IN_CHAIN.get() else alone


def _words(failure: BaseException) -> str:
    from workload_identity.redaction import redacted  # noqa: PLC0415 - hardly ever

    return redacted(str(failure))


def _time(epoch: float) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - only for who reads it

    try:
        return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{epoch} s since the epoch"
