"""A large cluster: what starting costs, and that nothing is missing from the table when ready."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes.client

from testkit.control_plane import ControlPlane
from testkit.installation import free_port, install_chart, operator_running
from workload_identity_operator import contract

ACCOUNTS, ANNOTATED = 10_000, 1_000
MOST_MEMORY = 90_000
"""kB of resident memory; the peer's Go process takes 58,000."""


def peak_memory(pid: int) -> int:
    """Return the most resident memory a process ever had, in kB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


def test_every_identity_is_known_when_ready(record_property) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """10,000 ServiceAccounts, 1,000 of them annotated: ready with all 1,000, and in bounded memory."""
    with ControlPlane() as plane:
        core = kubernetes.client.CoreV1Api(plane.client())

        def create(number: int) -> None:
            client = f"{number:08d}-0000-0000-0000-000000000000"
            annotations = {contract.CLIENT_ID: client} if number % (ACCOUNTS // ANNOTATED) == 0 else None
            metadata = kubernetes.client.V1ObjectMeta(name=f"sa-{number}", annotations=annotations)
            core.create_namespaced_service_account(
                "default", kubernetes.client.V1ServiceAccount(metadata=metadata)
            )

        with ThreadPoolExecutor(8) as people:
            list(people.map(create, range(ACCOUNTS)))
        port = free_port()
        install_chart(plane, port, {"azureTenantID": "t"})
        started = time.monotonic()
        with operator_running(plane, port, environ={"AZURE_TENANT_ID": "t"}) as operator:
            ready = time.monotonic() - started
            identities = operator.metric("workload_identity_identities")
            # kopf lists all of them once more after we are ready; what it holds is in the peak.
            time.sleep(6)
            memory = peak_memory(operator.child.pid)
    record_property("seconds_until_ready", round(ready, 2))
    record_property("peak_kB", memory)
    print(f"{ACCOUNTS} ServiceAccounts, {ANNOTATED} annotated: ready in {ready:.1f} s, peak {memory} kB")

    assert identities == ANNOTATED
    assert memory < MOST_MEMORY
