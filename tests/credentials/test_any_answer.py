"""Whatever a token endpoint answers, a caller gets a token or one of our errors, and sees no secret."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workload_identity
import workload_identity.aio
from workload_identity import AccessToken, ClientAuthenticationError

SCOPE = "https://vault.azure.net/.default"
SECRET = "planted-secret"
pytestmark = pytest.mark.usefixtures("pod")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from(
    [
        "access_token",
        "expires_in",
        "expires_on",
        "refresh_in",
        "token_type",
        "error",
        "error_description",
        "error_codes",
        "correlation_id",
        "trace_id",
        "claims",
        "suberror",
    ]
)
secrets = st.dictionaries(st.sampled_from(["access_token", "refresh_token", "id_token"]), st.just(SECRET))
objects = st.tuples(st.dictionaries(names, values, max_size=7), secrets).map(
    lambda pair: json.dumps({**pair[0], **pair[1]}).encode()
)
cut = objects.flatmap(lambda body: st.integers(0, len(body)).map(lambda length: body[:length]))
bodies = st.binary(max_size=80) | objects | cut | values.map(lambda value: json.dumps(value).encode())
headers = st.dictionaries(
    st.sampled_from(["retry-after", "content-type", "location", "x-ms-request-id", "content-encoding"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
    max_size=3,
)
LIMITS = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def blocking(transport: httpx.MockTransport) -> AccessToken:
    """Ask, blocking."""
    return workload_identity.WorkloadIdentityCredential(transport=transport, retry_total=0).get_token(SCOPE)


def awaiting(transport: httpx.MockTransport) -> AccessToken:
    """Ask, awaiting."""

    async def ask() -> AccessToken:
        async with workload_identity.aio.WorkloadIdentityCredential(
            transport=transport, retry_total=0
        ) as credential:
            return await credential.get_token(SCOPE)

    return asyncio.run(ask())


@LIMITS
@given(body=bodies, status=st.integers(200, 599), sent=headers)
@pytest.mark.parametrize("ask", [blocking, awaiting])
def test_token_or_error_of_ours(
    ask: Callable[[httpx.MockTransport], AccessToken],
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    status: int,
    sent: dict[str, str],
) -> None:
    """Nothing else comes out, and the planted secret only as a token."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers=sent)

    caplog.clear()
    shown: list[Any]
    with caplog.at_level(logging.DEBUG):
        try:
            token = ask(httpx.MockTransport(answer))
            shown = [repr(token)]
        except ClientAuthenticationError as failure:
            shown = [str(failure), repr(failure), repr(failure.response)]
    shown += [record.getMessage() for record in caplog.records]

    for text in shown:
        assert SECRET not in text
        text.encode()
