"""Edge: the servers. Reviews over TLS; probes and metrics in the clear."""

import asyncio
import logging
import os
import re
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Final, TypeAlias

import kopf
from aiohttp import web

from workload_identity_operator import contract, http1, reviews
from workload_identity_operator.admission import Answer
from workload_identity_operator.health import Health
from workload_identity_operator.http1 import Request, Response
from workload_identity_operator.identity import is_guid
from workload_identity_operator.metrics import PATHS, Metrics
from workload_identity_operator.reviews import NoReview, Review
from workload_identity_operator.settings import Address

_log = logging.getLogger(__name__)

_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_LONGEST_LOGGED: Final = 500
"""Characters; a name has 253 at most."""

Admit: TypeAlias = Callable[[Review, bool], Awaitable[Answer]]
"""Answers a review; False for one of a pod that has not asked to be wired."""


class AddressTaken(Exception):  # noqa: N818 - what is wrong
    """A server cannot listen where it should; the message names the address and why."""


class AdmissionServer:
    """Answers reviews over TLS; kopf runs it as its admission server.

    It answers by itself: kopf's own path copies and compares the whole pod, which takes a
    hundred times as long as computing the patch.

    Attributes:
        address: Where it listens, once it is known that it can.
    """

    def __init__(
        self, address: Address, minimum: ssl.TLSVersion, admit: Admit, health: Health, metrics: Metrics
    ) -> None:
        """Take the address, so that whoever has it already is noticed before anything is started.

        Raises:
            AddressTaken: Someone has it.
        """
        self._socket = _bound(address)
        self.address = _address_of(self._socket, address)
        self._admit = admit
        self._health = health
        self._metrics = metrics
        self._certified = asyncio.Event()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = minimum

    def load(self, certificate: bytes, key: bytes) -> None:
        """Serve this certificate (PEM) on new connections; those that stand go on."""
        with _as_file(certificate + key) as path:
            self._tls.load_cert_chain(path)
        self._certified.set()
        self._health.met("certificate")

    async def __call__(self, _: kopf.WebhookFn) -> AsyncIterator[kopf.WebhookClientConfig]:
        """Listen from the first certificate on, until cancelled."""
        await self._certified.wait()
        async with http1.serving(
            self._answer,
            self._refuse,
            contract.MAX_REVIEW_BYTES,
            self._socket,
            self._tls,
            Response(503, reviews.unreadable(503, "this replica ends, try again")),
            leaving=lambda: self._health.draining,
        ):
            self._health.met("server")
            _log.info(
                "reviews are answered", extra={"address": f"https://{self.address}{contract.WEBHOOK_PATH}"}
            )
            yield kopf.WebhookClientConfig(url=f"https://{self.address}{contract.WEBHOOK_PATH}")
            await asyncio.Event().wait()

    def _refuse(self, status: int, message: str, peer: str = "", path: str = "") -> Response:
        self._metrics.unreadable(path, status)
        _log.info("a request was no review", extra={"reason": message, "peer": peer})
        return Response(status, reviews.unreadable(status, message))

    async def _answer(self, request: Request) -> Response:
        started = perf_counter()
        try:
            _check(request)
            review = reviews.read_review(request.body)
        except NoReview as fault:
            return self._refuse(fault.status, str(fault), request.peer, request.path)
        self._metrics.begun(request.path)
        try:
            answer = await self._admit(review, request.path == contract.WEBHOOK_PATH)
        except Exception:  # noqa: BLE001 - one review's failure is answered, the server lives on
            self._metrics.panicked()
            _log.exception("a review failed", extra={"namespace": review.namespace})
            answer = Answer(reviews.denied(review, 500, "internal error, see the operator's log"), "failed")
        finally:
            self._metrics.ended(request.path)
        self._metrics.reviewed(request.path, review.namespace, answer.outcome, perf_counter() - started)
        if _log.isEnabledFor(logging.INFO) and (answer.reason or _log.isEnabledFor(logging.DEBUG)):
            level = logging.INFO if answer.reason else logging.DEBUG
            _log.log(level, "pod %s", answer.outcome, extra=_audit(review, answer))
        return Response(200, answer.body)


