"""What becomes of each case's pod (`testkit.cases`), the whole way from a review's bytes to its answer's."""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest

from testkit.cases import read_cases, settings_of
from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.admission import admit
from workload_identity_operator.reviews import LONGEST_WARNING, V1, read_review
from workload_identity_operator.sidecar import runs_native_sidecars

Json = dict[str, Any]

USUAL_KUBERNETES = "v1.36.3"

CASES = read_cases()
WIRED = sorted(name for name, case in CASES.items() if "wired" in case)
REFUSED = sorted(name for name, case in CASES.items() if "refused" in case)


async def response_to(pod: Json, case: Json) -> Json:
    """Return the response to the creation of a pod, as the API server would read it."""
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "shop",
        "operation": "CREATE",
        "object": pod,
    }
    review = read_review(
        json.dumps({"apiVersion": V1, "kind": "AdmissionReview", "request": request}).encode()
    )

    async def fetch(_namespace: str, _name: str) -> Mapping[str, str] | None:
        account: Mapping[str, str] | None = case["account"]
        return account

    native = runs_native_sidecars(case.get("kubernetes", USUAL_KUBERNETES))
    answer = await admit(review, Accounts(fetch), settings_of(case), native_sidecars=native)
    response: Json = json.loads(answer.body)["response"]
    return response


def operations_in(response: Json) -> list[Json]:
    """Return the JSON Patch operations of a response."""
    return json.loads(b64decode(response["patch"])) if "patch" in response else []


def test_cases_are_found() -> None:
    """The walk finds the cases: none found must not pass as all passed."""
    assert len(WIRED) >= 80
    assert len(REFUSED) >= 30


@pytest.mark.parametrize("name", WIRED)
async def test_pod_becomes_wired(name: str) -> None:
    """The patch turns `pod` into `wired`, with exactly the warnings that the case lists."""
    case = CASES[name]

    response = await response_to(case["pod"], case)

    assert response["allowed"], response
    assert case["wired"] == jsonpatch.apply_patch(case["pod"], operations_in(response))
    expected, warnings = case.get("warnings", []), response.get("warnings", [])
    assert [part for part, warning in zip(expected, warnings, strict=True) if part not in warning] == []
    assert [warning for warning in warnings if len(warning) > LONGEST_WARNING or "…" in warning[-1]] == []


@pytest.mark.parametrize("name", WIRED)
async def test_wired_pod_is_left_alone(name: str) -> None:
    """Reinvocation, a second webhook or a retry finds nothing to do: no patch, and no patch type."""
    case = CASES[name]

    response = await response_to(case["wired"], case)

    assert response["allowed"], response
    assert response.keys() & {"patch", "patchType"} == set()


@pytest.mark.parametrize("name", WIRED)
async def test_patch_touches_nothing_of_the_authors(name: str) -> None:
    """Operations add or insert, or replace an entry of a reserved name or a null; nothing is ever removed."""
    case = CASES[name]
    pod = case["pod"]

    for operation in operations_in(await response_to(pod, case)):
        if operation["op"] == "add":
            parent = jsonpatch.JsonPointer(operation["path"].rpartition("/")[0]).get(pod)
            there = jsonpatch.JsonPointer(operation["path"]).get(pod, None)
            assert isinstance(parent, list) or there is None
        else:
            assert operation["op"] == "replace"
            entry = jsonpatch.JsonPointer(operation["path"].removesuffix("/projected/sources")).get(pod)
            assert entry is None or entry["name"].startswith(contract.VOLUME_PREFIX)
        pod = jsonpatch.apply_patch(pod, [operation])


@pytest.mark.parametrize("name", REFUSED)
async def test_pod_is_refused(name: str) -> None:
    """The refusal is a 400 whose message holds every text that the case lists."""
    case = CASES[name]

    response = await response_to(case["pod"], case)

    assert response["allowed"] is False
    assert response["status"]["code"] == 400
    assert [part for part in case["refused"] if part not in response["status"]["message"]] == []
    assert "patch" not in response
