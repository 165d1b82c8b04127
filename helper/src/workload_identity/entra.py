"""Entra's token endpoint: what is sent, how an answer is judged, and the error for a refusal.

Every grant goes this way: a credential says what is in its form, `ask` does the rest. The body of an answer
decides, whatever the status.

Sources: RFC 6749, sections 4 to 6; RFC 7523, section 2.2;
learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and its neighbours.
"""

from __future__ import annotations

import json
import math

from workload_identity.authority import regional
from workload_identity.cache import Held
from workload_identity.context import IN_CHAIN
from workload_identity.retry import persistently
from workload_identity.steps import NewId, Send, now
from workload_identity.values import NOTHING, Value, hidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.errors import ClientAuthenticationError
    from workload_identity.options import Options
    from workload_identity.refusals import Refusal
    from workload_identity.steps import Flow, Response
    from workload_identity.token_proxy import TokenProxy

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SECRET = (
    "client_assertion",
    "client_secret",
    "assertion",
    "refresh_token",
    "code",
    "code_verifier",
    "device_code",
    "password",
)
"""Members of a form that nobody may see."""
_LONGEST_PAUSE = 60
"""Seconds; a server that asks for a longer pause is not waited for while a good token is held, or a chain
has others to ask."""
_TRANSIENT = frozenset({70021, 90061, 50166})
_END_OF_TIME = 1e11
"""Seconds; a larger number is no lifetime and no date."""
_LONGEST_NUMBER = 20
_DATES = ("%m/%d/%Y %H:%M:%S +00:00", "%m/%d/%Y %I:%M:%S %p +00:00")
"""Of App Service's API of 2017, on Linux and on Windows."""


class Grant(Value):
    """A request to a tenant's token endpoint, and what an error about it should know.

    Attributes:
        authority: The token service, as `normal_authority` returns it.
        tenant_id: Whose token endpoint.
        client_id: Who asks.
        scopes: What for.
        form: The grant type and its proof. `client_id`, `scope` and `claims` need not be in it; what is wins.
        claims: To be sent, as `declared_claims` returns them.
        proof: How the client proves who it is, as `cures.Case` has it.
        stated: What is known of that proof and is no secret, as `cures.Case.claims` has it.
        region: The region whose endpoint is asked, "" for the global one.
        proxy: The token proxy that is asked in Entra's place, if any.
    """

    authority: str
    tenant_id: str
    client_id: str
    scopes: tuple[str, ...]
    form: Mapping[str, str] = hidden()
    claims: str | None = None
    proof: str = "pod"
    stated: Mapping[str, Any] = NOTHING
    region: str = ""
    proxy: TokenProxy | None = None

    def address(self) -> str:
        """Return where it is sent."""
        url = token_url(regional(self.authority, self.region), self.tenant_id)
        return url if self.proxy is None else self.proxy.address(url)

    def whole_form(self) -> Mapping[str, str]:
        """Return what is sent; holds secrets."""
        form = {"client_id": self.client_id, "scope": " ".join(self.scopes), **self.form}
        return {**form, "claims": self.claims} if self.claims else form

    def secrets(self) -> tuple[str, ...]:
        """Return what must not be quoted, should an answer repeat it."""
        return tuple(self.form[name] for name in _SECRET if self.form.get(name))


class Granted(Value):
    """A token, and what came with it.

    Attributes:
        held: The access token.
        payload: The whole answer; holds secrets.
    """

    held: Held
    payload: Mapping[str, Any] = hidden()

    @property
    def refresh_token(self) -> str | None:
        """What gets the next token without the first proof; a secret."""
        return _text(self.payload.get("refresh_token"))

    @property
    def id_claims(self) -> Mapping[str, Any]:
        """The claims of the id token, unverified as it came from Entra itself over TLS; {} without one."""
        from workload_identity.assertions import claims_of  # noqa: PLC0415 - few flows ask for an identity

        return claims_of(_text(self.payload.get("id_token")) or "")

    @property
    def account(self) -> str | None:
        """Whose token it is: "uid.utid" of the client_info, else the id token's subject, else None."""
        from workload_identity.assertions import json_object  # noqa: PLC0415 - as above

        info = json_object(_text(self.payload.get("client_info")) or "") or {}
        uid, utid = _text(info.get("uid")), _text(info.get("utid"))
        return f"{uid}.{utid}" if uid and utid else _text(self.id_claims.get("sub"))


def token_url(authority: str, tenant_id: str) -> str:
    """Return where tokens of a tenant are asked for; of ADFS too, as azure-identity's aio family does."""
    return f"{authority}/{tenant_id}/oauth2/v2.0/token"


def by_assertion(assertion: str) -> Mapping[str, str]:
    """Return the members of a form by which a client proves with an assertion who it is."""
    return {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}


def ask(
    grant: Grant, options: Options, *, deadline: float, background: bool = False
) -> Flow[Granted | Refusal]:
    """Send a grant, again where that may help, and judge the answer.

    Args:
        grant: What is asked.
        options: How requests are sent.
        deadline: When nobody waits any more, by the monotonic clock.
        background: Nobody waits for this, a good token is held.

    Raises:
        ClientAuthenticationError: No answer came.
    """
    request = yield from token_request(grant.address(), grant.whole_form(), deadline)
    longest_pause = _LONGEST_PAUSE if background or IN_CHAIN.get() else math.inf
    response = yield from persistently(request, options, longest_pause=longest_pause, proxy=grant.proxy)
    return judged(response, *grant.secrets())


