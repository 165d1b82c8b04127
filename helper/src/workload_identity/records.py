"""What is logged: tokens given, refused and renewed; never a token, an assertion or a body."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from workload_identity.assertions import claims_of
from workload_identity.context import IN_CHAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.cache import Held
    from workload_identity.credentials import Order
    from workload_identity.errors import ClientAuthenticationError

logger = logging.getLogger("workload_identity")


def given(order: Order, held: Held, seconds: float) -> None:
    """Log a token that the token service gave, and in debug records whose it is."""
    until = _time(held.info.expires_on)
    level = _level(logging.INFO)
    logger.log(level, "%s: got a token in %.0f ms, good until %s", order.label, seconds * 1000, until)
    if logger.isEnabledFor(logging.DEBUG):
        claims = claims_of(held.token.token)
        whose = {name: str(claims[name])[:100] for name in ("appid", "tid", "oid") if name in claims}
        logger.debug("%s: the token's claims: %s", order.label, whose or "not readable")


def refused(order: Order, failure: BaseException) -> None:
    """Log that a caller got no token."""
    logger.log(_level(logging.WARNING), "%s: %s", order.label, _words(failure))


def chosen(label: str, member: str, seconds: float, *, inside: bool) -> None:
    """Log which member of a chain gave a token.

    Args:
        label: The chain, and what was asked for.
        member: The member.
        seconds: How long it took to come to it and to ask it.
        inside: Another chain asks this one.
    """
    level = logging.DEBUG if inside else logging.INFO
    logger.log(level, "%s: %s gave a token, in %.0f ms", label, member, seconds * 1000)


def walked_in_vain(failure: ClientAuthenticationError, *, inside: bool) -> None:
    """Log that no member of a chain gave a token, and what each of them said."""
    logger.log(logging.DEBUG if inside else logging.WARNING, "%s", _words(failure))


def complained(tool: str, words: str) -> None:
    """Log what a tool wrote about its failure, already redacted: too much for an error."""
    logger.debug("%s wrote: %s", tool, words)


def not_renewed(order: Order, failure: BaseException) -> None:
    """Log that a token could not be renewed ahead of its end; callers go on with it."""
    held = order.slot.held
    until = _time(held.info.expires_on) if held is not None else "its end"
    logger.warning(
        "%s: not renewed yet, the token held is good until %s: %s", order.label, until, _words(failure)
    )


def _level(alone: int) -> int:
    """Return the level of a record: a chain tells of its members in a record of its own."""
    return logging.DEBUG if IN_CHAIN.get() else alone


def _words(failure: BaseException) -> str:
    from workload_identity.redaction import redacted  # noqa: PLC0415 - hardly ever

    return redacted(str(failure))


def _time(epoch: float) -> str:
    try:
        return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{epoch} s since the epoch"
