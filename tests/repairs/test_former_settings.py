"""Replicas of one release with different settings, as an upgrade has them: the declared ones are written."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from testkit.control_plane import ControlPlane
from testkit.installation import NAMESPACE, RELEASE, Operator, Served, second_running, serve
from testkit.workloads import CLIENT, Namespace, env_of, eventually, fresh_namespace, pod
from workload_identity_operator import contract

FORMER, NEW = "former.example.com", "new.example.com"
"""Tenants; each is the checksum of its settings too."""
DISAGREES_WITHIN = 7.0
"""Seconds after which a replica has written what it thinks right, if it ever does."""


def declare(plane: ControlPlane, checksum: str | None) -> None:
    """Have the release declare settings, or none."""
    note = f"{contract.SETTINGS_CHECKSUM}-"
    if checksum is not None:
        note = f"{contract.SETTINGS_CHECKSUM}={checksum}"
    where = (f"{RELEASE}-declared", f"--namespace={NAMESPACE}")
    plane.kubectl("annotate", "configmap", *where, "--overwrite", note)


@contextmanager
def replica_running(served: Served, tenant: str) -> Iterator[Operator]:
    """Run another replica of the release, with the settings of a tenant."""
    environ, flags = {"AZURE_TENANT_ID": tenant}, [f"--settings-checksum={tenant}"]
    with second_running(replace(served, environ=environ, flags=flags)) as operator:
        yield operator


def table(inside: Namespace) -> dict[str, Any]:
    """Return the namespace's PodWiring; {} when there is none."""
    (found,) = inside.get("podwirings")["items"] or ({},)
    return dict(found)


def settled(inside: Namespace, tenant: str) -> dict[str, Any] | None:
    """Return the namespace's PodWiring once it is a tenant's and its status is about its spec."""
    found = table(inside)
    current = found and found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    return found if current and found["spec"]["tenantID"] == tenant else None


def written(inside: Namespace, seconds: float) -> set[tuple[int, str, int]]:
    """Return all that is seen of the PodWiring in that time: generation, tenant, and whose status it has."""
    seen, until = set[tuple[int, str, int]](), time.monotonic() + seconds
    while time.monotonic() < until:
        one = table(inside)
        status = one["status"]["observedGeneration"]
        seen.add((one["metadata"]["generation"], one["spec"]["tenantID"], status))
    return seen


def test_former_replicas_leave_the_tables_to_new_ones(plane: ControlPlane) -> None:
    """From the moment on in which the release declares the new ones, until it declares theirs again."""
    flags = [f"--settings-checksum={FORMER}"]
    with (
        serve(plane, {"azureTenantID": FORMER, "engine": "auto"}, flags) as served,
        fresh_namespace(plane) as inside,
    ):
        try:
            inside.account("billing", {contract.CLIENT_ID: CLIENT})
            before = eventually(lambda: settled(inside, FORMER))
            log = served.operator.child.log

            declare(plane, NEW)
            eventually(lambda: "PodWirings are left to replicas" in log.read_text())
            inside.account("shipping", {contract.CLIENT_ID: CLIENT})
            by_webhook = inside.create(pod("web", "shipping"), "--dry-run=server")
            assert env_of(by_webhook)["AZURE_TENANT_ID"] == FORMER
            assert table(inside)["metadata"]["generation"] == before["metadata"]["generation"]

            with replica_running(served, NEW):
                after = eventually(lambda: settled(inside, NEW))
                # One write of one replica: there was nothing in between.
                generation = before["metadata"]["generation"] + 1
                assert after["metadata"]["generation"] == generation
                assert after["spec"]["identities"].keys() == {"billing", "shipping"}
                assert written(inside, 12) == {(generation, NEW, generation)}
                assert served.operator.ready()

            declare(plane, FORMER)
            back = eventually(lambda: settled(inside, FORMER))
            assert "PodWirings are kept again" in log.read_text()
            generation = back["metadata"]["generation"]
            with replica_running(served, NEW):  # that starts when it is no longer declared
                assert written(inside, DISAGREES_WITHIN) == {(generation, FORMER, generation)}

                declare(plane, None)
                eventually(lambda: settled(inside, NEW))
        finally:
            declare(plane, None)


def test_a_release_that_declares_no_settings(plane: ControlPlane) -> None:
    """Or to an operator that cannot read them: it writes, whatever it was given."""
    flags = [f"--settings-checksum={FORMER}"]
    with (
        serve(plane, {"azureTenantID": FORMER, "engine": "auto"}, flags) as served,
        fresh_namespace(plane) as inside,
    ):
        plane.kubectl("delete", "configmap", f"{RELEASE}-declared", f"--namespace={NAMESPACE}")
        inside.account("billing", {contract.CLIENT_ID: CLIENT})
        eventually(lambda: settled(inside, FORMER))
        plane.kubectl("delete", "role", RELEASE, f"--namespace={NAMESPACE}")
        with replica_running(served, NEW):
            eventually(lambda: settled(inside, NEW))
