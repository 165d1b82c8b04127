"""Entra's token endpoint: what is sent, and what an answer means. The body decides, whatever the status.

Sources: RFC 6749, sections 4.4, 5.1 and 5.2; RFC 7523, section 2.2;
learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow, third case.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workload_identity.cache import Held
from workload_identity.errors import FailedResponse
from workload_identity.redaction import excerpt, redacted
from workload_identity.retry import asked_pause
from workload_identity.steps import NewId, Send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workload_identity.steps import Flow, Response

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_CODE = re.compile(r"AADSTS(\d{1,9})")
_END_OF_TIME = 1e11
"""Seconds; a larger number is no lifetime and no date."""
_LONGEST_NUMBER = 20


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no token.

    Attributes:
        problem: What was found instead, for a person.
        fields: What `ClientAuthenticationError` has fields for.
    """

    problem: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def codes(self) -> list[int]:
        """Entra's numbers."""
        codes: list[int] = self.fields["error_codes"]
        return codes


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
    text = response.body.decode("utf-8", "replace")
    fields: dict[str, Any] = {
        "response": FailedResponse(
            response.status,
            redacted(response.reason),
            {name: redacted(value, *secrets) for name, value in response.headers.items()},
            redacted(text, *secrets),
        ),
        "retryable": response.status in {408, 429} or response.status >= 500,  # noqa: PLR2004 - HTTP's own
        "retry_after": asked_pause(response.headers, response.started.epoch),
        "error_codes": [],
    }
    try:
        payload = json.loads(response.body)
    except (ValueError, RecursionError):
        return Refusal(_no_json(response, text, *secrets), fields)
    if not isinstance(payload, dict):
        found = "nothing" if payload is None else f"a JSON {_KINDS[type(payload)]}"
        return Refusal(f"a JSON object was wanted, found {found} (status {response.status})", fields)
    if payload.get("error") is not None:
        return _stated(payload, response, fields, *secrets)
    return _granted(payload, response, fields)


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _no_json(response: Response, text: str, *secrets: str) -> str:
    kind = redacted(response.headers.get("content-type", "none"))
    quoted = excerpt(text, *secrets)
    found = f"beginning {quoted!r}" if quoted else "without content"
    target = response.headers.get("location")
    turned = f" It redirects to {_site(target)}, which is not followed." if target else ""
    return (
        f"a JSON object was wanted, found an answer with status {response.status} and content type {kind!r},"
        f" {found}.{turned} Is it Entra that answers there, or a proxy or portal in between?"
    )


def _site(url: str) -> str:
    return redacted("/".join(url.split("/")[:3]))


def _stated(payload: dict[str, Any], response: Response, fields: dict[str, Any], *secrets: str) -> Refusal:
    error: Any = payload["error"]
    description: Any = payload.get("error_description")
    if isinstance(error, dict):
        error, description = error.get("code"), error.get("message")
    said = redacted(str(description), *secrets) if isinstance(description, str) else ""
    codes = payload.get("error_codes")
    fields |= {
        "error": redacted(str(error), *secrets),
        "error_description": said or None,
        "error_codes": [code for code in codes if type(code) is int] if isinstance(codes, list) else [],
    }
    for name in ("suberror", "correlation_id", "trace_id"):
        value = payload.get(name)
        fields[name] = redacted(value, *secrets) if isinstance(value, str) and value else None
    claims = payload.get("claims")
    # To be sent back as it is: a challenge has a member named access_token, which is no token.
    fields["claims"] = (
        claims if isinstance(claims, str) and not any(map(claims.__contains__, secrets)) else None
    )
    fields["error_codes"] = fields["error_codes"] or [int(code) for code in _CODE.findall(said)]
    fields["trace_id"] = fields["trace_id"] or response.headers.get("x-ms-request-id")
    return Refusal(f"{fields['error']}: {said or 'no description'}", fields)


def _granted(payload: dict[str, Any], response: Response, fields: dict[str, Any]) -> Held | Refusal:
    token = payload.get("access_token")
    if (
        not isinstance(token, str)
        or not token
        or not token.isascii()
        or not token.isprintable()
        or " " in token
    ):
        return Refusal(
            "an answer with an access_token was wanted, found one without a usable one (status"
            f" {response.status}; fields: {_names(payload)})",
            fields,
        )
    try:
        lasts = seconds(payload.get("expires_in"))
        ends = seconds(payload.get("expires_on"))
        refresh = seconds(payload.get("refresh_in"))
    except ValueError as failure:
        return Refusal(f"unexpected response: {failure} (status {response.status})", fields)
    start = int(response.started.epoch)
    if lasts is None and ends is None:
        return Refusal(
            "unexpected response: expires_in or expires_on was wanted, found neither (status"
            f" {response.status}; fields: {_names(payload)})",
            fields,
        )
    kind = payload.get("token_type")
    # Our own clock counts, where it can: the token service's may differ from it.
    lifetime = lasts if lasts is not None else (ends or 0) - response.started.epoch
    return Held(
        token,
        ends if ends is not None else start + (lasts or 0),
        started=response.started,
        lifetime=lifetime,
        refresh_in=refresh,
        token_type=kind if isinstance(kind, str) and kind.isalnum() else "Bearer",
    )


def _names(payload: dict[str, Any]) -> str:
    return redacted(", ".join(sorted(str(name)[:40] for name in payload)[:20])) or "none"


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
