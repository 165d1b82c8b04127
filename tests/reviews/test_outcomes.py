"""What a review ends in: wired, unchanged, refused, missing or failed; with which code and which words."""

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workload_identity_operator import contract
from workload_identity_operator.accounts import Accounts
from workload_identity_operator.admission import Answer, admit
from workload_identity_operator.reviews import read_review
from workload_identity_operator.settings import Flags, read_settings

Json = dict[str, Any]

SETTINGS = read_settings(Flags(), {"AZURE_TENANT_ID": "22222222-2222-2222-2222-222222222222"})
CLIENT = {contract.CLIENT_ID: "11111111-1111-1111-1111-111111111111"}
POD: Json = {
    "metadata": {"name": "pod-a", "namespace": "ignored"},
    "spec": {"serviceAccountName": "billing", "containers": [{"name": "app"}]},
}
REQUEST: Json = {
    "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
    "kind": {"group": "", "version": "v1", "kind": "Pod"},
    "namespace": "shop",
    "operation": "CREATE",
    "object": POD,
}


class ApiServer:
    """Stands for the API server, which knows one ServiceAccount; counts what it is asked.

    Attributes:
        asked: Namespace and name of each look-up.
        failure: Raised instead of an answer.
        annotations: Of the ServiceAccount.
    """

    def __init__(self, failure: Exception | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.failure = failure
        self.annotations: Mapping[str, str] = CLIENT

    async def fetch(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Answer a live look-up."""
        self.asked.append((namespace, name))
        if self.failure:
            raise self.failure
        return self.annotations if (namespace, name) == ("shop", "billing") else None


async def answer_to(
    api: ApiServer, pod: object = POD, *, opted_in: bool = True, **request: object
) -> tuple[Answer, Json]:
    """Return what became of a review, and the response that says it."""
    asked = {**REQUEST, "object": pod, **request}
    body = json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": asked})
    review, accounts = read_review(body.encode()), Accounts(api.fetch)
    answer = await admit(review, accounts, SETTINGS, native_sidecars=True, opted_in=opted_in)
    response = json.loads(answer.body)["response"]
    assert response["uid"] == REQUEST["uid"]
    return answer, response


def pod_with(annotations: Mapping[str, Any] | None = None, **spec: object) -> Json:
    """Return the usual pod with these annotations and this in its spec."""
    return {
        "metadata": {**POD["metadata"], "annotations": annotations},
        "spec": {**POD["spec"], **spec},
    }


async def test_wired() -> None:
    """A pod that is wired is allowed, with a patch and its type, and nothing else is said."""
    answer, response = await answer_to(ApiServer())

    assert (answer.outcome, answer.reason, answer.pod, answer.account) == ("wired", "", "pod-a", "billing")
    assert response.keys() == {"uid", "allowed", "status", "patchType", "patch"}
    assert (response["allowed"], response["status"], response["patchType"]) == (
        True,
        {"code": 200},
        "JSONPatch",
    )
    assert json.loads(b64decode(response["patch"]))


async def test_wired_already() -> None:
    """A pod that is wired already is allowed without patch and patch type."""
    _, response = await answer_to(ApiServer())
    pod = jsonpatch.apply_patch(POD, json.loads(b64decode(response["patch"])))

    answer, response = await answer_to(ApiServer(), pod)

    assert answer.outcome == "unchanged"
    assert response.keys() == {"uid", "allowed", "status"}


async def test_dry_run() -> None:
    """A dry run is answered like any other."""
    dry, real = await answer_to(ApiServer(), dryRun=True), await answer_to(ApiServer())

    assert dry == real


async def test_whose_account_is_asked_for() -> None:
    """The namespace is the request's; the name the pod's, `default` where it has none."""
    api = ApiServer()

    await answer_to(api, {"metadata": {"name": "a", "namespace": "elsewhere"}})
    await answer_to(api, pod_with(serviceAccountName=None, serviceAccount="deprecated"))
    await answer_to(api, pod_with(serviceAccountName="x.y-1"), namespace="other")

    assert api.asked == [("shop", "default"), ("shop", "default"), ("other", "x.y-1")]


async def test_missing() -> None:
    """A ServiceAccount that does not exist denies with 400 and the API server's own words."""
    answer, response = await answer_to(ApiServer(), pod_with(serviceAccountName="biling"))

    assert answer.outcome == "missing"
    assert response["allowed"] is False
    assert response["status"]["code"] == 400
    assert 'serviceaccounts "biling" not found' in response["status"]["message"]
    assert "shop" in response["status"]["message"]
    assert answer.reason == response["status"]["message"]


async def test_missing_namespace() -> None:
    """In no namespace there is no ServiceAccount, and none is asked for."""
    api = ApiServer()

    answer, response = await answer_to(api, namespace="")

    assert (answer.outcome, response["status"]["code"], api.asked) == ("missing", 400, [])
    assert 'serviceaccounts "billing" not found' in response["status"]["message"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError("connection refused"), "connection refused"),
        (TimeoutError(), "no answer within"),
        (RuntimeError("GET …: 403: forbidden"), "403: forbidden"),
    ],
)
async def test_failed(failure: Exception, reason: str) -> None:
    """When the API server cannot be asked that is not the author's fault: 503, the reason, try again."""
    answer, response = await answer_to(ApiServer(failure))

    assert answer.outcome == "failed"
    assert response["allowed"] is False
    assert response["status"]["code"] == 503
    for part in ("billing", reason, "may succeed later"):
        assert part in response["status"]["message"]


