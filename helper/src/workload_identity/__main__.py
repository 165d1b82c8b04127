"""What a program in this place would get: `python -m workload_identity explain`, or `token`.

For `kubectl exec` in a pod that does not get its token. A token itself is shown only with `--show-token`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from workload_identity.assertions import claims_of
from workload_identity.context import Asking
from workload_identity.credentials import named_scopes
from workload_identity.default import MEMBERS, DefaultAzureCredential
from workload_identity.errors import ClientAuthenticationError, is_unavailable
from workload_identity.placeholders import Placeholder
from workload_identity.redaction import redacted
from workload_identity.walking import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SCOPE = "https://management.azure.com/.default"
_WORKS, _FAILS, _MISUSE = 0, 1, 2
TOKEN, NOT_HERE, FAILED, LEFT_OUT = "token", "not here", "failed", "left out"


@dataclass(frozen=True, slots=True)
class Row:
    """What a member of the default chain answers.

    Attributes:
        member: Its class.
        answer: "token", "not here" (the chain goes on), "failed", or "left out" (it is not in the chain).
        chosen: The chain takes its token.
        seconds: How long it took.
        found: How it is configured; "" where it is not.
        message: Why there is no token.
        claims: Those of its token.
        stops: The chain asks nobody after it.
    """

    member: str
    answer: str
    chosen: bool = False
    seconds: float = 0
    found: str = ""
    message: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    stops: bool = False


def explained(chain: DefaultAzureCredential, scope: str) -> list[Row]:
    """Ask every member by itself, those too that the chain would not come to.

    Args:
        chain: The chain.
        scope: What a token is asked for.
    """
    rows = {
        name_of(member): _asked(member, scope, lenient=member in chain.lenient)
        for member in chain.credentials
    }
    said = [rows.get(member.name, Row(member.name, LEFT_OUT)) for member in MEMBERS]
    for place, row in enumerate(said):
        if row.answer == TOKEN:
            said[place] = Row(**{**asdict(row), "chosen": True})
        if row.answer == TOKEN or row.stops:
            break
    return said


def _asked(member: Any, scope: str, *, lenient: bool) -> Row:
    name = name_of(member)
    found = "" if isinstance(member, Placeholder) else repr(member)
    began = monotonic()
    try:
        with Asking(default=True):
            token = member.get_token(scope).token
    except Exception as failure:  # noqa: BLE001 - the chain would tell it too
        took = monotonic() - began
        unavailable = is_unavailable(failure)
        stops = not unavailable and not (lenient and isinstance(failure, ClientAuthenticationError))
        message = redacted(str(failure))
        answer = NOT_HERE if unavailable else FAILED
        return Row(name, answer, seconds=took, found=found, message=message, stops=stops)
    return Row(name, TOKEN, seconds=monotonic() - began, found=found, claims=dict(claims_of(token)))


def table(rows: Iterable[Row]) -> str:
    """Return the rows for a person: a line each, and below it what there is to say."""
    lines = [f"{'MEMBER':<36}{'ANSWER':<18}{'TIME':>9}"]
    for row in rows:
        answer = f"{row.answer}, taken" if row.chosen else row.answer
        time = "" if row.answer == LEFT_OUT else f"{row.seconds * 1000:.0f} ms"
        lines.append(f"{row.member:<36}{answer:<18}{time:>9}".rstrip())
        lines += [
            f"    {line}" for line in (row.found, *row.message.splitlines(), *_told(row.claims)) if line
        ]
        if row.stops:
            lines.append("    The chain stops here.")
    return "\n".join(lines)


def _told(claims: dict[str, Any]) -> list[str]:
    """Return the claims of a token, a line each; dates in words."""
    lines = []
    for name, value in claims.items():
        words = redacted(json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value)
        if name in {"exp", "iat", "nbf"} and isinstance(value, int | float):
            with suppress(ValueError, OverflowError, OSError):  # no date that there can be
                words = f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M:%S} UTC"
        lines.append(f"{name}: {words}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 when there is a token, 1 when not, 2 for misuse."""
    # Everything is told on the terminal already.
    logging.getLogger("workload_identity").addHandler(logging.NullHandler())
    given = _parser().parse_args(arguments)
    try:
        chain = DefaultAzureCredential()
        with chain:
            return _explain(chain, given) if given.command == "explain" else _token(chain, given)
    except ValueError as failure:
        sys.stderr.write(f"{failure}\n")
        return _MISUSE


def _explain(chain: DefaultAzureCredential, given: argparse.Namespace) -> int:
    rows = explained(chain, *named_scopes((given.scope,)))
    works = any(row.chosen for row in rows)
    if given.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        verdict = "" if works else "\nDefaultAzureCredential gets no token here."
        sys.stdout.write(f"{table(rows)}{verdict}\n")
    return _WORKS if works else _FAILS


def _token(chain: DefaultAzureCredential, given: argparse.Namespace) -> int:
    try:
        token = chain.get_token(given.scope, tenant_id=given.tenant)
    except ClientAuthenticationError as failure:
        sys.stderr.write(f"{failure}\n")
        return _FAILS
    claims = dict(claims_of(token.token))
    if given.json:
        shown: dict[str, Any] = {"expires_on": token.expires_on, "claims": claims}
        if given.show_token:
            shown["token"] = token.token
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    elif given.show_token:
        sys.stdout.write(f"{token.token}\n")
    else:
        told = _told(claims) or ["a token that says nothing about itself"]
        until = f"{datetime.fromtimestamp(token.expires_on, UTC):%Y-%m-%d %H:%M:%S} UTC"
        sys.stdout.write("\n".join([f"good until {until}", *told]) + "\n")
    return _WORKS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workload_identity",
        description="Say what token a program would get here from DefaultAzureCredential, and from whom.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser(
        "explain", help="ask each member of the chain: what it found, what it answers"
    )
    token = commands.add_parser("token", help="get a token and show its claims")
    for command in (explain, token):
        command.add_argument("scope", nargs="?", default=_SCOPE, help=f"what the token is for ({_SCOPE})")
        command.add_argument("--json", action="store_true", help="for programs")
    token.add_argument("--tenant", help="another tenant than the credential's own")
    token.add_argument("--show-token", action="store_true", help="show the token itself: a secret")
    return parser


if __name__ == "__main__":
    sys.exit(main())
