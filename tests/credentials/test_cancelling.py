"""Cancelled callers: their own end, and nobody else's."""

import asyncio
import threading
from typing import Any

import pytest

import workload_identity
from testkit.entra import EntraStandIn
from testkit.entra.faults import Slow
from workload_identity.aio import WorkloadIdentityCredential

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")
Pod = Any


async def begun() -> None:
    """Wait until a request has surely begun; the stand-in records it when it is answered."""
    await asyncio.sleep(0.3)


async def test_cancelled_leader_leaves_followers_their_answer(entra: EntraStandIn) -> None:
    """The one who began the request may go; the others get its token, without another request."""
    credential = WorkloadIdentityCredential()
    with entra.fault(Slow(0.8)):
        leader = asyncio.create_task(credential.get_token(SCOPE))
        await begun()
        followers = [asyncio.create_task(WorkloadIdentityCredential().get_token(SCOPE)) for _ in range(5)]
        await asyncio.sleep(0)
        leader.cancel()
        tokens = await asyncio.gather(*followers)

    assert leader.cancelled()
    assert len(set(tokens)) == 1
    assert len(entra.requests) == 1
    await credential.close()


async def test_cancelled_follower_goes_alone(entra: EntraStandIn) -> None:
    """A caller's timeout is its own."""
    credential = WorkloadIdentityCredential()
    with entra.fault(Slow(0.6)):
        leader = asyncio.create_task(credential.get_token(SCOPE))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(credential.get_token(SCOPE), 0.1)
        assert (await leader).token

    assert len(entra.requests) == 1


async def test_request_that_nobody_waits_for_ends(entra: EntraStandIn) -> None:
    """When all have gone, so has the request; the next call begins another."""
    credential = WorkloadIdentityCredential()
    with entra.fault(Slow(5), times=1):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(credential.get_token(SCOPE), 0.3)
        await asyncio.sleep(0.05)
        assert [task for task in asyncio.all_tasks() if task.get_name() == "workload-identity"] == []

        assert (await asyncio.wait_for(credential.get_token(SCOPE), 3)).token


async def test_thread_that_waits_keeps_the_request_alive(entra: EntraStandIn) -> None:
    """A follower in a thread counts as one who waits."""
    results: list[Any] = []
    waiting = threading.Thread(
        target=lambda: results.append(workload_identity.WorkloadIdentityCredential().get_token(SCOPE))
    )
    with entra.fault(Slow(1)):
        leader = asyncio.create_task(WorkloadIdentityCredential().get_token(SCOPE))
        await begun()
        waiting.start()
        await asyncio.sleep(0.3)
        leader.cancel()
        await asyncio.to_thread(waiting.join)

    assert len(results) == 1
    assert len(entra.requests) == 1


def test_loop_that_shuts_down_in_the_middle(entra: EntraStandIn) -> None:
    """`asyncio.run` that ends early leaves no task and no warning behind, and the next one gets its token."""

    async def leave() -> None:
        task = asyncio.create_task(WorkloadIdentityCredential().get_token(SCOPE))
        await asyncio.sleep(0.2)
        assert not task.done()

    async def ask() -> Any:
        return await WorkloadIdentityCredential().get_token(SCOPE)

    with entra.fault(Slow(3), times=1):
        asyncio.run(leave())
        assert asyncio.run(ask()).token


@pytest.mark.usefixtures("entra")
async def test_request_cancelled_before_its_first_step() -> None:
    """A task that never runs cannot say that it ended: who waits asks anew all the same."""
    asking = asyncio.create_task(WorkloadIdentityCredential().get_token(SCOPE))
    await asyncio.sleep(0)
    (request,) = (task for task in asyncio.all_tasks() if task.get_name() == "workload-identity")
    request.cancel()

    assert (await asyncio.wait_for(asking, 5)).token


def test_interrupted_thread_leaves_followers_their_answer() -> None:
    """A KeyboardInterrupt in the one who asks is no answer for the others: one of them asks anew."""
    import httpx

    credential = workload_identity.WorkloadIdentityCredential
    asked = threading.Event()
    go_on = threading.Event()
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) == 1:
            asked.set()
            go_on.wait(5)
            raise KeyboardInterrupt
        return httpx.Response(200, json={"access_token": "a-token", "expires_in": 3600})

    transport = httpx.MockTransport(handler)
    ends: list[BaseException] = []
    results: list[Any] = []

    def lead() -> None:
        try:
            credential(transport=transport).get_token(SCOPE)
        except KeyboardInterrupt as end:
            ends.append(end)

    leader = threading.Thread(target=lead)
    leader.start()
    asked.wait(5)
    follower = threading.Thread(
        target=lambda: results.append(credential(transport=transport).get_token(SCOPE))
    )
    follower.start()
    go_on.set()
    leader.join()
    follower.join()

    assert len(ends) == 1
    assert results[0].token == "a-token"
