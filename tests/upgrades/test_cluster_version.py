"""The API server's version decides how the proxy runs; it is read at start and followed ever after."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from testkit.installation import free_port
from workload_identity_operator import upgrades
from workload_identity_operator.health import Health
from workload_identity_operator.kube import KubeApi
from workload_identity_operator.sidecar import runs_native_sidecars

SOON = 0.01
"""Seconds between two looks."""


@pytest.mark.parametrize(
    ("version", "native"),
    [
        ("v1.36.3", True),
        ("v1.32.0", True),
        ("1.32.0", True),
        ("v1.32.0-rc.0", True),
        ("v1.33.5-gke.1", True),
        ("v1.33.5-eks-113cf36", True),
        ("v1.100.0", True),
        ("v2.0.0", True),
        ("v1.31.99", False),
        ("v1.31.9+k3s1", False),
        ("v1.31.0-alpha.32", False),
        ("v1.4.0", False),
        ("v0.99.0", False),
    ],
)
def test_native_since_1_32(version: str, native: bool) -> None:
    """Major and minor decide; what follows the numbers does not."""
    assert native == runs_native_sidecars(version)


@pytest.mark.parametrize(
    "version", ["", "v", "1.32", "v1.33", "v1.33.", "1.33.x", "v1.33.5.1", "vv1.33.5", " v1.33.5", "v1.٣٣.0"]
)
def test_what_is_no_version(version: str) -> None:
    """Anything without three numbers is told with what was found."""
    with pytest.raises(ValueError, match=r"is no version: wanted one such as v1\.36\.3"):
        runs_native_sidecars(version)


def version(told: str) -> web.Response:
    """Return what an API server of that version tells, in part."""
    return web.json_response({"major": "1", "minor": "0", "gitVersion": told})


def forbidden() -> web.Response:
    """Return the answer of a cluster that keeps its version to itself."""
    return web.json_response({"kind": "Status", "message": "not for you"}, status=403)


def api_server(*answers: web.Response) -> web.Application:
    """Return an API server that gives these answers one by one, and then the last for ever."""
    left, current = iter(answers), answers[0]

    async def answer(_: web.Request) -> web.Response:
        nonlocal current
        current = next(left, current)
        return web.Response(body=current.body, status=current.status, content_type="application/json")

    application = web.Application()
    application.router.add_get("/version", answer)
    return application


@asynccontextmanager
async def following(url: str) -> AsyncIterator[tuple[asyncio.Queue[bool], Health]]:
    """Follow the version of the API server there; yield what is taken from it, and the health."""
    taken, health = asyncio.Queue[bool](), Health()
    async with aiohttp.ClientSession() as session:
        task = asyncio.create_task(
            upgrades.follow(KubeApi(url, session), health, taken.put_nowait, every=SOON)
        )
        try:
            yield taken, health
        finally:
            task.cancel()


@asynccontextmanager
async def followed(*answers: web.Response) -> AsyncIterator[tuple[asyncio.Queue[bool], Health]]:
    """Follow an API server that gives these answers."""
    async with (
        TestServer(api_server(*answers)) as server,
        following(str(server.make_url("/"))) as found,
    ):
        yield found


async def until(met: Callable[[], bool]) -> None:
    """Wait until it is met."""
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(SOON)


async def test_upgrade_is_noticed() -> None:
    """After an upgrade the operator tells of native sidecars, without a restart."""
    async with followed(version("v1.31.9"), version("v1.31.9"), version("v1.32.1")) as (
        taken,
        health,
    ):
        found = [await asyncio.wait_for(taken.get(), 20) for _ in range(3)]

        assert found == [False, False, True]
        assert "version" not in health.waiting


async def test_each_change_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line for each version, however often it is read."""
    caplog.set_level(logging.INFO, upgrades.__name__)
    async with followed(version("v1.31.9"), version("v1.31.9"), version("v1.32.1")) as (taken, _):
        for _ in range(6):
            await asyncio.wait_for(taken.get(), 20)

    assert [record.getMessage() for record in caplog.records if record.name == upgrades.__name__] == [
        "Kubernetes is v1.31.9: the proxy is injected as an ordinary container",
        "Kubernetes is v1.32.1: the proxy is injected as a native sidecar",
    ]


@pytest.mark.parametrize("answer", [forbidden, lambda: version("v1.33"), lambda: web.json_response({})])
async def test_unreadable_version(
    answer: Callable[[], web.Response], caplog: pytest.LogCaptureFixture
) -> None:
    """A version that is withheld or no version is told once; what was known stays, and reviews go on."""
    async with followed(version("v1.31.9"), answer(), answer(), version("v1.31.10")) as (
        taken,
        health,
    ):
        found = [await asyncio.wait_for(taken.get(), 20) for _ in range(2)]

        assert found == [False, False]
        assert "version" not in health.waiting
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("the cluster's version cannot be read: ")


async def test_unreadable_from_the_start() -> None:
    """A cluster that keeps its version to itself does not keep the operator from being ready."""
    async with followed(forbidden()) as (taken, health):
        await until(lambda: "version" not in health.waiting)

        assert taken.empty()


async def test_no_answer_at_first(caplog: pytest.LogCaptureFixture) -> None:
    """Until the API server answers at all, reviews should go to another replica."""
    port = free_port()
    async with following(f"http://127.0.0.1:{port}") as (taken, health):
        await until(lambda: "no answer from" in caplog.text)
        assert "version" in health.waiting

        async with TestServer(api_server(version("v1.36.3")), port=port):
            assert await asyncio.wait_for(taken.get(), 20)
        assert "version" not in health.waiting
