"""Who answers for a ServiceAccount: the table, one live look-up for all who ask, or the memory of a miss."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from workload_identity_operator import accounts as module
from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.errors import AccountLookupFailed

Annotations = Mapping[str, str]

CLIENT = {contract.CLIENT_ID: "of-the-table"}
NEWER = {contract.CLIENT_ID: "newer"}


class ApiServer:
    """Stands for the API server: counts who is asked for, and answers when told to.

    Attributes:
        holds: Annotations of the ServiceAccounts there are.
        asked: Names asked for, in order.
        failure: Raised instead of an answer.
        gate: An answer waits until it is open.
    """

    def __init__(self, holds: Mapping[str, Annotations] | None = None) -> None:
        self.holds = dict(holds or {})
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, namespace: str, name: str) -> Annotations | None:
        """Answer a live look-up."""
        assert namespace == "shop"
        self.asked.append(name)
        found = self.holds.get(name)
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return found


async def listing(
    *items: tuple[str, Annotations], then: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[str, str, Annotations]]:
    """Yield ServiceAccounts of one namespace, as a listing of the cluster does."""
    for name, annotations in items:
        yield "shop", name, annotations
    then()


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_table_answers_without_a_call() -> None:
    """What the watch told is answered at once, with nothing but our annotations."""
    api, told = ApiServer(), list[str]()
    accounts = Accounts(api.fetch, told.append)
    accounts.put("shop", "billing", {**CLIENT, "kubectl.kubernetes.io/last-applied-configuration": "long"})

    assert await accounts.of("shop", "billing") == CLIENT
    assert (api.asked, told, len(accounts)) == ([], ["table"], 1)


async def test_namespaces_are_told_apart() -> None:
    """The same name in another namespace is another ServiceAccount."""
    api = ApiServer()
    accounts = Accounts(api.fetch)
    accounts.put("other", "billing", CLIENT)

    assert await accounts.of("shop", "billing") is None
    assert api.asked == ["billing"]


async def test_who_is_not_in_the_table_is_asked_for() -> None:
    """Annotated a moment ago: the API server knows before the watch has told."""
    api, told = ApiServer({"billing": {**CLIENT, "other": "x"}}), list[str]()

    assert await Accounts(api.fetch, told.append).of("shop", "billing") == CLIENT
    assert told == ["live"]


async def test_one_without_our_annotations_exists() -> None:
    """A ServiceAccount that has none of our annotations is found, and told from one that is not there."""
    api = ApiServer({"plain": {"other": "x"}})

    assert await Accounts(api.fetch).of("shop", "plain") == {}


@pytest.mark.parametrize("holds", [{"billing": CLIENT}, {}])
async def test_a_hundred_ask_once(holds: Mapping[str, Annotations]) -> None:
    """A burst of pods costs one request, whether the ServiceAccount is there or not."""
    api, told = ApiServer(holds), list[str]()
    accounts = Accounts(api.fetch, told.append)
    api.gate.clear()
    callers = [asyncio.create_task(accounts.of("shop", "billing")) for _ in range(100)]
    await settle()
    api.gate.set()

    assert await asyncio.gather(*callers) == [holds.get("billing")] * 100
    assert api.asked == ["billing"]
    assert told == ["live" if holds else "missing"] * 100


async def test_different_names_do_not_wait_for_each_other() -> None:
    """One slow look-up holds up nobody who asks for another name."""
    gate = asyncio.Event()

    async def fetch(_namespace: str, name: str) -> Annotations:
        if name == "slow":
            await gate.wait()
        return {contract.CLIENT_ID: name}

    accounts = Accounts(fetch)
    slow = asyncio.create_task(accounts.of("shop", "slow"))
    await settle()

    assert await accounts.of("shop", "quick") == {contract.CLIENT_ID: "quick"}
    assert not slow.done()
    gate.set()
    assert await slow == {contract.CLIENT_ID: "slow"}


async def test_a_miss_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was not there a moment ago is not asked for again; others are."""
    monkeypatch.setattr(module, "MISSING_FOR", 60)
    api, told = ApiServer(), list[str]()
    accounts = Accounts(api.fetch, told.append)

    assert await accounts.of("shop", "gone") is None
    assert await accounts.of("shop", "gone") is None
    assert await accounts.of("shop", "other") is None
    assert api.asked == ["gone", "other"]
    assert told == ["missing"] * 3


