"""The flow of a chain: its members are asked in their order, until one gives a token or one fails.

A member that cannot even try is passed over; one that tried and failed ends the walk, as the next would hide
what is wrong with it.

Source: azure-identity 1.27.0, `ChainedTokenCredential`.
"""

from __future__ import annotations

from workload_identity import records
from workload_identity.context import IN_CHAIN, Asking
from workload_identity.errors import (
    Attempt,
    ClientAuthenticationError,
    CredentialUnavailableError,
    is_unavailable,
)
from workload_identity.redaction import redacted
from workload_identity.steps import Ask, now
from workload_identity.tokens import AccessToken, AccessTokenInfo
from workload_identity.values import Value, hidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from workload_identity.chain import Wish
    from workload_identity.clock import Instant
    from workload_identity.steps import Flow

_CARRIED = (
    "response",
    "error",
    "error_codes",
    "error_description",
    "suberror",
    "correlation_id",
    "trace_id",
    "claims",
    "retryable",
    "retry_after",
)
"""Fields of the error that ended a walk, which the chain's own error has too."""


class Won(Value):
    """The end of a walk: who answered what.

    Attributes:
        member: The credential that was asked last.
        answer: Its token, as the method that was called should return it.
        started: When it was asked.
        seconds: How long the whole walk took.
    """

    member: object
    answer: Any = hidden()
    started: Instant
    seconds: float


def walk(
    name: str,
    members: Sequence[object],
    wish: Wish,
    *,
    lenient: Collection[object] = (),
    default: bool = False,
    advice: str = "",
) -> Flow[Won]:
    """Ask the members in their order.

    Args:
        name: The chain's, for messages.
        members: Credentials of one family.
        wish: What is asked for.
        lenient: Members whose failure does not end the walk.
        default: The chain is DefaultAzureCredential.
        advice: What to do when no member can even try.

    Raises:
        ClientAuthenticationError: Nobody gave a token; its `attempts` say why, its cause is what ended the
            walk before the last member.
    """
    label = f"{name} for {' '.join(wish.scopes)}"
    inside = IN_CHAIN.get()
    began = yield from now()
    started = began
    attempts: list[Attempt] = []
    for member in members:
        try:
            with Asking(default=default):
                answer = yield from _answer(member, wish)
        except Exception as failure:  # noqa: BLE001 - the chain's error tells all of them
            moment = yield from now()
            went_on = is_unavailable(failure) or (
                member in lenient and isinstance(failure, ClientAuthenticationError)
            )
            seconds = moment.monotonic - started.monotonic
            attempts.append(Attempt(name_of(member), failure, seconds, went_on=went_on))
            started = moment
            if not went_on:
                break
            # Without its traceback, which would keep all that its frames hold.
            failure.__traceback__ = None
        else:
            moment = yield from now()
            won = Won(member, answer, started, moment.monotonic - began.monotonic)
            records.chosen(label, name_of(member), won.seconds, inside=inside)
            return won
    refusal = _refusal(label, attempts, advice)
    records.walked_in_vain(refusal, inside=inside)
    raise refusal from None if attempts[-1].went_on else attempts[-1].error


def _answer(member: object, wish: Wish) -> Flow[Any]:
    """Ask a member by the method it has; its answer gets the shape that the caller's method returns."""
    plain = wish.method == "get_token"
    if not plain and "pop" in wish.options and not hasattr(member, "get_token_info"):
        raise CredentialUnavailableError(
            "a proof-of-possession token was asked for; what has only get_token cannot give one"
        )
    answer: Any = yield Ask(member, wish.scopes, wish.options, wish.method)
    if answer is None:
        raise CredentialUnavailableError("a token was wanted, it gave None")
    if hasattr(member, wish.method):
        return answer
    kind = AccessToken if plain else AccessTokenInfo
    return kind(answer.token, answer.expires_on)


def name_of(member: object) -> str:
    """Return how users call a credential."""
    kind = type(member)
    ours = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
    return str(member._name()) if ours else kind.__name__  # type: ignore[attr-defined] # noqa: SLF001 - ours


def _refusal(label: str, attempts: Sequence[Attempt], advice: str) -> ClientAuthenticationError:
    last = attempts[-1]
    lines = [f"{label} failed: no member gave a token."]
    if last.went_on:
        lines += [_in_one(_line(attempt)) for attempt in attempts]
        lines.append(advice or "None of these can be used here: set up one of them.")
        return ClientAuthenticationError("\n".join(lines), attempts=attempts)
    lines.append(_line(last).replace("\n", "\n    "))
    lines += [_in_one(_line(attempt)) for attempt in attempts[:-1]]
    lines.append(
        f"{last.name} tried and failed, so no member after it was asked: repair it, or leave it out."
    )
    carried = {name: getattr(last.error, name) for name in _CARRIED if hasattr(last.error, name)}
    if not isinstance(last.error, ClientAuthenticationError):
        carried = {name: value for name, value in carried.items() if name == "response"}
    return ClientAuthenticationError("\n".join(lines), attempts=attempts, **carried)


def _line(attempt: Attempt) -> str:
    # Some begin with their own name.
    return f"  {attempt.name}: {_words(attempt.error).removeprefix(f'{attempt.name}: ')}"


def _in_one(text: str) -> str:
    return "  " + " ".join(text.split())


def _words(failure: BaseException) -> str:
    # azure-core appends what its errors found to their `str`.
    words = getattr(failure, "message", None) or str(failure)
    return redacted(str(words)) or type(failure).__name__
