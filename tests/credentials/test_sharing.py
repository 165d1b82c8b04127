"""One request for all who ask: threads, tasks, instances, families; and what keeps requests apart."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import workload_identity
import workload_identity.aio
from testkit.entra import EntraStandIn
from testkit.entra.faults import Failing, Slow
from workload_identity import ClientAuthenticationError

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any
Pod = Any


def test_many_callers_one_request(family: Family, entra: EntraStandIn) -> None:
    """Whoever comes while a request is in the air gets its token."""
    credential = family.credential()

    with entra.fault(Slow(0.2)):
        tokens = family.together([lambda: credential.get_token(SCOPE)] * 50)

    assert len(set(tokens)) == 1
    assert len(entra.requests) == 1


def test_many_instances_one_request(family: Family, entra: EntraStandIn) -> None:
    """A credential for each request of a web application costs nothing more."""
    credentials = [family.credential() for _ in range(20)]

    family.together([lambda one=one: one.get_token(SCOPE) for one in credentials])
    for credential in credentials:
        family.do(credential.get_token, SCOPE)

    assert len(entra.requests) == 1


def test_failure_reaches_all_who_wait(family: Family, entra: EntraStandIn) -> None:
    """One request fails for all of them, with an error of his own for each."""
    credential = family.credential(retry_total=0)

    with entra.fault(Failing(503)), entra.fault(Slow(0.2)):
        failures = family.together([lambda: credential.get_token(SCOPE)] * 10)

    assert len(entra.requests) == 1
    assert {type(failure).__name__ for failure in failures} == {"ClientAuthenticationError"}
    assert {str(failure) for failure in failures} == {str(failures[0])}
    assert len({id(failure) for failure in failures}) == 10
    assert failures[0].status_code == 503


@pytest.mark.parametrize(
    "given",
    [
        {"shared_cache": False},
        {"client_id": "00000000-0000-0000-0000-000000000001"},
        {"token_file_path": "link"},
    ],
)
def test_what_keeps_credentials_apart(
    family: Family, pod: Pod, entra: EntraStandIn, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another identity, another token file, or the wish for a cache of its own."""
    monkeypatch.chdir(pod.token_file.parent)
    (pod.token_file.parent / "link").symlink_to(pod.token_file)
    family.do(family.credential().get_token, SCOPE)

    own = family.credential(**given)
    try:
        family.do(own.get_token, SCOPE)
        family.do(own.get_token, SCOPE)
    except ClientAuthenticationError:
        pass

    assert len(entra.requests) == 2


def test_way_of_sending_keeps_requests_apart_not_tokens(family: Family, entra: EntraStandIn) -> None:
    """A credential with a hopeless way to the service does not drag others along, and uses their token."""
    hopeless = family.credential(proxies={"https": "http://127.0.0.1:9"}, retry_total=0)
    good = family.credential()

    with entra.fault(Slow(0.2)):
        failed, token = family.together([lambda: hopeless.get_token(SCOPE), lambda: good.get_token(SCOPE)])

    assert isinstance(failed, ClientAuthenticationError)
    assert family.do(hopeless.get_token, SCOPE) == token


def test_transport_of_the_callers_keeps_tokens_apart(family: Family) -> None:
    """Who answers through another transport may be somebody else."""

    def answering(token: str) -> httpx.MockTransport:
        return httpx.MockTransport(
            lambda _: httpx.Response(200, json={"access_token": token, "expires_in": 3600})
        )

    one, other = answering("one"), answering("other")

    assert family.do(family.credential(transport=one).get_token, SCOPE).token == "one"
    assert family.do(family.credential(transport=other).get_token, SCOPE).token == "other"
    assert family.do(family.credential(transport=one).get_token, SCOPE).token == "one"


def test_families_share(entra: EntraStandIn) -> None:
    """A token that a thread got serves tasks, and the other way round."""
    token = workload_identity.WorkloadIdentityCredential().get_token(SCOPE)

    async def ask() -> Any:
        async with workload_identity.aio.WorkloadIdentityCredential() as credential:
            return await credential.get_token(SCOPE)

    assert asyncio.run(ask()) == token
    assert len(entra.requests) == 1


