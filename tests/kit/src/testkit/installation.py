"""The operator as its users have it, but for where it runs: the chart by helm, the process on this machine.

There are no nodes, so the chart's webhook is pointed at this machine, and the operator runs here with exactly
the rights that the chart gives its ServiceAccount.
"""

import json
import os
import socket
import ssl
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import trustme

from testkit.control_plane import ControlPlane
from testkit.manifests import CHART
from testkit.processes import Child, ProcessFailed, running
from workload_identity_operator import contract

RELEASE = contract.RELEASE_NAME
CONFIGURATION = contract.CONFIGURATION_PREFIX + RELEASE
"""Its MutatingWebhookConfiguration."""
NAMESPACE = "azure-workload-identity-system"
READY_WITHIN = 120
"""Seconds; it takes one where there is nothing else to do."""
IN_CLUSTER_WITHIN = 180
"""Seconds until all of its pods are ready; it takes ten."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A running operator.

    Attributes:
        child: Its process.
        webhook: URL that reviews are sent to.
        health: Base URL of `/healthz` and `/readyz`.
        metrics: Base URL of `/metrics`.
    """

    child: Child
    webhook: str
    health: str
    metrics: str

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        return _get(f"{self.health}/readyz")[0] == 200

    def scrape(self) -> str:
        """Return what Prometheus gets."""
        return _get(f"{self.metrics}/metrics")[1]

    def metric(self, name: str) -> float:
        """Return the value of the series written exactly like this, labels included; 0 when there is none."""
        for line in self.scrape().splitlines():
            series, _, value = line.rpartition(" ")
            if series == name:
                return float(value)
        return 0.0

    def reviews_of(self, namespace: str) -> float:
        """Return how many reviews of pods of a namespace were answered."""
        labels = f'namespace="{namespace}",otel_scope_name="webhook",service_name="webhook"'
        return self.metric(f"azwi_mutation_request_count{{{labels}}}")


def free_port() -> int:
    """Return a port on loopback that nobody uses at the moment."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def install_chart(plane: ControlPlane, port: int, values: Mapping[str, object], *flags: str) -> None:
    """Install the chart, or upgrade it, its webhook pointed at a port of this machine; `flags` are helm's."""
    everything = {"webhook": {"url": f"https://127.0.0.1:{port}/mutate-v1-pod"}, "logLevel": "info", **values}
    plane.helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace"),
        *("--values", "-", *flags),
        given=json.dumps(everything),
    )


def install_in_cluster(plane: ControlPlane, values: Mapping[str, object], *flags: str) -> None:
    """Install the chart as its users do, or upgrade it: its pods run in the cluster, and are waited for.

    Those of before too, until they are gone: until then they act on the former values.
    """
    plane.helm(
        *("upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--create-namespace"),
        *("--values=-", "--reset-values", "--wait", f"--timeout={IN_CLUSTER_WITHIN}s", *flags),
        given=json.dumps(values),
    )
    deadline = time.monotonic() + IN_CLUSTER_WITHIN
    while any("deletionTimestamp" in pod["metadata"] for pod in operator_pods(plane)):
        if time.monotonic() > deadline:
            raise ProcessFailed(f"Former pods of the operator were not gone within {IN_CLUSTER_WITHIN} s.")
        time.sleep(0.2)


def operator_pods(plane: ControlPlane) -> list[dict[str, Any]]:
    """Return the operator's pods, those that are about to end too."""
    chosen = f"--selector=app.kubernetes.io/instance={RELEASE}"
    found: list[dict[str, Any]] = plane.get("pods", f"--namespace={NAMESPACE}", chosen)["items"]
    return found


@dataclass(frozen=True, slots=True)
class Served:
    """A cluster in which the chart is installed, and the operator that serves it.

    Attributes:
        plane: The cluster.
        port: Where the chart has the webhook.
        environ: The operator's environment.
        flags: Its flags, beside those it needs to run here.
        operator: The one that runs.
    """

    plane: ControlPlane
    port: int
    environ: Mapping[str, str]
    flags: Sequence[str]
    operator: Operator


