"""Which pods are found, and as what: pods are wired by `wire` itself, then something changes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from testkit.cases import ENVIRONMENT, read_cases, settings_of
from workload_identity_operator import contract
from workload_identity_operator.admission import wiring_of
from workload_identity_operator.audit import (
    Audit,
    Finding,
    Origin,
    Rules,
    audit,
    judge,
    would_help,
    written_in,
)
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.settings import Flags, read_settings
from workload_identity_operator.shapes import Json

CLIENT, OTHER = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
ACCOUNT = {contract.CLIENT_ID: CLIENT}
RULES = Rules(read_settings(Flags(), ENVIRONMENT))
CASES = {name: case for name, case in read_cases().items() if "wired" in case and case["account"] is not None}


def pod(*, labels: Mapping[str, str] | None = None, env: list[Json] | None = None, **spec: Any) -> Json:
    """Return a pod as its author wrote it, labelled unless said otherwise."""
    container: Json = {"name": "app", "image": "x"} | ({} if env is None else {"env": env})
    return {
        "metadata": {
            "name": "web-1",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {contract.USE_LABEL: "true"} if labels is None else dict(labels),
        },
        "spec": {"serviceAccountName": "web", "containers": [container], **spec},
    }


def wired(written: Json, account: Mapping[str, str] = ACCOUNT, rules: Rules = RULES) -> Json:
    """Return the pod as it is stored when its ServiceAccount is annotated so."""
    metadata = written.get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    operations = wiring_of(
        written, labels, annotations, account, rules.settings, native_sidecars=rules.native_sidecars
    ).operations
    stored: Json = jsonpatch.apply_patch(written, operations)
    for volume in stored["spec"].get("volumes") or ():
        if volume.get("projected"):
            volume["projected"].setdefault("defaultMode", 420)
    stored["metadata"] = stored.get("metadata") or {}
    return stored


def states(*pods: Json, account: Mapping[str, str] = ACCOUNT, rules: Rules = RULES) -> Mapping[str, int]:
    """Return how many pods are in which state; those that are in none left out."""
    found = audit(pods, {"web": account}, rules).by_state()
    return {state: count for state, count in found.items() if count}


def found_in(stored: Json, account: Mapping[str, str] = ACCOUNT, origin: Origin = Origin()) -> Finding:  # noqa: B008 - frozen
    """Return what is found of a pod."""
    judged = judge(stored, account, RULES, origin)
    assert isinstance(judged, Finding), judged
    return judged


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_case_is_unwired_and_then_wired(name: str) -> None:
    """What the cases of wiring call wired is never found; what wiring would change always is."""
    case = CASES[name]
    rules, account = Rules(settings_of(case)), case["account"]
    metadata = case["pod"].get("metadata") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    labelled = {**case["pod"], "metadata": {**metadata, "labels": {**labels, contract.USE_LABEL: "true"}}}
    changes = wiring_of(
        labelled, labels, annotations, account, rules.settings, native_sidecars=True
    ).operations
    origin = Origin(written_in(case["pod"]))
    stored = {**case["wired"], "metadata": labelled["metadata"], "spec": case["wired"].get("spec") or {}}

    before = judge({**labelled, "spec": labelled.get("spec") or {}}, account, rules, origin)
    after = judge(stored, account, replace(rules, native_sidecars=_native(case)), origin)

    assert isinstance(before, Finding) is bool(changes) or contract.MIRROR_POD in annotations
    assert after == "wired" or contract.MIRROR_POD in annotations


def _native(case: Json) -> bool:
    return not str(case.get("kubernetes", "v1.36.3")).startswith(("v1.2", "v1.30", "v1.31"))


def test_unwired_pods_are_found() -> None:
    """Labelled, or of a ServiceAccount with a client id: both should have an identity."""
    assert states(pod(), pod(labels={}), wired(pod())) == {"unwired": 2, "wired": 1}


def test_label_alone_counts_where_the_chart_says_so() -> None:
    """With the selection `label` an unlabelled pod is none of ours."""
    assert states(pod(), pod(labels={}), rules=replace(RULES, label_only=True)) == {"unwired": 1}


@pytest.mark.parametrize(
    "stored",
    [
        pod(labels={contract.USE_LABEL: "false"}),
        pod() | {"status": {"phase": "Succeeded"}},
        pod() | {"status": {"phase": "Failed"}},
    ],
    ids=["opted-out", "succeeded", "failed"],
)
def test_others_are_not_found(stored: Json) -> None:
    """Who opts out, and who has ended, lacks nothing."""
    assert states(stored) == {}


def test_pods_that_go_and_mirror_pods_are_not_found() -> None:
    """A pod that is being deleted, and the kubelet's copy of a static pod, cannot be helped."""
    going, mirror = pod(), pod()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    mirror["metadata"]["annotations"] = {contract.MIRROR_POD: "x"}

    assert states(going, mirror) == {}


