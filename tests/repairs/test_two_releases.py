"""Two releases: the second leaves the first one's PodWirings alone, and says so where its settings differ."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testkit.ailments import patient_of
from testkit.control_plane import ControlPlane
from testkit.installation import (
    CONFIGURATION,
    NAMESPACE,
    RELEASE,
    Operator,
    Served,
    free_port,
    operator_running,
)
from testkit.manifests import CHART
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, Namespace, eventually
from workload_identity_operator import contract

SECOND = "second-workload-identity-operator"
KEEPER = contract.CONFIGURATION_PREFIX + SECOND
DEFINITION = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
KEPT = f"are kept by the release of MutatingWebhookConfiguration {CONFIGURATION} "


@contextmanager
def second_release(plane: ControlPlane, tenant: str, *flags: str) -> Iterator[Operator]:
    """Install another release with its own tenant and run its operator, with the rights it gives."""
    port = free_port()
    values = {"azureTenantID": tenant, "webhook": {"url": f"https://127.0.0.1:{port}/mutate-v1-pod"}}
    where = ("--namespace=second", "--create-namespace", "--values=-")
    plane.helm("install", "second", CHART, *where, given=json.dumps(values))
    try:
        with operator_running(
            plane,
            port,
            environ={"AZURE_TENANT_ID": tenant, "POD_NAMESPACE": "second"},
            flags=[f"--webhook-configuration={KEEPER}", *flags],
            kubeconfig=plane.kubeconfig_for(SECOND, "second"),
        ) as operator:
            yield operator
    finally:
        plane.helm("uninstall", "second", "--namespace=second")


def table(inside: Namespace) -> dict[str, Any]:
    """Return the namespace's PodWiring; {} when there is none."""
    found: list[dict[str, Any]] = inside.get("podwirings")["items"]
    return found[0] if found else {}


def tenant_of(inside: Namespace) -> str:
    """Return the tenant that the namespace's PodWiring has."""
    return str(table(inside).get("spec", {}).get("tenantID", ""))


def keeper_of(inside: Namespace) -> str:
    """Return who keeps the namespace's PodWiring."""
    return str(table(inside)["metadata"]["annotations"][contract.POD_WIRING_KEEPER])


def test_table_of_a_release_that_is_gone_is_taken_over(inside: Namespace) -> None:
    """It says who keeps it now, though it holds what it held: whoever looks finds nobody missing."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    eventually(lambda: table(inside))
    before = table(inside)["metadata"]["generation"]
    note = json.dumps({"metadata": {"annotations": {contract.POD_WIRING_KEEPER: "gone"}}})

    inside.kubectl("patch", "pw", contract.POD_WIRING_NAME, "--type=merge", f"--patch={note}")

    eventually(lambda: keeper_of(inside) == CONFIGURATION)
    assert table(inside)["metadata"]["generation"] == before


def test_second_release_with_the_same_settings_writes_nothing(served: Served, inside: Namespace) -> None:
    """The table stays the first one's; nobody is warned, for nothing differs."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    tenant = eventually(lambda: tenant_of(inside))

    with second_release(served.plane, tenant) as second:
        eventually(lambda: "PodWirings are kept" in second.child.log.read_text())
        generation = table(inside)["metadata"]["generation"]
        for _ in range(14):  # longer than either of them thinks about what the other wrote
            time.sleep(0.5)
            assert keeper_of(inside) == CONFIGURATION
        assert table(inside)["metadata"]["generation"] == generation
        assert KEPT not in second.child.log.read_text()