@pytest.mark.parametrize(
    ("pod", "parts"),
    [
        (None, ["nothing to decode"]),
        ([], ["request.object: wanted an object, found a list"]),
        ("pod", ["request.object: wanted an object, found a string"]),
        ({**POD, "kind": "Deployment"}, ['request.object: wanted a Pod of v1, found "Deployment" of ""']),
        ({**POD, "kind": "PodTemplate", "apiVersion": "v1"}, ['found "PodTemplate" of "v1"']),
        ({**POD, "kind": "Pod", "apiVersion": "v2"}, ['found "Pod" of "v2"']),
        ({**POD, "kind": 1}, ["request.object.kind: wanted a string, found a number"]),
        ({**POD, "apiVersion": ["v1"]}, ["request.object.apiVersion: wanted a string, found a list"]),
        (
            {**POD, "metadata": {"name": "pod-a", "generateName": True}},
            ["metadata.generateName: wanted a string, found a boolean"],
        ),
        (pod_with({contract.EXPIRATION: "1h"}), ['"1h"', "syntax"]),
        (pod_with({contract.EXPIRATION: "60"}), ["60", "3600", "86400"]),
        (pod_with({"example.com/port": 80}), ["metadata.annotations.example.com/port", "a number"]),
        (pod_with({"k" * 1_000_000: 80}), ["metadata.annotations.kkk", "a number"]),
        (pod_with(containers={}), ["spec.containers", "wanted a list"]),
        (pod_with(containers=[{"name": "app", "env": "A=B"}]), ["spec.containers[0].env", "wanted a list"]),
        (pod_with(containers=[{}] * 5001), ["spec.containers", "at most 5000", "5001"]),
        (
            pod_with(
                containers=[{"name": "app", "volumeMounts": [{"name": "d", "mountPath": contract.BASE_PATH}]}]
            ),
            ['"app"', '"d"', contract.BASE_PATH, contract.SKIP_CONTAINERS],
        ),
    ],
)
async def test_refused(pod: Json | None, parts: list[str]) -> None:
    """What its author must change denies with 400 and says what; the message stays readable."""
    answer, response = await answer_to(ApiServer(), pod)

    assert answer.outcome == "refused"
    assert response.keys() == {"uid", "allowed", "status"}
    assert response["allowed"] is False
    assert response["status"]["code"] == 400
    assert [part for part in parts if part not in response["status"]["message"]] == []
    assert len(response["status"]["message"]) < 500


async def test_unlabelled() -> None:
    """A pod that has not asked is wired like any other when its ServiceAccount names an identity."""
    assert await answer_to(ApiServer(), opted_in=False) == await answer_to(ApiServer())


