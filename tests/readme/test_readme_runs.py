"""The READMEs do what they say: their manifests, commands and programs are run as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.binaries import provide
from testkit.control_plane import ControlPlane
from testkit.entra import EntraStandIn
from testkit.installation import free_port
from testkit.issuer import Issuer
from testkit.processes import finish, running
from testkit.workloads import CLIENT, eventually
from workload_identity_operator import contract

ROOT = Path(__file__).parents[2]
TENANT = "99999999-8888-7777-6666-555555555555"


def blocks(path: str, language: str) -> list[str]:
    """Return a page's code blocks of a language, in their order."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(path: str, containing: str) -> str:
    """Return the one shell block that contains some text."""
    (found,) = (block for block in blocks(path, "sh") if containing in block)
    return found


def shown(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return of a stored pod what the README shows of one."""
    spec = pod["spec"]
    ours = [volume for volume in spec["volumes"] if not volume["name"].startswith("kube-api-access-")]
    names = {volume["name"] for volume in ours}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "env": container["env"],
            "volumeMounts": [mount for mount in container["volumeMounts"] if mount["name"] in names],
        }
        for container in spec["containers"]
    ]
    return {
        "metadata": {"labels": pod["metadata"]["labels"]},
        "spec": {
            "serviceAccountName": spec["serviceAccountName"],
            "containers": containers,
            "volumes": ours,
        },
    }


def has(log: Path, told: str) -> bool:
    """Whether a log has some text by now."""
    return told in log.read_text(encoding="utf-8")


def by_policy(plane: ControlPlane, written: str) -> bool:
    """Whether the API server would by now wire the pod by itself; the webhook names its volume otherwise."""
    _, pod = written.split("---\n")
    how = ("--dry-run=server", "--filename=-", "--output=jsonpath={.spec.volumes[*].name}")
    names = plane.kubectl("create", *how, given=pod)
    return contract.POLICY_VOLUME in names.split()


def test_operator_wires_the_pod_as_shown(pytestconfig: pytest.Config) -> None:
    """`helm install` and `run` as written, the manifests applied: the pod is stored as shown."""
    with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        provide()
    written, wired = blocks("README.md", "yaml")
    port = str(free_port())
    with ControlPlane() as plane:
        env = plane.environment | {"AZURE_TENANT_ID": TENANT}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
        install = commands("README.md", "helm install").replace("9443", port)
        installed = finish(["bash", "-euc", install], env=env, cwd=ROOT)
        assert installed.status == 0, installed.errors
        run = commands("README.md", "workload-identity-operator run").replace("9443", port).strip()
        probes = "--health-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 --drain-seconds 0"
        log = plane.folder / "operator.log"
        with running(["bash", "-euc", f"exec {run} {probes}"], log=log, env=env, cwd=ROOT) as operator:
            operator.wait_until(lambda: "caBundle is ours" in log.read_text(encoding="utf-8"), within=30)
            operator.wait_until(
                lambda: "table of ServiceAccounts" in log.read_text(encoding="utf-8"), within=30
            )
            plane.create_namespace("demo")
            account, _ = written.split("---\n")
            plane.kubectl("apply", "--filename=-", given=account)
            eventually(lambda: by_policy(plane, written))

            plane.kubectl("apply", "--filename=-", given=written)

            stored = plane.get("pod", "billing", "--namespace=demo")
            assert shown(stored) == yaml.safe_load(wired)


@pytest.fixture
def pod_environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a wired pod whose federated credential is registered."""
    with Issuer() as issuer, EntraStandIn(trust=[issuer.ca_file]) as entra:
        subject = "system:serviceaccount:demo:billing"
        entra.register(CLIENT, tenant_id=TENANT, issuer=issuer.url, subject=subject)
        token = tmp_path / "token"
        token.write_text(issuer.mint(namespace="demo", service_account="billing"), encoding="ascii")
        yield {
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "AZURE_AUTHORITY_HOST": f"{entra.authority}/",
            "SSL_CERT_FILE": str(entra.ca_file),
        }


PROGRAMS = [
    pytest.param(program, id=f"{page}-{number}")
    for page in ("README.md", "helper/README.md")
    for number, program in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run(program: str, pod_environment: dict[str, str]) -> None:
    """Each example is a whole program: it ends well where a pod is wired."""
    ended = finish([sys.executable, "-W", "error", "-c", program], env=pod_environment, timeout=60)

    assert ended.status == 0, ended.errors


def test_there_are_programs_to_run() -> None:
    """Both pages show how to get a token."""
    assert blocks("README.md", "python")
    assert blocks("helper/README.md", "python")


def test_make_has_what_is_named() -> None:
    """Every `make …` on the pages is a target."""
    pages = ("README.md", "CONTRIBUTING.md", "helper/README.md", "operator/README.md")
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE))

    assert {"demo", "test", "stop"} <= named
    for target in named:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)
