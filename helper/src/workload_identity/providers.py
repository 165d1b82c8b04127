"""Tokens of credentials that are not this package's, held for a bearer token provider."""

from __future__ import annotations

from workload_identity.cache import Held, TokenCache
from workload_identity.clock import SYSTEM
from workload_identity.credentials import Order, named_scopes
from workload_identity.edge import between
from workload_identity.options import Options
from workload_identity.steps import Ask, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from workload_identity.clock import Instant
    from workload_identity.steps import Flow

_STAGGER = 60
"""Seconds by which renewals are spread, so that not all pods of a deployment ask at once."""
_PATIENCE = 600


def order_of(credential: object, scopes: tuple[str, ...]) -> Order:
    """Return what a provider orders each time it is called.

    Args:
        credential: Anything with `get_token_info` or `get_token`, blocking or awaitable.
        scopes: What the token is for.

    Raises:
        ValueError: No scope.
    """
    named = named_scopes(scopes)
    cache = TokenCache()
    stagger = between(0, _STAGGER)
    return Order(
        f"bearer token provider for {' '.join(named)}",
        cache=cache,
        slot=cache.slot("provider", frozenset(named), SYSTEM.now()),
        way=None,
        clock=SYSTEM,
        options=Options({}),
        patience=_PATIENCE,
        flow=lambda _background: asking(credential, named, stagger),
    )


def asking(credential: object, scopes: tuple[str, ...], stagger: float) -> Flow[Held]:
    """Ask a credential and date what it gives.

    Args:
        credential: Whom to ask; what it raises comes out as it is.
        scopes: What the token is for.
        stagger: Seconds by which it is renewed later than it could be.
    """
    started = yield from now()
    answer: Any = yield Ask(credential, scopes)
    return dated(answer, started, stagger)


def dated(answer: Any, started: Instant, stagger: float = 0) -> Held:
    """Return a credential's answer as a token with its dates.

    Args:
        answer: An AccessTokenInfo or an AccessToken, of whatever library.
        started: When it was asked for.
        stagger: Seconds by which it is renewed later than it could be.
    """
    refresh_on = getattr(answer, "refresh_on", None)
    return Held(
        answer.token,
        answer.expires_on,
        started=started,
        lifetime=answer.expires_on - started.epoch,
        refresh_in=None if refresh_on is None else refresh_on - started.epoch,
        stagger=stagger,
        token_type=getattr(answer, "token_type", "Bearer"),
    )
