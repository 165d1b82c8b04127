"""Edge: performs steps, blocking."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from workload_identity.edge import between, perform_at_once
from workload_identity.steps import Ask, Send, Unreachable, Wait

if TYPE_CHECKING:
    import httpx

    from workload_identity.clock import Clock
    from workload_identity.options import Options
    from workload_identity.steps import Response, Step
    from workload_identity.token_proxy import TokenProxy


class Performer:
    """Performs the steps of one flow; a context manager, as it may have a connection open."""

    def __init__(self, options: Options, clock: Clock, proxy: TokenProxy | None) -> None:
        self._options = options
        self._proxy = proxy
        self._clock = clock
        self._client: httpx.Client | None = None
        self._foreign = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None and not self._foreign:
            self._client.close()

    def __call__(self, step: Step) -> object:
        """Perform a step."""
        match step:
            case Send():
                return self._send(step)
            case Wait(shortest, longest):
                time.sleep(between(shortest, longest))
                return None
            case Ask(credential, scopes):
                return _ask(credential, scopes)
        return perform_at_once(step, self._clock)

    def _send(self, step: Send) -> Response:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        started = self._clock.now()
        left = step.deadline - started.monotonic
        if left <= 0:
            raise http.too_late(self._options)
        body = bytearray()
        before = sys.exception()
        try:
            with self._connect().stream(
                "POST",
                step.url,
                data=dict(step.form),
                headers=http.headers(self._options, step.headers),
                timeout=http.timeouts(self._options, left),
                follow_redirects=False,
                extensions=http.extensions(self._proxy),
            ) as answer:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > http.LARGEST_ANSWER:
                        raise http.too_long()
                    if self._clock.monotonic() > step.deadline:
                        raise http.too_late(self._options)
                return http.response_of(
                    answer.status_code, answer.reason_phrase, answer.headers, body, started
                )
        except Unreachable:
            raise
        except Exception as failure:
            raise http.unreachable(failure, self._options, before) from failure

    def _connect(self) -> httpx.Client:
        from workload_identity import http  # noqa: PLC0415 - imports httpx

        if self._client is None:
            given: Any = self._options.transport
            self._foreign = given is not None
            if hasattr(given, "stream"):
                self._client = given
            else:
                self._client = http.httpx.Client(
                    **http.client_arguments(self._options, self._proxy, http.httpx.HTTPTransport)
                )
        return self._client


def _ask(credential: Any, scopes: tuple[str, ...]) -> object:
    if hasattr(credential, "get_token_info"):
        return credential.get_token_info(*scopes)
    return credential.get_token(*scopes)


def fits(transport: Any) -> bool:
    """Tell whether this is an httpx transport or client that blocks."""
    return hasattr(transport, "handle_request") or (
        hasattr(transport, "stream") and hasattr(transport, "__enter__")
    )
