"""Entra's token endpoint: what is sent, and what an answer means. The body decides, whatever the status.

Sources: RFC 6749, sections 4.4 and 5.1; RFC 7523, section 2.2;
learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, third case.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from workload_identity.cache import Held
from workload_identity.steps import NewId, Send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workload_identity.refusals import Refusal
    from workload_identity.steps import Flow, Response

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_END_OF_TIME = 1e11
"""Seconds; a larger number is no lifetime and no date."""
_LONGEST_NUMBER = 20
_DATES = ("%m/%d/%Y %H:%M:%S +00:00", "%m/%d/%Y %I:%M:%S %p +00:00")
"""Of App Service's API of 2017, on Linux and on Windows."""


def token_url(authority: str, tenant_id: str) -> str:
    """Return where tokens of a tenant are asked for."""
    return f"{authority}/{tenant_id}/oauth2/v2.0/token"


def assertion_grant(
    client_id: str, scopes: tuple[str, ...], assertion: str, claims: str | None
) -> Mapping[str, str]:
    """Return the form that asks for a client's token with a signed assertion."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "scope": " ".join(scopes),
        "client_assertion": assertion,
        "client_assertion_type": ASSERTION_TYPE,
    }
    return {**form, "claims": claims} if claims else form


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


def judged(response: Response, *secrets: str) -> Held | Refusal:
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
    if isinstance(payload, dict) and payload.get("error") is None:
        try:
            return _granted(payload, response)
        except ValueError as failure:
            problem = f"unexpected response: {failure}"
    from workload_identity import refusals  # noqa: PLC0415 - hardly ever

    return refusals.refusal_of(response, payload if parsed else refusals.NOT_JSON, problem, *secrets)


def _granted(payload: dict[str, Any], response: Response) -> Held:
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
    """Return whole seconds: of a number, which is floored, or of a decimal text; None for None.

    Raises:
        ValueError: Anything else; the message does not quote it.
    """
    if value is None:
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