async def test_unlabelled_without_an_identity() -> None:
    """Else it passes as it is, and nothing is said, whatever else is odd about it."""
    api = ApiServer()
    api.annotations = {contract.CLIENT_ID: "", contract.TENANT_ID: "other", contract.PREFIX + "typo": "x"}

    for odd in ({contract.EXPIRATION: "1h"}, {contract.MIRROR_POD: "x"}):
        answer, response = await answer_to(api, pod_with(odd), opted_in=False)

        assert (answer.outcome, answer.reason) == ("unchanged", "")
        assert response.keys() == {"uid", "allowed", "status"}
        assert response["allowed"] is True


@pytest.mark.parametrize(
    ("pod", "failure", "outcome", "said"),
    [
        (pod_with({contract.EXPIRATION: "1h"}), None, "unchanged", '"1h": invalid syntax'),
        (pod_with(serviceAccountName="biling"), None, "missing", 'serviceaccounts "biling" not found'),
        (POD, OSError("connection refused"), "failed", "could not be looked up"),
    ],
)
async def test_unlabelled_is_never_refused(
    pod: Json, failure: Exception | None, outcome: str, said: str
) -> None:
    """What would refuse a labelled pod is a warning to the author of one that has not asked."""
    answer, response = await answer_to(ApiServer(failure), pod, opted_in=False)

    assert (answer.outcome, response["allowed"]) == (outcome, True)
    assert response.keys() == {"uid", "allowed", "status", "warnings"}
    (warning,) = response["warnings"]
    assert warning.startswith("no Azure identity: ")
    assert said in warning
    assert said in answer.reason


HOSTILE = [
    *(
        "../../secrets/x",
        "billing/token",
        "..",
        ".",
        "a..b",
        "-a",
        "a-",
        "A",
        "a_b",
        "a b",
        "a%2fb",
        "a?b",
        "a#b",
    ),
    *("a\n", "\0", "billing\u200b", "bílling", "٣", "a" * 254, "a." * 500_000 + "a"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
async def test_hostile_names(name: str) -> None:
    """What is no name of an object never becomes part of a request: it is refused before any call."""
    api = ApiServer()

    for answer, response in (
        await answer_to(api, pod_with(serviceAccountName=name)),
        await answer_to(api, namespace=name),
    ):
        assert (answer.outcome, response["status"]["code"]) == ("refused", 400)
        assert "is no Kubernetes name" in response["status"]["message"]
        assert len(response["status"]["message"]) < 500
    assert api.asked == []


@pytest.mark.parametrize("name", ["a", "0", "billing", "a.b-c.d0", "a" * 253])
async def test_names_that_are_fine(name: str) -> None:
    """What Kubernetes takes for a name is asked for."""
    api = ApiServer()

    await answer_to(api, pod_with(serviceAccountName=name))

    assert api.asked == [("shop", name)]


@pytest.mark.parametrize("value", ["7d0a", "", None])
async def test_mirror_pod(value: str | None) -> None:
    """A static pod's mirror passes as it is with one warning, whatever its annotation's value."""
    api = ApiServer()

    answer, response = await answer_to(
        api, pod_with({contract.MIRROR_POD: value, contract.EXPIRATION: "nonsense"})
    )

    assert (answer.outcome, response["allowed"], api.asked) == ("unchanged", True, [])
    assert "patch" not in response
    (warning,) = response["warnings"]
    assert "static pod" in warning
    assert len(warning) <= 120


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "UPDATE"},
        {"operation": "DELETE", "object": None, "oldObject": POD},
        {"operation": "CONNECT", "object": {"kind": "PodExecOptions"}, "subResource": "exec"},
        {"subResource": "ephemeralcontainers"},
        {"subResource": "binding", "kind": {"group": "", "version": "v1", "kind": "Binding"}},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
        {"kind": None, "object": {**POD, "apiVersion": "apps/v1", "kind": "Deployment"}},
        {"operation": "UPDATE", "namespace": "../../secrets"},
        {"operation": "UPDATE", "object": {"metadata": 7}},
    ],
)
async def test_what_concerns_us_not(request_: Json) -> None:
    """Other operations, subresources and kinds pass as they are, whatever is in them; nobody is asked."""
    api = ApiServer()

    answer, response = await answer_to(api, **request_)

    assert (answer.outcome, api.asked) == ("unchanged", [])
    assert response == {"uid": REQUEST["uid"], "allowed": True, "status": {"code": 200}}