async def test_a_miss_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment, cut short here, the API server is asked again."""
    monkeypatch.setattr(module, "MISSING_FOR", 0)
    api = ApiServer()
    accounts = Accounts(api.fetch)

    assert await accounts.of("shop", "late") is None
    await settle()
    api.holds["late"] = CLIENT
    assert await accounts.of("shop", "late") == CLIENT


async def test_the_watch_clears_a_miss() -> None:
    """A ServiceAccount that the watch tells of is there at once, annotated or not."""
    api = ApiServer()
    accounts = Accounts(api.fetch)
    for name in ("annotated", "plain"):
        assert await accounts.of("shop", name) is None
        api.holds[name] = {}

    accounts.put("shop", "annotated", CLIENT)
    accounts.put("shop", "plain", None)

    assert await accounts.of("shop", "annotated") == CLIENT
    assert await accounts.of("shop", "plain") == {}
    assert api.asked == ["annotated", "plain", "plain"]


@pytest.mark.parametrize("event", ["changed", "annotations removed", "deleted"])
async def test_the_table_follows_the_watch(event: str) -> None:
    """A change replaces, the loss of our annotations and a deletion remove; then the API server is asked."""
    api = ApiServer({"billing": {contract.CLIENT_ID: "live"}})
    accounts = Accounts(api.fetch)
    accounts.put("shop", "billing", CLIENT)

    match event:
        case "changed":
            accounts.put("shop", "billing", NEWER)
            expected: Annotations = NEWER
        case "annotations removed":
            accounts.put("shop", "billing", {"other": "x"})
            expected = {contract.CLIENT_ID: "live"}
        case _:
            accounts.drop("shop", "billing")
            expected = {contract.CLIENT_ID: "live"}

    assert await accounts.of("shop", "billing") == expected
    assert len(accounts) == (event == "changed")


# When it cannot be told.


async def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that takes too long fails for all who wait, and says so; the next one asks anew."""
    monkeypatch.setattr(module, "LOOKUP_TIMEOUT", 0.05)
    api, told = ApiServer({"billing": CLIENT}), list[str]()
    accounts = Accounts(api.fetch, told.append)
    api.gate.clear()

    both = await asyncio.gather(
        accounts.of("shop", "billing"), accounts.of("shop", "billing"), return_exceptions=True
    )

    assert [str(failure) for failure in both] == ["no answer within 0.05 s"] * 2
    assert [type(failure) for failure in both] == [AccountLookupFailed] * 2
    api.gate.set()
    assert await accounts.of("shop", "billing") == CLIENT
    assert told == ["failed", "failed", "live"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError("connection refused"), "connection refused"),
        (RuntimeError("GET /api: 403: forbidden"), "403: forbidden"),
        (ValueError(), "ValueError"),
    ],
)
async def test_failed_look_up(failure: Exception, reason: str) -> None:
    """Whatever keeps the API server from telling is one kind of failure with its reason, and no miss."""
    api, told = ApiServer({"billing": CLIENT}), list[str]()
    accounts = Accounts(api.fetch, told.append)
    api.failure = failure

    with pytest.raises(AccountLookupFailed, match=reason):
        await accounts.of("shop", "billing")

    api.failure = None
    assert await accounts.of("shop", "billing") == CLIENT
    assert told == ["failed", "live"]


async def test_one_who_hangs_up_fails_no_other() -> None:
    """A caller that is cancelled leaves the look-up to those who still wait, were it the first."""
    api = ApiServer({"billing": CLIENT})
    accounts = Accounts(api.fetch)
    api.gate.clear()
    first, second, third = (asyncio.create_task(accounts.of("shop", "billing")) for _ in range(3))
    await settle()
    first.cancel()
    second.cancel()
    await settle()
    api.gate.set()

    assert await third == CLIENT
    assert first.cancelled()
    assert second.cancelled()
    assert api.asked == ["billing"]