def test_unlabelled_pods_of_other_accounts_are_not_found() -> None:
    """A ServiceAccount without a client id gives its pods nothing unless they ask by their label."""
    assert states(pod(labels={}), account={}) == {}
    assert states(pod(), account={}) == {"unwired": 1}


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ({}, {contract.CLIENT_ID: OTHER}, f'AZURE_CLIENT_ID "{CLIENT}", not "{OTHER}"'),
        ({}, {contract.TENANT_ID: "t2"}, 'AZURE_TENANT_ID "22222222-2222-2222-2222-222222222222", not "t2"'),
        ({contract.TENANT_ID: "t1"}, {}, 'AZURE_TENANT_ID "t1", not "22222222-'),
        ({}, {contract.TENANT_ID: ""}, "not none"),
        ({}, {contract.EXPIRATION: "7200"}, "7200 s now"),
        ({contract.CLIENT_ID: ""}, {}, "lacks AZURE_CLIENT_ID"),
        ({}, {contract.CLIENT_ID: ""}, f'AZURE_CLIENT_ID "{CLIENT}", not none'),
    ],
    ids=["client", "tenant", "tenant-gone", "tenant-emptied", "expiration", "client-added", "client-gone"],
)
def test_changed_annotations_make_pods_outdated(then: dict[str, str], now: dict[str, str], told: str) -> None:
    """A pod that carries what its ServiceAccount said before is found, and what differs is told."""
    finding = found_in(wired(pod(), ACCOUNT | then), ACCOUNT | now)

    assert finding.state == "outdated"
    assert told in finding.reason


@pytest.mark.parametrize(
    "flags", [Flags(audience="api://other"), Flags(authority_host="https://login.example/")]
)
def test_changed_settings_make_pods_outdated(flags: Flags) -> None:
    """Audience and authority host of the operator count as an annotation does."""
    rules = Rules(read_settings(flags, ENVIRONMENT))

    assert states(wired(pod()), rules=rules) == {"outdated": 1}


def test_a_path_added_since_makes_pods_outdated() -> None:
    """The token's former path, switched on after the pod was wired, is a changed setting and no fault."""
    rules = Rules(read_settings(Flags(legacy_token_path=True), ENVIRONMENT))
    stored = wired(pod())

    judged = judge(stored, ACCOUNT, rules)

    assert isinstance(judged, Finding)
    assert judged.state == "outdated"
    assert "lacks the token at /var/run/secrets/azure/tokens" in judged.reason


def test_the_proxy_lacks_nothing() -> None:
    """Its containers are made without the former path, and so complete."""
    written = pod()
    written["metadata"]["annotations"] = {
        contract.INJECT_PROXY: "true",
        contract.LEGACY_PATH_ANNOTATION: "true",
    }
    assert states(wired(written)) == {"wired": 1}


def test_identity_taken_away_makes_pods_outdated() -> None:
    """An unlabelled pod keeps the identity that its ServiceAccount names no more."""
    assert states(wired(pod(labels={})), account={}) == {"outdated": 1}


def test_identity_in_part_is_wrong() -> None:
    """A container that was added after the pod was wired has no identity; the pod has one."""
    stored = wired(pod())
    stored["spec"]["containers"].append({"name": "added", "image": "x"})

    assert states(stored) == {"wrong": 1}


def test_skipped_containers_lack_nothing() -> None:
    """What the pod's annotation skips needs no identity."""
    written = pod()
    written["metadata"]["annotations"] = {contract.SKIP_CONTAINERS: "added"}
    stored = wired(written)
    stored["spec"]["containers"].append({"name": "added", "image": "x"})

    assert states(stored) == {"wired": 1}


@pytest.mark.parametrize(
    "preset", [contract.ENV_CLIENT_ID, contract.ENV_TENANT_ID, contract.ENV_AUTHORITY_HOST]
)
def test_authors_own_values_are_not_outdated(preset: str) -> None:
    """What the template sets is its author's, whatever the ServiceAccount says."""
    written = pod(env=[{"name": preset, "value": "own"}])

    assert judge(wired(written), ACCOUNT, RULES, Origin(written_in(written))) == "wired"


def test_authors_own_values_are_known_from_what_was_applied() -> None:
    """`kubectl apply` keeps what was written, which tells the same of a pod without a controller."""
    written = pod(env=[{"name": contract.ENV_CLIENT_ID, "value": "own"}])
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    stored = wired(written)
    stored["metadata"]["annotations"] = {applied: json.dumps(written)}

    assert judge(stored, ACCOUNT, RULES) == "wired"


def test_authors_own_values_are_known_by_their_place() -> None:
    """Ours are appended after all others: what stands elsewhere was never ours."""
    written = pod(env=[{"name": contract.ENV_CLIENT_ID, "value": "own"}, {"name": "LEVEL", "value": "info"}])

    assert judge(wired(written), ACCOUNT, RULES) == "wired"