@pytest.mark.parametrize("told", [{"kind": None}, {"kind": {}}, {"operation": None}])
async def test_pod_that_is_not_called_one(told: Json) -> None:
    """A review that tells neither kind nor operation is one of a pod's creation."""
    answer, _ = await answer_to(ApiServer(), **told)

    assert answer.outcome == "wired"


@pytest.mark.parametrize(
    "value",
    [
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        "123456789012345678901234567890",
        r'"\ud800"',
        '"\\u0000"',
        "1e-400",
    ],
    ids=["lists", "objects", "huge", "surrogate", "nul", "tiny"],
)
async def test_odd_values_anywhere(value: str) -> None:
    """Odd but valid JSON where nobody looks, even inside a volume of ours, is no obstacle."""
    volume = {
        "name": contract.VOLUME_PREFIX + "0" * 30,
        "projected": {"sources": [{"serviceAccountToken": {"path": contract.TOKEN_PATH}}], "odd": "ODD"},
        "odd": "ODD",
    }
    pod = pod_with(odd="ODD", volumes=[volume], containers=[{"name": "app", "odd": "ODD"}])
    review = json.dumps(
        {
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {**REQUEST, "object": pod},
        }
    )

    body = review.replace('"ODD"', value).encode()
    answer = await admit(read_review(body), Accounts(ApiServer().fetch), SETTINGS, native_sidecars=True)

    assert answer.outcome == "wired"
    assert json.loads(answer.body)["response"]["allowed"] is True


async def test_name_of_half_a_pair() -> None:
    """A pod whose name holds half a surrogate pair is wired like one with the replacement character."""
    half = await answer_to(ApiServer(), {**POD, "metadata": {"name": "a\ud800"}})
    whole = await answer_to(ApiServer(), {**POD, "metadata": {"name": "a\ufffd"}})

    assert half == whole


async def test_every_warning_is_short() -> None:
    """However long the names that a warning is about, it stays within 120 characters."""
    annotations = {
        contract.PREFIX + "x" * 300: "",
        contract.CLIENT_ID: "",
        contract.SKIP_CONTAINERS: ";".join(f"{n}{'y' * 100}" for n in range(50)),
    }
    container = {"name": "z" * 200, "envFrom": [{}]}
    stale = {"env": [{"name": contract.ENV_CLIENT_ID, "value": "w" * 200}]}
    mount = {"volumeMounts": [{"name": "own", "mountPath": contract.BASE_PATH}]}
    own = {"name": "own", "projected": {"sources": [{"serviceAccountToken": {"path": contract.TOKEN_PATH}}]}}
    pod = pod_with(
        annotations, containers=[container, container, container, {**stale, **mount}], volumes=[own]
    )

    _, response = await answer_to(ApiServer(), pod)

    assert len(response["warnings"]) == 5
    assert [warning for warning in response["warnings"] if len(warning) > 120] == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
pods = st.fixed_dictionaries(
    {},
    optional={
        "metadata": values
        | st.fixed_dictionaries({}, optional={"name": values, "annotations": values, "labels": values}),
        "spec": values
        | st.fixed_dictionaries(
            {},
            optional={"serviceAccountName": values, "containers": values, "volumes": values},
        ),
    },
)


@pytest.mark.soak
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pods, values | st.just("shop"))
async def test_any_pod_is_answered(pod: Json, namespace: Any) -> None:
    """Any JSON as a pod, in any namespace, gets an answer that says yes or why not; nothing is raised."""
    answer, response = await answer_to(
        ApiServer(), pod, namespace=namespace if isinstance(namespace, str) else ""
    )

    assert response["allowed"] or response["status"]["message"]
    assert answer.outcome in {"wired", "refused", "missing", "unchanged"}
