"""Answers of the token endpoint that are no token: what they say, redacted, for a person and for a program.

Loaded when there is one. Source: RFC 6749, section 5.2.
"""

from __future__ import annotations

import json
import re

from workload_identity.errors import ClientAuthenticationError, FailedResponse
from workload_identity.redaction import excerpt, redacted
from workload_identity.retry import asked_pause
from workload_identity.values import NOTHING, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.steps import Response

_CODE = re.compile(r"AADSTS(\d{1,9})")
_CORRELATION = re.compile(r"Correlation ID: ([0-9A-Fa-f-]{36})")
_OK = 200
NOT_JSON = object()
"""In place of the content of an answer that has none, or none that can be read."""


class Refusal(Value):
    """An answer that is no token.

    Attributes:
        problem: What was found instead, for a person.
        fields: What `ClientAuthenticationError` has fields for.
    """

    problem: str
    fields: Mapping[str, Any] = NOTHING

    @property
    def codes(self) -> list[int]:
        """Entra's numbers."""
        codes: list[int] = self.fields["error_codes"]
        return codes


def refusal_of(response: Response, payload: object, problem: str, *secrets: str) -> Refusal:
    """Return what is wrong with an answer.

    Args:
        response: The answer.
        payload: Its JSON; `NOT_JSON` where there is none.
        problem: What is wrong with a JSON object that states no error.
        secrets: What was sent and must not be quoted, should the answer have it.
    """
    text = response.body.decode("utf-8", "replace")
    fields: dict[str, Any] = {
        "response": FailedResponse(
            response.status,
            redacted(response.reason, *secrets),
            {name: redacted(value, *secrets) for name, value in response.headers.items()},
            redacted(text, *secrets),
        ),
        "retryable": response.status in {408, 429} or response.status >= 500,  # noqa: PLR2004 - HTTP's own
        "retry_after": asked_pause(response.headers, response.started.epoch),
        "error_codes": [],
    }
    if payload is NOT_JSON:
        return Refusal(_no_json(response, text, *secrets), fields)
    if not isinstance(payload, dict):
        found = "nothing" if payload is None else f"a JSON {_KINDS[type(payload)]}"
        return Refusal(f"a JSON object was wanted, found {found} (status {response.status})", fields)
    if payload.get("error") or isinstance(payload.get("message"), str):
        return _stated(payload, response, fields, *secrets)
    return Refusal(f"{problem} (status {response.status}; fields: {_names(payload, *secrets)})", fields)


def no_oidc_token(response: Response, connection: str, *secrets: str) -> ClientAuthenticationError:
    """Return the error for an answer of Azure Pipelines that has no token.

    Args:
        response: The answer.
        connection: The service connection's id.
        secrets: What was sent and must not be quoted, should the answer have it.
    """
    try:
        payload: object = json.loads(response.body)
    except (ValueError, RecursionError):
        payload = NOT_JSON
    fields = {**refusal_of(response, payload, "", *secrets).fields}
    if response.status != _OK:
        found = f"found {excerpt(response.body.decode('utf-8', 'replace'), *secrets) or 'no content'!r}"
    elif isinstance(payload, dict):
        found = f"wanted oidcToken, found fields: {_names(payload, *secrets)}"
    else:
        found = "wanted a JSON object with oidcToken, found something else"
    return ClientAuthenticationError(
        f"Azure Pipelines gave no OIDC token for service connection {connection!r} (status"
        f" {response.status}): {found}. Give system_access_token the value of System.AccessToken of the"
        " running job, which ends with it, and service_connection_id the id of a connection that this"
        " pipeline may use.",
        **fields,
    )


_KINDS = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}


def _no_json(response: Response, text: str, *secrets: str) -> str:
    kind = redacted(response.headers.get("content-type", "none"), *secrets)
    quoted = excerpt(text, *secrets)
    found = f"beginning {quoted!r}" if quoted else "without content"
    target = response.headers.get("location")
    turned = f" It redirects to {_site(target, *secrets)}, which is not followed." if target else ""
    return (
        f"a JSON object was wanted, found an answer with status {response.status} and content type {kind!r},"
        f" {found}.{turned} Is it the token service that answers there, or a proxy or portal in between?"
    )


def _site(url: str, *secrets: str) -> str:
    # The rest may hold anything, and a secret with slashes in it may begin before.
    return "/".join(redacted(url, *secrets).split("/")[:3])


def _stated(payload: dict[str, Any], response: Response, fields: dict[str, Any], *secrets: str) -> Refusal:
    error: Any = payload.get("error")
    description: Any = payload.get("error_description")
    if error is None:  # as Azure's hosts of managed identities say it
        error, description = payload.get("code") or response.status, payload["message"]
    elif isinstance(error, dict):
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
    safe = isinstance(claims, str) and "eyJ" not in claims and redacted(claims, *secrets) == redacted(claims)
    fields["claims"] = claims if safe else None
    told = _CORRELATION.search(said)
    fields["correlation_id"] = fields["correlation_id"] or (told and told[1])
    fields["error_codes"] = fields["error_codes"] or [int(code) for code in _CODE.findall(said)]
    fields["trace_id"] = fields["trace_id"] or fields["response"].headers.get("x-ms-request-id")
    return Refusal(f"{fields['error']}: {said or 'no description'}", fields)


def _names(payload: dict[str, Any], *secrets: str) -> str:
    return ", ".join(sorted(redacted(name, *secrets)[:40] for name in payload)[:20]) or "none"