def test_where_nobody_kept_what_was_written_it_is_doubtful() -> None:
    """The same pod can be outdated or its author's will; a ServiceAccount unchanged since settles it."""
    stored = wired(pod(env=[{"name": contract.ENV_CLIENT_ID, "value": "own"}]))

    assert found_in(stored).doubtful
    assert judge(stored, ACCOUNT, RULES, Origin(account_unchanged=True)) == "wired"
    changed_tenant = Rules(read_settings(Flags(), {"AZURE_TENANT_ID": "another"}))
    judged = judge(wired(pod()), ACCOUNT, changed_tenant, Origin(account_unchanged=True))
    assert isinstance(judged, Finding)


def test_pods_that_would_be_refused_are_told_so() -> None:
    """Making such a pod anew does not help, and the finding says why."""
    finding = found_in(pod(), ACCOUNT | {contract.EXPIRATION: "1h"})

    assert finding.state == "unwired"
    assert finding.refused
    assert '"1h": invalid syntax' in finding.reason


def test_restarts_that_cannot_help_are_known_before() -> None:
    """Pods of a template that is not chosen, or would be refused, would come back as they are."""
    mount = {"name": "data", "mountPath": contract.BASE_PATH}
    blocked = pod(volumes=[{"name": "data", "emptyDir": {}}])
    blocked["spec"]["containers"][0]["volumeMounts"] = [mount]

    assert would_help(pod(), ACCOUNT, RULES) == ""
    assert "has no label" in would_help(pod(labels={}), {}, RULES)
    assert "mount it elsewhere" in would_help(blocked, ACCOUNT, RULES)


# For any pod.

VARIABLES = st.fixed_dictionaries(
    {"name": st.sampled_from([*contract.VARIABLES[:4], "LEVEL"])},
    optional={"value": st.sampled_from(["", "own", CLIENT]), "valueFrom": st.just({"fieldRef": {}})},
)
CONTAINERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["app", "side"])}, optional={"env": st.lists(VARIABLES, max_size=4)}
)
PODS = st.builds(
    lambda containers, labels: pod(labels=labels, containers=containers),
    st.lists(CONTAINERS, min_size=1, max_size=2, unique_by=lambda container: str(container["name"])),
    st.sampled_from([{}, {contract.USE_LABEL: "true"}]),
)
ACCOUNTS = st.fixed_dictionaries(
    {},
    optional={
        contract.CLIENT_ID: st.sampled_from([CLIENT, OTHER]),
        contract.TENANT_ID: st.sampled_from(["", "t1"]),
        contract.EXPIRATION: st.sampled_from(["3600", "7200"]),
    },
)
any_pod = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


@pytest.mark.soak
@any_pod
@given(PODS, ACCOUNTS)
def test_what_wiring_made_is_never_found(written: Json, account: Mapping[str, str]) -> None:
    """A pod just wired is wired; where its template is not known there may be a doubt, and no more."""
    assume(written["metadata"]["labels"] or account.get(contract.CLIENT_ID))
    stored = wired(written, account)

    assert judge(stored, account, RULES, Origin(written_in(written))) == "wired"
    unknown = judge(stored, account, RULES)
    assert unknown == "wired" or (isinstance(unknown, Finding) and unknown.doubtful)


@pytest.mark.soak
@any_pod
@given(PODS, ACCOUNTS, ACCOUNTS)
def test_what_wiring_would_change_is_found(
    written: Json, then: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Wherever wiring would do something, also after an annotation was changed, there is a finding."""
    for stored in (written, wired(written, then)):
        labels = stored["metadata"]["labels"]
        assume(labels or now.get(contract.CLIENT_ID))
        try:
            changes = wiring_of(stored, labels, {}, now, RULES.settings, native_sidecars=True).operations
        except PodRefused:
            changes = [{}]
        judged = judge(stored, now, RULES, Origin(written_in(written)))

        assert isinstance(judged, Finding) or not changes


@pytest.mark.soak
@any_pod
@given(PODS, ACCOUNTS, ACCOUNTS)
def test_what_differs_from_a_pod_made_now_is_found(
    written: Json, then: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """A pod is found exactly when one that was made now from the same template would be another."""
    assume(written["metadata"]["labels"] or (then.get(contract.CLIENT_ID) and now.get(contract.CLIENT_ID)))
    stored, made_now = wired(written, then), wired(written, now)

    judged = judge(stored, now, RULES, Origin(written_in(written)))

    assert (judged == "wired") is (_meaning(stored) == _meaning(made_now))


def _meaning(stored: Json) -> Json:
    """Return what containers see: the order of variables is no part of it."""
    containers = [
        {**one, "env": {variable["name"]: variable for variable in one.get("env") or ()}}
        for one in stored["spec"]["containers"]
    ]
    return {**stored["spec"], "containers": containers}


def test_counting_nothing() -> None:
    """No pods, no findings, all counts zero."""
    assert Audit(0, []).by_state() == {"wired": 0, "unwired": 0, "outdated": 0, "wrong": 0}
