"""What is logged: tokens given, refused and renewed; never a token, an assertion or a body."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from workload_identity.assertions import claims_of

if TYPE_CHECKING:
    from workload_identity.cache import Held
    from workload_identity.credentials import Order

logger = logging.getLogger("workload_identity")


def given(order: Order, held: Held, seconds: float) -> None:
    """Log a token that the token service gave, and in debug records whose it is."""
    until = _time(held.info.expires_on)
    logger.info("%s: got a token in %.0f ms, good until %s", order.label, seconds * 1000, until)
    if logger.isEnabledFor(logging.DEBUG):
        claims = claims_of(held.token.token)
        whose = {name: str(claims[name])[:100] for name in ("appid", "tid", "oid") if name in claims}
        logger.debug("%s: the token's claims: %s", order.label, whose or "not readable")


def refused(order: Order, failure: BaseException) -> None:
    """Log that a caller got no token."""
    logger.warning("%s: %s", order.label, _words(failure))


def not_renewed(order: Order, failure: BaseException) -> None:
    """Log that a token could not be renewed ahead of its end; callers go on with it."""
    held = order.slot.held
    until = _time(held.info.expires_on) if held is not None else "its end"
    logger.warning(
        "%s: not renewed yet, the token held is good until %s: %s", order.label, until, _words(failure)
    )


def _words(failure: BaseException) -> str:
    from workload_identity.redaction import redacted  # noqa: PLC0415 - hardly ever

    return redacted(str(failure))


def _time(epoch: float) -> str:
    try:
        return f"{datetime.fromtimestamp(epoch, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{epoch} s since the epoch"