@contextmanager
def serve(plane: ControlPlane, values: Mapping[str, object], flags: Sequence[str] = ()) -> Iterator[Served]:
    """Install the chart with these values and run the operator with the rights of its ServiceAccount.

    `flags` are added to those that the values make necessary.
    """
    port = free_port()
    install_chart(plane, port, values)
    environ = {"AZURE_TENANT_ID": str(values["azureTenantID"])}
    flags = [
        *([f"--authority-host={host}"] if (host := values.get("azureAuthorityHost")) else []),
        *flags,
    ]
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    with operator_running(plane, port, environ=environ, flags=flags, kubeconfig=kubeconfig) as operator:
        yield Served(plane, port, environ, flags, operator)


@contextmanager
def operator_running(
    plane: ControlPlane,
    port: int,
    *,
    environ: Mapping[str, str],
    flags: Sequence[str] = (),
    kubeconfig: Path | None = None,
    ready: bool = True,
    program: Sequence[str] = ("workload_identity_operator",),
) -> Iterator[Operator]:
    """Run the operator on a port of this machine until the context is left.

    Args:
        plane: The cluster it serves.
        port: Where it answers reviews.
        environ: Its environment, beside what any process needs.
        flags: Further flags.
        kubeconfig: As whom; None is the administrator.
        ready: Whether to wait until it is ready; else only until it listens for probes.
        program: The module that is run, and its first arguments.

    Raises:
        ProcessFailed: It ended, or was not ready in time; the message has the end of its log.
    """
    log = plane.folder / f"operator-{port}.log"
    command = [
        *(sys.executable, "-m", *program, "run"),
        *("--kubeconfig", str(kubeconfig or plane.kubeconfig), "--listen", f"127.0.0.1:{port}"),
        *("--health-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--log-level", "info"),
        *("--drain-seconds", "0", *flags),
    ]
    env = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | dict(environ)
    start = log.stat().st_size if log.exists() else 0
    with running(command, log=log, env=env) as child:
        child.wait_until(lambda: _starting(log, start) is not None, within=READY_WITHIN)
        addresses = _starting(log, start) or {}
        webhook = f"https://127.0.0.1:{port}/mutate-v1-pod"
        operator = Operator(child, webhook, addresses["health"], addresses["metrics"])
        if ready:
            child.wait_until(operator.ready, within=READY_WITHIN)
        yield operator


@contextmanager
def second_running(served: Served) -> Iterator[Operator]:
    """Run a second operator of the same release, which does all but answer reviews.

    It has a certificate of its own that it does not publish: outside a cluster there is no Secret to share
    one through, so its authority would take the place of the first one's in the caBundle, and reviews would
    fail for a minute. So it is never ready, and not waited for.
    """
    plane, port = served.plane, free_port()
    certificates = plane.folder / f"certificate-{port}"
    certificates.mkdir()
    pair = trustme.CA().issue_cert("127.0.0.1")
    pair.cert_chain_pems[0].write_to_path(certificates / "tls.crt")
    pair.private_key_pem.write_to_path(certificates / "tls.key")
    flags = [*served.flags, "--disable-cert-rotation", f"--webhook-cert-dir={certificates}"]
    kubeconfig = plane.kubeconfig_for(RELEASE, NAMESPACE)
    second = operator_running(
        plane, port, environ=served.environ, flags=flags, kubeconfig=kubeconfig, ready=False
    )
    with second as operator:
        yield operator


def _starting(log: Path, start: int) -> Mapping[str, str] | None:
    """Return the log line in which the operator names its addresses, once it is there."""
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines:
            if b'"message": "starting"' in line and line.endswith(b"\n"):
                found: Mapping[str, str] = json.loads(line)
                return found
    return None


def _get(url: str) -> tuple[int, str]:
    """Return status and text of a plain HTTP answer; status 0 when there is none."""
    host, _, path = url.removeprefix("http://").partition("/")
    with closing(HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, HTTPException):
            return 0, ""


def webhook_trust(plane: ControlPlane) -> ssl.SSLContext:
    """Return what the API server trusts when it calls the webhook: its caBundle and nothing else."""
    found = plane.get("mutatingwebhookconfiguration", CONFIGURATION)
    bundle = b64decode(found["webhooks"][0]["clientConfig"]["caBundle"]).decode("ascii")
    return ssl.create_default_context(cadata=bundle)