async def test_all_hang_up_and_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A look-up that fails when nobody waits any more leaves no complaint about an exception never seen."""
    api = ApiServer()
    accounts = Accounts(api.fetch)
    api.gate.clear()
    api.failure = OSError("refused")
    caller = asyncio.create_task(accounts.of("shop", "billing"))
    await settle()
    caller.cancel()
    await settle()
    api.gate.set()
    await settle()

    assert caplog.records == []
    api.failure = None
    assert await accounts.of("shop", "billing") is None


# Listings, at start and now and then.


async def test_listing_fills_the_table() -> None:
    """A listing brings those that carry our annotations; the others stay out of memory."""
    api = ApiServer()
    accounts = Accounts(api.fetch)

    await accounts.fill(listing(("billing", {**CLIENT, "x": "y"}), ("plain", {"x": "y"}), ("bare", {})))

    assert len(accounts) == 1
    assert await accounts.of("shop", "billing") == CLIENT
    assert api.asked == []


async def test_listing_does_not_undo_what_the_watch_told() -> None:
    """What the watch tells while a listing is read is newer, be it a change, a deletion or a loss."""
    accounts = Accounts(ApiServer().fetch)

    def watch() -> None:
        accounts.put("shop", "changed", NEWER)
        accounts.put("shop", "stripped", {})
        accounts.drop("shop", "deleted")

    async def pages() -> AsyncIterator[tuple[str, str, Annotations]]:
        yield "shop", "first", CLIENT
        watch()
        for name in ("changed", "stripped", "deleted", "untouched"):
            yield "shop", name, CLIENT

    await accounts.fill(pages())

    assert await accounts.of("shop", "changed") == NEWER
    assert await accounts.of("shop", "stripped") is None
    assert await accounts.of("shop", "deleted") is None
    assert await accounts.of("shop", "untouched") == CLIENT


async def test_listing_drops_who_is_gone() -> None:
    """A watch that was away is never told of a deletion: whoever a later listing lacks is gone."""
    changed: list[str] = []
    accounts = Accounts(ApiServer().fetch, on_change=changed.append)
    await accounts.fill(listing(("billing", CLIENT), ("shipping", CLIENT), ("stripped", CLIENT)))
    changed.clear()

    await accounts.fill(listing(("billing", CLIENT), ("stripped", {})))

    assert accounts.identities("shop") == {"billing": CLIENT}
    assert changed == ["shop", "shop"]


async def test_listing_does_not_drop_who_came_meanwhile() -> None:
    """Whoever the watch tells of while a listing is read may be younger than the listing."""
    accounts = Accounts(ApiServer().fetch)
    accounts.put("shop", "again", CLIENT)

    def watch() -> None:
        accounts.put("shop", "new", CLIENT)
        accounts.drop("shop", "again")
        accounts.put("shop", "again", NEWER)

    await accounts.fill(listing(("billing", CLIENT), then=watch))

    assert accounts.identities("shop") == {"billing": CLIENT, "new": CLIENT, "again": NEWER}


async def test_broken_listing_drops_nobody() -> None:
    """Who is missing from a part of a listing may be in the rest."""
    accounts = Accounts(ApiServer().fetch)
    accounts.put("shop", "billing", CLIENT)

    def break_off() -> None:
        raise OSError("the connection was reset")

    with pytest.raises(OSError, match="reset"):
        await accounts.fill(listing(("other", CLIENT), then=break_off))

    assert accounts.identities("shop") == {"billing": CLIENT, "other": CLIENT}


async def test_broken_listing_can_be_read_again() -> None:
    """A listing that breaks off raises; the next one counts in full, over what was told before it."""
    accounts = Accounts(ApiServer().fetch)

    def break_off() -> None:
        accounts.put("shop", "billing", CLIENT)
        raise OSError("the connection was reset")

    with pytest.raises(OSError, match="reset"):
        await accounts.fill(listing(("other", CLIENT), then=break_off))
    accounts.put("shop", "billing", CLIENT)
    await accounts.fill(listing(("other", CLIENT), ("billing", NEWER)))

    assert await accounts.of("shop", "billing") == NEWER
    assert await accounts.of("shop", "other") == CLIENT


async def test_fetch_may_be_any_awaitable() -> None:
    """A look-up is whatever can be awaited."""

    def fetch(_namespace: str, _name: str) -> Awaitable[Annotations | None]:
        answer: asyncio.Future[Annotations | None] = asyncio.get_running_loop().create_future()
        answer.set_result(CLIENT)
        return answer

    assert await Accounts(fetch).of("shop", "billing") == CLIENT