def _audit(review: Review, answer: Answer) -> Mapping[str, object]:
    """Return what the log says of an answered review: whose pod it is, and what it was given."""
    about = {
        "pod": answer.pod,
        "namespace": review.namespace,
        "service-account": answer.account,
        # A key that somebody took for a client id is not for the log.
        "client-id": answer.client_id if is_guid(answer.client_id) else "",
        "reason": answer.reason,
        "uid": review.uid,
    }
    # Whoever reaches the port chooses them, and how long they are.
    told: dict[str, object] = {key: value[:_LONGEST_LOGGED] for key, value in about.items()}
    # What a warning quotes, its reader has written; likewise not for the log.
    warnings = [_QUOTED.sub('"…"', warning) for warning in answer.warnings[: contract.MOST_WARNINGS]]
    return told | {"engine": "webhook", "dry-run": review.dry_run, "warnings": warnings}


def _check(request: Request) -> None:
    """Raise NoReview for what is no review's request by path, method or content type."""
    if request.path not in PATHS:
        raise NoReview(f"wanted {contract.WEBHOOK_PATH}, found {request.path[:64]!r}", 404)
    if request.method != "POST":
        raise NoReview(f"wanted POST, found {request.method[:16]}", 405)
    if request.content_type != reviews.CONTENT_TYPE:
        raise NoReview(f"wanted Content-Type {reviews.CONTENT_TYPE}, found {request.content_type[:64]!r}")


@asynccontextmanager
async def probes(
    health_address: Address, metrics_address: Address, health: Health, metrics: Metrics
) -> AsyncIterator[Mapping[str, Address]]:
    """Serve `/healthz` and `/readyz` on one address, `/metrics` on the other; yield both, ports known.

    `/healthz` says that the event loop answers, `/readyz` that reviews should be sent here.
    """

    async def answer_health(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        if request.path == "/readyz":
            return web.Response(text=health.report(), status=200 if health.ready else 503)
        return web.Response(text="wanted /healthz or /readyz\n", status=404)

    async def answer_metrics(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/metrics":
            return web.Response(text="wanted /metrics\n", status=404)
        return web.Response(body=metrics.exposition(), headers={"Content-Type": _EXPOSITION})

    async with AsyncExitStack() as stack:
        listening = {}
        for name, address, answer in (
            ("health", health_address, answer_health),
            ("metrics", metrics_address, answer_metrics),
        ):
            bound = _bound(address)
            await stack.enter_async_context(_serving(web.Server(answer, access_log=None), bound))
            listening[name] = _address_of(bound, address)
        yield listening


_EXPOSITION: Final = "text/plain; version=1.0.0; charset=utf-8"


def _bound(address: Address) -> socket.socket:
    """Return a socket that has the address and does not listen yet: callers are refused, not kept waiting."""
    # All addresses: one socket for both families, where there is IPv6.
    everywhere = address.host is None and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if everywhere or ":" in (address.host or "") else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if everywhere:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind((address.host or "", address.port))
    except OSError as error:
        found.close()
        raise AddressTaken(f"{address} cannot be listened on: {error.strerror or error}") from error
    return found


def _address_of(bound: socket.socket, address: Address) -> Address:
    """Return the address with the port that the system chose for 0."""
    return Address(address.host, bound.getsockname()[1])


@asynccontextmanager
async def _serving(server: web.Server, bound: socket.socket) -> AsyncIterator[None]:
    """Serve on the socket until the block ends."""
    runner = web.ServerRunner(server, shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.SockSite(runner, bound).start()
        yield
    finally:
        await runner.cleanup()


class _as_file:  # noqa: N801 - reads as a function
    """Lends bytes to OpenSSL, which reads certificates from files only; on Linux they touch no disk."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __enter__(self) -> Path:
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("certificate")
            path = Path(f"/proc/self/fd/{self._descriptor}")
        else:
            self._descriptor, name = tempfile.mkstemp()
            path = Path(name)
        self._path = path
        os.write(self._descriptor, self._content)
        return path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if not hasattr(os, "memfd_create"):
            self._path.unlink()
