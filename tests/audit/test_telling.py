"""What the operator tells and waits for, with an API server that is played: few are this unkind."""

import asyncio
from typing import Any, cast

import pytest

from workload_identity_operator import events, healer
from workload_identity_operator.audit import Finding, State
from workload_identity_operator.auditor import Owner
from workload_identity_operator.kube import ApiError


class Api:
    """Keeps what it is asked to create, and answers each `get` with the next of its answers."""

    def __init__(self, *answers: ApiError | None) -> None:
        self.answers = list(answers)
        self.created: list[dict[str, Any]] = []

    async def create(self, _: str, body: dict[str, Any]) -> None:
        """Keep it."""
        self.created.append(body)

    async def get(self, _: str) -> None:
        """Answer that there is none, or raise."""
        if error := self.answers.pop(0):
            raise error


class Lease:
    """Remembers a roll-out that the replica before waited for."""

    roll_out = "/apis/apps/v1/namespaces/a/deployments/web 1"

    async def remembered(self) -> str:
        """Return it."""
        return self.roll_out

    async def remember(self, what: str) -> None:
        """Take another, and end the test."""
        self.roll_out = what
        raise asyncio.CancelledError


def heal(api: Api, lease: Lease) -> None:
    """Run a healer until something ends it."""
    unused = cast("Any", None)
    asyncio.run(healer.Healer(cast("Any", api), cast("Any", lease), unused, unused, unused, unused).run())


@pytest.mark.parametrize("name", ["web", "l" * 199 + "-" + "x" * 20, "l" * 198 + ".-" + "x" * 20])
def test_events_can_be_stored(name: str) -> None:
    """Their name ends nowhere but at a letter or digit; their note is cut by bytes, as it is counted."""
    api = Api()
    metadata = {"name": name, "namespace": "a", "uid": "1", "resourceVersion": "1"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}

    asyncio.run(events.tell(cast("Any", api), pod, events.UNWIRED, "身" * 1000))

    (event,) = api.created
    first, _, digest = event["metadata"]["name"].rpartition(".")
    assert first[-1].isalnum()
    assert name.startswith(first)
    assert len(digest) == 16
    assert set(event["note"]) == {"身"}
    assert 990 < len(event["note"].encode()) <= 1024


def finding(pod: str, state: State, reason: str, *, refused: bool = False) -> Finding:
    """Return what is wrong with a pod of Deployment `web`."""
    return Finding("a", pod, pod, "web", state, reason, refused=refused)


def owner(*findings: Finding) -> Owner:
    """Return the Deployment that they are of."""
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "1"}
    found = Owner("a", reference, "restart it")
    for one in findings:
        found.add(one)
    return found


def test_a_pod_that_would_be_refused_hides_nothing_of_the_others() -> None:
    """What is wrong with those that can be helped is told first, with the way to mend it."""
    refused = finding("old", "unwired", "would be refused", refused=True)
    found = owner(refused, finding("web-1", "outdated", "is outdated"), finding("web-2", "wrong", "is wrong"))

    reason, note = found.told()

    assert reason is events.OUTDATED
    assert (
        note == "2 of its pods (web-1, web-2): is outdated; to mend it: restart it; 1 more: would be refused"
    )
    assert found.counts == {"unwired": 1, "outdated": 1, "wrong": 1}


def test_pods_that_would_all_be_refused_are_no_good_to_make_anew() -> None:
    """Then there is no such way: the mistake is to be mended first."""
    refused = finding("old", "unwired", "would be refused", refused=True)

    assert owner(refused).told() == (events.UNWIRED, "1 of its pods (old): would be refused")


def test_a_roll_out_is_waited_for_while_the_api_server_has_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever began the next one meanwhile would restart two at a time."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)
    trouble = [ApiError("away"), ApiError("too many requests", 429), ApiError("no leader", 503)]
    api, lease = Api(*trouble, None), Lease()

    with pytest.raises(asyncio.CancelledError):
        heal(api, lease)

    assert api.answers == []
    assert lease.roll_out == ""


def test_a_roll_out_that_may_not_be_seen_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """That does not pass by itself."""
    monkeypatch.setattr(healer, "LOOK_EVERY", 0.0)

    with pytest.raises(ApiError, match="forbidden"):
        heal(Api(ApiError("forbidden", 403)), Lease())
