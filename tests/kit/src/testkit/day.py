"""A day in an operator's life, made of what happens to one, and what it showed and wrote meanwhile."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from testkit.control_plane import ControlPlane
from testkit.installation import RELEASE, Served, serve
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, Namespace, eventually, fresh_namespace, pod
from workload_identity_operator import contract

TENANT: Final = "99999999-8888-7777-6666-555555555555"
PLANTED: Final = "Yk58Q~planted-client-secret-that-nobody-may-see"
"""What somebody pasted in the wrong place."""

_PROXY: Final[Mapping[str, Any]] = {"annotations": {contract.INJECT_PROXY: "true"}}
"""Metadata of a pod that the API server's policy leaves to the webhook."""
_POLICY: Final = "MutatingAdmissionPolicy"
_DECLARED: Final = f'workload_identity_policy_state{{object="{_POLICY}",state="declared"}}'
_REPAIRS: Final = f'workload_identity_policy_repairs_total{{object="{_POLICY}"}}'


@dataclass(frozen=True, slots=True)
class Day:
    """What came of it.

    Attributes:
        served: The cluster and its operator.
        inside: The namespace of the pods.
        scrapes: What Prometheus got, in the order in which it did.
    """

    served: Served
    inside: Namespace
    scrapes: list[str]

    def lines(self) -> list[dict[str, Any]]:
        """Return the operator's log."""
        text = self.served.operator.child.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@contextmanager
def lived() -> Iterator[Day]:
    """Have pods wired by policy and webhook, one refused, two outdated, and a policy that somebody edits."""
    values = {"azureTenantID": TENANT, "engine": "policy"}
    with (
        ControlPlane() as plane,
        serve(plane, values, ["--log-level=debug"]) as served,
        fresh_namespace(plane) as inside,
    ):
        scrapes = [served.operator.scrape()]
        _live(served, inside)
        scrapes += [served.operator.scrape()] * 2
        yield Day(served, inside, scrapes)


def _live(served: Served, inside: Namespace) -> None:
    operator = served.operator
    for repairs in (1, 2):  # a rate is made of two
        eventually(lambda: operator.metric(_DECLARED) == 1, within=60)
        edit = json.dumps({"spec": {"failurePolicy": "Fail"}})
        served.plane.kubectl("patch", "mutatingadmissionpolicy", RELEASE, "--type=merge", f"--patch={edit}")
        eventually(lambda: operator.metric(_REPAIRS) == repairs, within=60)  # noqa: B023 - called here
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    inside.account("pasted", {contract.CLIENT_ID: PLANTED})
    eventually(lambda: operator.metric("workload_identity_podwirings") == 1, within=60)
    # The API server knows of it a moment later.
    eventually(lambda: contract.POLICY_VOLUME in _rehearsed(inside), within=60)
    inside.create(pod("plain", "billing"))
    inside.create(pod("proxied", "billing", metadata=_PROXY))
    inside.create(pod("rehearsed", "billing", metadata=_PROXY), "--dry-run=server")
    inside.create(pod("careless", "pasted", metadata=_PROXY))
    _refused(inside, pod("odd", "billing", metadata={"annotations": {contract.EXPIRATION: "soon"}}))
    other = f"{contract.TENANT_ID}=88888888-8888-7777-6666-555555555555"
    inside.kubectl("annotate", "serviceaccount", "billing", other)
    eventually(lambda: operator.metric('workload_identity_pods{state="outdated"}') == 2, within=60)
    eventually(lambda: operator.metric(_DECLARED) == 1, within=60)  # as it was told to be long since


def _rehearsed(inside: Namespace) -> str:
    """Return a pod as it would be stored, as text."""
    return json.dumps(inside.create(pod("rehearsed", "billing"), "--dry-run=server"))


def _refused(inside: Namespace, manifest: dict[str, Any]) -> None:
    try:
        inside.create(manifest)
    except ProcessFailed:
        return
    raise AssertionError(f"{manifest['metadata']['name']} was let through")
