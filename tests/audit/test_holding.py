"""The Lease when nobody answers, with an API server that is played: few are this unkind."""

import asyncio
from typing import Any, cast

import pytest

from workload_identity_operator import lease


class Api:
    """Has a Lease that anybody may write, until it falls silent."""

    def __init__(self) -> None:
        self.silent = False
        self.spec: dict[str, Any] = {}

    async def get(self, _: str) -> dict[str, Any]:
        """Return the Lease, or never."""
        if self.silent:
            await asyncio.Event().wait()
        return {"metadata": {"resourceVersion": "1"}, "spec": self.spec}

    async def merge(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        """Store who holds it."""
        self.spec |= body["spec"]
        return {}


@pytest.mark.parametrize(("said", "taken"), [(3600, False), (None, True)])
def test_a_lease_says_itself_how_long_it_lasts(
    monkeypatch: pytest.MonkeyPatch, said: int | None, *, taken: bool
) -> None:
    """Whoever holds it may be of a version that renews it more seldom; one that does not say is as ours."""
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.0)
    monkeypatch.setattr(lease, "DURATION", 0.0)
    api = Api()
    api.spec = {"holderIdentity": "other", "leaseDurationSeconds": said}

    async def held() -> bool:
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()

        holding = asyncio.create_task(lease.Lease(cast("Any", api), "a", "b").run(work))
        for _ in range(100):
            await asyncio.sleep(0)
        holding.cancel()
        return begun.is_set()

    assert asyncio.run(held()) is taken


def test_who_gets_no_answer_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one may hold the Lease by the time that a request is given up."""
    monkeypatch.setattr(lease, "RENEW_EVERY", 0.01)
    monkeypatch.setattr(lease, "_GIVE_UP_AFTER", 0.2)
    monkeypatch.setattr(lease, "_RELEASE_WITHIN", 0.01)

    async def stopped() -> bool:
        api, ended = Api(), asyncio.Event()

        async def work() -> None:
            api.silent = True
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        holding = asyncio.create_task(lease.Lease(cast("Any", api), "a", "b").run(work))
        await ended.wait()
        return holding.cancel()

    assert asyncio.run(stopped())
