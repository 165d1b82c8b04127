"""Entra's own errors: one table, from AADSTS code to OAuth error, HTTP status and text.

Codes, OAuth errors and statuses are those that Entra is seen to answer. The texts are our own, in its
manner, so that codes and quoted values are found where Entra has them.

Source: learn.microsoft.com/entra/identity-platform/reference-error-codes and answers quoted in public
reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class _Kind:
    error: str
    status: int
    text: str


def _all(error: str, status: int, texts: Mapping[int, str]) -> dict[int, _Kind]:
    return {code: _Kind(error, status, text) for code, text in texts.items()}


_UNMATCHED = "No matching federated identity record found for presented assertion"
_COMPARE = (
    "Compare issuer, subject and audience of the federated identity credential with the presented assertion."
    " https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
)
_UNREACHED = "Request to External OIDC endpoint failed. URL: '{url}'."
_ELSEWHERE = "Either it was never added there, or the request went to the wrong tenant."

_KINDS: Mapping[int, _Kind] = MappingProxyType(
    _all(
        "invalid_request",
        400,
        {
            # the form
            900144: "The request body must contain the following parameter: '{name}'.",
            9000411: "The request is malformed: parameter '{name}' appears more than once.",
            90100: "Parameter '{name}' is empty or not valid. Reason: {reason}.",
            900561: "The endpoint takes POST requests only, and received a {method} request.",
            # the tenant
            90002: "Tenant '{tenant}' not found. Check the tenant ID, and that it belongs to this cloud.",
            900023: "Tenant identifier '{tenant}' is neither a GUID nor a valid DNS name.",
            50059: "No tenant-identifying information found: '{tenant}' stands for tenants of any kind.",
            # the assertion
            50027: "JWT token is invalid or malformed. Reason: {reason}.",
            5002738: "Invalid JWT token: '{algorithm}' is no supported signature algorithm, 'RS256' is.",
            70021: f"{_UNMATCHED}. Assertion Issuer: '{{issuer}}'. Assertion Subject: '{{subject}}'."
            f" Assertion Audience: '{{audience}}'. {_COMPARE}",
            # the issuer's documents
            90061: f"{_UNREACHED} Reason: {{reason}}.",
            50166: f"{_UNREACHED} Reason: {{reason}}.",
            501661: f"{_UNREACHED} Status: {{status}}.",
            900612: "The key set at '{url}' could not be parsed. Reason: {reason}.",
        },
    )
    | _all(
        "invalid_client",
        401,
        {
            7000215: "Invalid client secret provided for application '{client_id}'.",
            7000216: "Grant type '{grant}' requires 'client_assertion', 'client_secret' or 'request'.",
            7000218: "The request body must contain 'client_assertion' or 'client_secret'.",
            700024: "Client assertion is not within its valid time range. Current time: {now}, assertion"
            " valid from {start}, expiry time of assertion {end}.",
            700027: "{signer} does not verify the client assertion. [Reason - {reason}].",
            7000222: "The client secret keys of application '{client_id}' are expired.",
            700021: "The client assertion is of application '{found}', 'client_id' is '{client_id}'.",
            700023: "The client assertion's audience '{found}' is not the realm's '{wanted}'.",
            700025: "The client is public: neither 'client_assertion' nor 'client_secret' is wanted.",
            500112: "The reply address '{found}' is not '{registered}', with which the authorization code was"
            " requested.",
            # Entra itself keeps to itself what is registered; whoever tries things here may know.
            700211: f"{_UNMATCHED} issuer '{{issuer}}', registered '{{registered}}'. {_COMPARE}",
            700212: f"{_UNMATCHED} audience '{{audience}}', registered '{{registered}}'. {_COMPARE}",
            700213: f"{_UNMATCHED} subject '{{subject}}', registered '{{registered}}'. {_COMPARE}",
        },
    )
    | _all(
        "unauthorized_client",
        400,
        {700016: f"Application with identifier '{{client_id}}' was not found in '{{tenant}}'. {_ELSEWHERE}"},
    )
    | _all(
        "invalid_grant",
        400,
        {
            50013: "The assertion fails signature validation. [Reason - {reason}].",
            500131: "The assertion's audience '{audience}' is not its presenter, client '{client_id}'.",
            500133: "The assertion is not within its valid time range. Current time: {now}, expiry time of"
            " assertion {end}.",
            50034: "The user account '{username}' does not exist in the directory.",
            50126: "Error validating credentials due to invalid username or password.",
            501481: "The code_verifier does not match the code_challenge of the authorization request.",
            50173: "The grant has been revoked. A new sign-in is needed.",
            54005: "The authorization code was redeemed already.",
            70000: "The value of '{name}' is not valid.",
            70008: "The authorization code or refresh token has expired.",
        },
    )
    | _all(
        "unsupported_grant_type",
        400,
        {70003: "Grant type '{grant}' is not supported."},
    )
    | _all(
        "invalid_scope",
        400,
        {
            70011: "The input parameter 'scope' is not valid: one scope wanted, '{scope}' found.",
            1002012: "Scope '{scope}' is not valid. The client credentials grant takes a resource identifier"
            " followed by /.default.",
        },
    )
    | _all(
        "invalid_resource",
        400,
        {500011: f"The resource principal named '{{resource}}' was not found in '{{tenant}}'. {_ELSEWHERE}"},
    )
    | _all("interaction_required", 400, {50076: "A second factor is required: multi-factor authentication."})
    | _all("authorization_pending", 400, {70016: "Authorization is pending. Continue polling."})
    | _all("authorization_declined", 400, {65004: "The user said no."})
    | _all("expired_token", 400, {70019: "The verification code has expired."})
    | _all("temporarily_unavailable", 503, {90033: "A transient error has occurred. Please try again."})
    | _all("temporarily_unavailable", 429, {90055: "Too many requests. Please wait."})
)


class RequestRefused(Exception):  # noqa: N818 - what happened
    """Entra says no.

    Attributes:
        code: Entra's number, the digits after "AADSTS".
        error: OAuth's word for it, such as "invalid_client".
        status: HTTP status of the answer.
        text: What went wrong, without Entra's code and ids.
    """

    def __init__(self, code: int, **values: object) -> None:
        kind = _KINDS[code]
        self.code = code
        self.error = kind.error
        self.status = kind.status
        self.text = kind.text.format(**values)
        super().__init__(f"AADSTS{code}: {self.text}")

    def body(self, *, authority: str, now: float, trace_id: str, correlation_id: str) -> dict[str, Any]:
        """Return the JSON that Entra answers; `now` in seconds since the epoch."""
        timestamp = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%SZ}"
        return {
            "error": self.error,
            "error_description": f"AADSTS{self.code}: {self.text} Trace ID: {trace_id}"
            f" Correlation ID: {correlation_id} Timestamp: {timestamp}",
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{authority}/error?code={self.code}",
        }