def granted(grant: Grant, options: Options, *, background: bool = False) -> Flow[Granted]:
    """Do the same for a grant that is tried once.

    Raises:
        ClientAuthenticationError: There is no token to be had.
    """
    start = yield from now()
    answer = yield from ask(grant, options, deadline=start.monotonic + options.timeout, background=background)
    if isinstance(answer, Granted):
        return answer
    moment = yield from now()
    raise refused(answer, grant, moment.epoch)


def refused(answer: Refusal, grant: Grant, epoch: float) -> ClientAuthenticationError:
    """Return the error for an answer: what Entra said, what it means here, what to change.

    Args:
        answer: What Entra said.
        grant: What was asked.
        epoch: Now, in seconds since the epoch.
    """
    from workload_identity.cures import Case, cure  # noqa: PLC0415 - hardly ever
    from workload_identity.errors import ClientAuthenticationError  # noqa: PLC0415

    case = Case(
        client_id=grant.client_id,
        tenant_id=grant.tenant_id,
        authority=grant.authority,
        scopes=grant.scopes,
        claims=grant.stated,
        description=answer.fields.get("error_description") or "",
        epoch=epoch,
        proof=grant.proof,
    )
    host = grant.address().partition("://")[2].partition("/")[0]
    fields = {**answer.fields}
    fields["retryable"] = fields["retryable"] or not _TRANSIENT.isdisjoint(answer.codes)
    lines = [
        (
            f"no token of client {grant.client_id} in tenant {grant.tenant_id} for {' '.join(grant.scopes)}"
            f" from {host}: {answer.problem}"
        ),
        cure(answer.codes, case),
    ]
    if fields["retry_after"] is not None:
        lines.append(f"The token service asks to wait {math.ceil(fields['retry_after'])} s.")
    ids = [("correlation id", fields.get("correlation_id")), ("trace id", fields.get("trace_id"))]
    lines.append(", ".join(f"{name} {value}" for name, value in ids if value and value not in answer.problem))
    return ClientAuthenticationError("\n".join(line for line in lines if line), **fields)


def token_request(url: str, form: Mapping[str, str], deadline: float) -> Flow[Send]:
    """Return a request with an id of its own, which Entra repeats in its answer and its logs."""
    request_id: str = yield NewId()
    headers = {
        "Accept": "application/json",
        "client-request-id": request_id,
        "return-client-request-id": "true",
        "x-ms-client-request-id": request_id,
    }
    return Send(url, form, headers, deadline)


def judged(response: Response, *secrets: str) -> Granted | Refusal:
    """Return the token of an answer, or what is wrong with it.

    A lifetime that is over already is no fault: this machine's clock may be fast.

    Args:
        response: The answer.
        secrets: What was sent and must not be quoted, should the answer have it.
    """
    problem = ""
    payload: object = None
    parsed = True
    try:
        payload = json.loads(response.body)
    except (ValueError, RecursionError):
        parsed = False
    if isinstance(payload, dict) and not payload.get("error"):
        try:
            return Granted(_held(payload, response), payload)
        except ValueError as failure:
            problem = f"unexpected response: {failure}"
    from workload_identity import refusals  # noqa: PLC0415 - hardly ever

    return refusals.refusal_of(response, payload if parsed else refusals.NOT_JSON, problem, *secrets)


def _held(payload: dict[str, Any], response: Response) -> Held:
    """Return the token; ValueError says what is wrong with its answer."""
    token = payload.get("access_token")
    if (
        not isinstance(token, str)
        or not token
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        raise ValueError("access_token was wanted, found none that is usable")
    lasts = seconds(payload.get("expires_in"))
    ends = moment(payload.get("expires_on"))
    if lasts is None and ends is None:
        raise ValueError("expires_in or expires_on was wanted, found neither")
    kind = payload.get("token_type")
    start = response.started
    return Held(
        token,
        ends if ends is not None else int(start.epoch) + (lasts or 0),
        started=start,
        # Our own clock counts, where it can: the token service's may differ from it.
        lifetime=lasts if lasts is not None else (ends or 0) - start.epoch,
        refresh_in=seconds(payload.get("refresh_in")),
        token_type=kind if isinstance(kind, str) and kind.isalnum() else "Bearer",
    )


def seconds(value: object) -> int | None:
    """Return whole seconds: of a number, which is floored, or of a decimal text; None for None, or no text.

    Raises:
        ValueError: Anything else; the message does not quote it.
    """
    if value is None or value == "":  # as some identity endpoints write what they do not say
        return None
    number: float = math.nan
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    if not -_END_OF_TIME < number < _END_OF_TIME:
        raise ValueError("a number of seconds was wanted, found something else")
    return math.floor(number)


def moment(value: object) -> int | None:
    """Return whole seconds since the epoch: of what `seconds` takes, or of a date in UTC; None for None.

    Raises:
        ValueError: Anything else; the message does not quote it.
    """
    if not isinstance(value, str) or "/" not in value:
        return seconds(value)
    from calendar import timegm  # noqa: PLC0415 - hardly any server sends dates
    from time import strptime  # noqa: PLC0415

    for form in _DATES:
        try:
            return timegm(strptime(value, form))
        except ValueError:
            continue
    raise ValueError("a date such as '11/21/2026 13:05:00 +00:00' was wanted, found something else")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
