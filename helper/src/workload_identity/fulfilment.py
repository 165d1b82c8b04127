"""What both families do alike around a request for a token: log it, heed a refusal, wake who waits."""

from __future__ import annotations

from math import inf

from workload_identity.cache import Held
from workload_identity.errors import ClientAuthenticationError, another

TYPE_CHECKING = False
if TYPE_CHECKING:
    from workload_identity.cache import Flight, Outcome
    from workload_identity.credentials import Order


def landed(order: Order, flight: Flight, outcome: Outcome, began: float) -> None:
    """Log what became of a flight, and let all who wait for it know."""
    from workload_identity import records  # noqa: PLC0415 - not for a token that is held

    moment = order.clock.monotonic()
    rest = -inf
    if isinstance(outcome, Held):
        if not order.silent:
            records.given(order, outcome, moment - began)
    elif isinstance(outcome, Exception):
        if not order.silent:
            (records.not_renewed if flight.renewal else records.refused)(order, outcome)
        rest = moment + (getattr(outcome, "retry_after", None) or 0)
        # Without this one's traceback, which would keep all that its frames hold.
        outcome = another(outcome)
    order.cache.land(order.slot, order.way, flight, outcome, rest=rest)


def waited_too_long(order: Order) -> ClientAuthenticationError:
    """Return what to raise when somebody else's request for the same token does not end."""
    return order.late(
        f"{order.label}: another thread or event loop is asking for this token, and had no answer within"
        f" {order.patience:g} s; is its event loop blocked?",
        retryable=True,
    )
