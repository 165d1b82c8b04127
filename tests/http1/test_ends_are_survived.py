"""A call of a real API server that meets the end of who should answer it."""

import asyncio
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
import trustme

from testkit.control_plane import ControlPlane
from workload_identity_operator import http1, reviews
from workload_identity_operator.http1 import Request, Response


class Replica:
    """Answers reviews at a port, and counts them."""

    def __init__(self, port: int, tls: ssl.SSLContext) -> None:
        self.port = port
        self._tls = tls
        self.answered = 0

    async def _answer(self, request: Request) -> Response:
        self.answered += 1
        return Response(200, reviews.allowed(reviews.read_review(request.body)))

    def _refuse(self, status: int, message: str) -> Response:
        return Response(status, reviews.unreadable(status, message))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer until the context is left."""
        with socket.socket() as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(("127.0.0.1", self.port))
            self.port = bound.getsockname()[1]
            farewell = self._refuse(503, "gone")
            async with http1.serving(self._answer, self._refuse, 1 << 20, bound, self._tls, farewell):
                yield


@pytest.fixture
def authority() -> trustme.CA:
    """Who vouches for it."""
    return trustme.CA()


@pytest.fixture
def replica(authority: trustme.CA) -> Replica:
    """One that does not answer yet."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return Replica(0, tls)


@contextmanager
def called(plane: ControlPlane, replica: Replica, authority: trustme.CA, namespace: str) -> Iterator[None]:
    """Have the API server call it for each ConfigMap of a namespace until the context is left."""
    name = f"ends-{namespace}"
    webhook = {
        "name": "ends.example.com",
        "clientConfig": {
            "url": f"https://127.0.0.1:{replica.port}/",
            "caBundle": b64encode(authority.cert_pem.bytes()).decode(),
        },
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [webhook],
    }
    plane.kubectl("create", "--filename=-", given=json.dumps(configuration))
    try:
        yield
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration", name)


async def test_call_on_its_way_to_one_that_ends_is_made_again(
    control_plane: ControlPlane, namespace: str, replica: Replica, authority: trustme.CA
) -> None:
    """It was sent on a kept connection and is not read any more: whoever is there next is called."""

    async def create(name: str) -> None:
        await asyncio.to_thread(
            control_plane.kubectl, f"--namespace={namespace}", "create", "configmap", name
        )

    with ExitStack() as cluster:
        async with replica.serving():
            cluster.enter_context(called(control_plane, replica, authority, namespace))
            for number in range(100):
                await create(f"before-{number}")
                if replica.answered:
                    break
            before = replica.answered
            on_its_way = asyncio.create_task(create("on-its-way"))
            await asyncio.sleep(0.01)  # it is started
            time.sleep(2)  # noqa: ASYNC251 - what comes meanwhile stays unread
        assert (before > 0, replica.answered) == (True, before)
        assert not on_its_way.done()
        async with replica.serving():
            await on_its_way

    assert replica.answered == before + 1