def test_second_release_leaves_the_tables_alone(served: Served, inside: Namespace) -> None:
    """They stay the first one's, edits put right, until it is gone; then they are the second one's."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    first = eventually(lambda: tenant_of(inside))

    with second_release(served.plane, "another.example.com") as second:
        log = second.child.log
        eventually(lambda: KEPT in log.read_text())
        inside.account("shipping", {contract.CLIENT_ID: CLIENT})
        eventually(lambda: table(inside)["spec"]["identities"].keys() == {"billing", "shipping"})
        settled = table(inside)
        time.sleep(12)  # as long as either of them thinks about the other
        assert table(inside)["metadata"]["generation"] == settled["metadata"]["generation"]
        assert tenant_of(inside) == first

        patch = '--patch={"spec": {"tenantID": "evil"}}'
        inside.kubectl("patch", "pw", contract.POD_WIRING_NAME, "--type=merge", patch)
        eventually(lambda: tenant_of(inside) == first)
        assert log.read_text().count(KEPT) == 1
        found = patient_of(served.plane, probe=False, offline=True).told()
        assert ("podwiring-anothers", f"PodWiring {inside.name}/{contract.POD_WIRING_NAME}") in found

        served.plane.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
        eventually(lambda: tenant_of(inside) == "another.example.com", within=60)
        assert keeper_of(inside) == KEEPER


def marks_of(plane: ControlPlane) -> tuple[str, str]:
    """Return the release, by name and namespace, that Helm takes the kind of the tables to be of."""
    notes = plane.get("crd", DEFINITION)["metadata"]["annotations"]
    return notes["meta.helm.sh/release-name"], notes["meta.helm.sh/release-namespace"]


def is_served(plane: ControlPlane) -> bool:
    """Whether there are tables again."""
    try:
        plane.get("podwirings", "--all-namespaces")
    except ProcessFailed:
        return False
    return True


def declares(plane: ControlPlane) -> bool:
    """Whether the second release tells its operator to keep the kind of the tables."""
    declared = plane.get("configmap", f"{SECOND}-declared", "--namespace=second")["data"]
    return "CustomResourceDefinition" in declared


def brings(plane: ControlPlane) -> bool:
    """Whether Helm installs it with the second release."""
    return f"  name: {DEFINITION}\n" in plane.helm("get", "manifest", "second", "--namespace=second")


def leaves_it_to_a_third(plane: ControlPlane) -> None:
    """See that a third release has the kind of the tables, of another version, for as long as it is there."""
    marks = {"meta.helm.sh/release-name": "third", "meta.helm.sh/release-namespace": "third"}
    third = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": "third",
            "labels": {"helm.sh/chart": "workload-identity-operator-9.9.9"},
            "annotations": marks,
        },
    }
    plane.create(third)

    def names() -> list[str]:
        short: list[str] = plane.get("crd", DEFINITION)["spec"]["names"].get("shortNames", [])
        return short

    ours, patch = names(), {"metadata": {"annotations": marks}, "spec": {"names": {"shortNames": ["pws"]}}}
    plane.kubectl("patch", "crd", DEFINITION, "--type=merge", "--patch", json.dumps(patch))
    # What is put right after it was looked at, so that is known to have happened.
    plane.kubectl("delete", "mutatingadmissionpolicy", SECOND)
    eventually(
        lambda: SECOND in plane.kubectl("get", "mutatingadmissionpolicies", "--output=name"), within=60
    )
    assert names() == ["pws"]

    plane.kubectl("delete", "mutatingwebhookconfiguration", "third")
    plane.kubectl("annotate", "crd", DEFINITION, "looked=at")
    eventually(lambda: names() == ours, within=60)
    assert marks_of(plane) == ("second", "second")


def test_kind_of_the_tables_outlives_the_release_that_brought_it(served: Served) -> None:
    """Whoever is left has it then: deleted by hand it comes back, and upgrades have it again."""
    plane = served.plane
    upgrade = ("upgrade", "second", CHART, "--namespace=second", "--reuse-values")

    with second_release(plane, "another.example.com", f"--declaration={SECOND}-declared"):
        plane.helm(*upgrade)
        assert marks_of(plane) == (RELEASE, NAMESPACE)
        assert not declares(plane)

        plane.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}")
        plane.helm(*upgrade)
        assert declares(plane)
        assert not brings(plane)  # it would be refused what another has

        plane.kubectl("delete", "crd", DEFINITION)
        eventually(lambda: is_served(plane), within=60)
        assert marks_of(plane) == ("second", "second")

        plane.helm(*upgrade)
        assert declares(plane)
        assert brings(plane)

        leaves_it_to_a_third(plane)
    plane.kubectl("delete", "crd", DEFINITION)