def test_threads_and_event_loops_share_a_request(entra: EntraStandIn) -> None:
    """However callers are mixed, the first one asks for all."""
    results: list[Any] = []
    blocking = workload_identity.WorkloadIdentityCredential()
    awaiting = workload_identity.aio.WorkloadIdentityCredential()
    barrier = threading.Barrier(16)

    def in_thread() -> None:
        barrier.wait()
        results.append(blocking.get_token(SCOPE))

    def in_loop() -> None:
        async def ask() -> None:
            results.extend(await asyncio.gather(*(awaiting.get_token(SCOPE) for _ in range(5))))

        barrier.wait()
        asyncio.run(ask())

    with entra.fault(Slow(0.5)):
        run([in_thread] * 8 + [in_loop] * 8)

    assert len(results) == 48
    assert len(set(results)) == 1
    assert len(entra.requests) == 1


def run(calls: list[Callable[[], None]]) -> None:
    """Run all at the same time, each in a thread of its own."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_leader_whose_loop_ends_leaves_no_thread_behind(entra: EntraStandIn) -> None:
    """When the event loop that asks is closed in the middle, who waits asks anew."""
    loop = asyncio.new_event_loop()
    awaiting = workload_identity.aio.WorkloadIdentityCredential()
    results: list[Any] = []

    async def begin() -> None:
        task = asyncio.ensure_future(awaiting.get_token(SCOPE))
        await asyncio.sleep(0.3)
        assert not task.done()

    with entra.fault(Slow(2), times=1):
        loop.run_until_complete(begin())
        # The loop stands still with the request in the air.
        waiting = threading.Thread(
            target=lambda: results.append(workload_identity.WorkloadIdentityCredential().get_token(SCOPE))
        )
        waiting.start()
        waiting.join(10)
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    loop.close()

    assert len(results) == 1


def ask_in_a_loop() -> Any:
    """Ask in an event loop of its own."""

    async def ask() -> Any:
        return await workload_identity.aio.WorkloadIdentityCredential().get_token(SCOPE)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    "ask", [lambda: workload_identity.WorkloadIdentityCredential().get_token(SCOPE), ask_in_a_loop]
)
def test_leader_whose_loop_stops_while_others_wait(entra: EntraStandIn, ask: Callable[[], Any]) -> None:
    """Who waits already notices, too, that nobody is asking any more."""
    awaiting = workload_identity.aio.WorkloadIdentityCredential()
    results: list[Any] = []
    loop = asyncio.new_event_loop()
    waiting = threading.Thread(target=lambda: results.append(ask()))

    async def begin() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(awaiting.get_token(SCOPE))
        await asyncio.sleep(0.1)
        waiting.start()
        await asyncio.sleep(0.2)
        return task

    with entra.fault(Slow(20), times=1):
        task = loop.run_until_complete(begin())
        waiting.join(10)
        answered = len(results)
        task.cancel()
        for flying in asyncio.all_tasks(loop):
            flying.cancel()
        loop.run_until_complete(asyncio.gather(task, *asyncio.all_tasks(loop), return_exceptions=True))
    loop.close()

    assert answered == 1


def test_blocking_call_in_the_loop_that_asks(entra: EntraStandIn) -> None:
    """A call that blocks the very loop which asks makes its own request instead of waiting for ever."""

    async def both() -> tuple[Any, Any]:
        awaiting = workload_identity.aio.WorkloadIdentityCredential()
        task = asyncio.ensure_future(awaiting.get_token(SCOPE))
        await asyncio.sleep(0.1)
        blocked = workload_identity.WorkloadIdentityCredential().get_token(SCOPE)
        return blocked, await task

    with entra.fault(Slow(0.4)):
        blocked, awaited = asyncio.run(both())

    assert (blocked.token, awaited.token) != ("", "")
    assert len(entra.requests) == 2


def test_call_from_within_a_request() -> None:
    """A transport that asks for the same token does not wait for itself."""
    calls: list[int] = []

    def handler(_: httpx.Request) -> httpx.Response:
        calls.append(1)
        if len(calls) == 1:
            credential.get_token(SCOPE)
        return httpx.Response(200, json={"access_token": f"token-{len(calls)}", "expires_in": 3600})

    credential = workload_identity.WorkloadIdentityCredential(transport=httpx.MockTransport(handler))

    assert credential.get_token(SCOPE).token == "token-2"
