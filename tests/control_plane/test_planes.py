"""The kit's control plane: what it offers, and that it keeps to itself."""

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from testkit.control_plane import NAMED_KUBECONFIG, ClusterUnusable, ControlPlane
from testkit.processes import ProcessFailed, output_of

pytestmark = pytest.mark.cluster

SPEC = {
    "containers": [{"name": "web", "image": "web"}],
    "tolerations": [{"operator": "Exists"}],  # the only node is never ready
}
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": SPEC}
SELECTOR = {"matchLabels": {"app": "web"}}
JOB = {"template": {**TEMPLATE, "spec": {**SPEC, "restartPolicy": "Never"}}}
OWNERS = [
    ("apps/v1", "Deployment", {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE}),
    ("apps/v1", "ReplicaSet", {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE}),
    ("apps/v1", "StatefulSet", {"serviceName": "web", "selector": SELECTOR, "template": TEMPLATE}),
    ("apps/v1", "DaemonSet", {"selector": SELECTOR, "template": TEMPLATE}),
    ("batch/v1", "Job", JOB),
    ("batch/v1", "CronJob", {"schedule": "* * * * *", "jobTemplate": {"spec": JOB}}),
]


def fetch(plane: ControlPlane, url: str) -> Any:
    """Get JSON without credentials."""
    tls = ssl.create_default_context(cafile=plane.ca_file)
    with urllib.request.urlopen(url, context=tls) as answer:  # noqa: S310 - the plane's own address
        return json.load(answer)


@pytest.fixture(scope="module")
def _node(control_plane: ControlPlane) -> None:
    """A node on paper: DaemonSets make a pod for each."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "paper"}}
    control_plane.kubectl("create", "-f", "-", given=json.dumps(node))


@pytest.mark.usefixtures("_node")
@pytest.mark.parametrize(("version", "kind", "spec"), OWNERS, ids=[kind for _, kind, _ in OWNERS])
def test_controllers_make_pods(
    control_plane: ControlPlane, namespace: str, version: str, kind: str, spec: dict[str, Any]
) -> None:
    """Every kind that makes pods makes them, and pods go with their owner."""
    owner = {"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec}
    control_plane.kubectl("create", "-n", namespace, "-f", "-", given=json.dumps(owner))
    if kind == "CronJob":
        # Its own job would come with the next full minute.
        control_plane.kubectl("wait", "cronjob/web", "-n", namespace, "--for=create", "--timeout=30s")
        control_plane.kubectl("create", "job", "web", "--from=cronjob/web", "-n", namespace)

    control_plane.kubectl("wait", "pod", "-l", "app=web", "-n", namespace, "--for=create", "--timeout=30s")
    control_plane.kubectl("delete", f"{kind.lower()}/web", "-n", namespace)
    control_plane.kubectl("wait", "pod", "-l", "app=web", "-n", namespace, "--for=delete", "--timeout=30s")

    assert control_plane.get("pods", "-n", namespace)["items"] == []


def test_namespaces_are_emptied_and_removed(control_plane: ControlPlane) -> None:
    """Deleting a namespace ends, with what is in it."""
    control_plane.create_namespace("short-lived")
    control_plane.kubectl("create", "configmap", "content", "-n", "short-lived")

    control_plane.kubectl("delete", "namespace", "short-lived", "--timeout=30s")

    names = {each["metadata"]["name"] for each in control_plane.get("namespaces")["items"]}
    assert "short-lived" not in names


def test_issuer_is_discovered_without_credentials(control_plane: ControlPlane, namespace: str) -> None:
    """A token's issuer leads anybody to the key that signed it."""
    token = control_plane.kubectl("create", "token", "default", "-n", namespace).strip()
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]

    discovered = fetch(control_plane, f"{issuer}/.well-known/openid-configuration")
    keys = {key["kid"] for key in fetch(control_plane, discovered["jwks_uri"])["keys"]}

    assert [control_plane.issuer] * 2 == [issuer, discovered["issuer"]]
    assert jwt.get_unverified_header(token)["kid"] in keys


def test_anonymous_callers_see_nothing_else(control_plane: ControlPlane) -> None:
    """What is public is the issuer's documents, not the API."""
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        fetch(control_plane, f"{control_plane.server}/api/v1/namespaces")
    refused.value.close()


def test_service_account_may_do_what_its_roles_say(control_plane: ControlPlane, namespace: str) -> None:
    """`kubeconfig_for` makes kubectl the ServiceAccount, no more and no less."""
    control_plane.kubectl("create", "serviceaccount", "reader", "-n", namespace)
    whom = ["--clusterrole=view", f"--serviceaccount={namespace}:reader"]
    control_plane.kubectl("create", "rolebinding", "reader", *whom, "-n", namespace)
    env = control_plane.environment | {"KUBECONFIG": str(control_plane.kubeconfig_for("reader", namespace))}

    def as_reader(*args: str) -> str:
        return output_of([control_plane.folder / "bin" / "kubectl", *args], env=env)

    whoami = json.loads(as_reader("auth", "whoami", "-o", "json"))
    as_reader("get", "pods", "-n", namespace)
    with pytest.raises(ProcessFailed, match="forbidden"):
        as_reader("create", "configmap", "mine", "-n", namespace)
    with pytest.raises(ProcessFailed, match="forbidden"):
        as_reader("get", "pods", "-n", "default")

    assert f"system:serviceaccount:{namespace}:reader" == whoami["status"]["userInfo"]["username"]


def test_what_is_got_is_what_kubectl_gets(control_plane: ControlPlane, namespace: str) -> None:
    """By whatever name it is asked for, without starting kubectl."""
    labels = {"metadata": {"name": "mine", "labels": {"app": "web"}}}
    stored = control_plane.create({"apiVersion": "v1", "kind": "ConfigMap", **labels}, namespace=namespace)
    dry = control_plane.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dry"}},
        "--dry-run=server",
        namespace=namespace,
    )
    asked = [
        ["cm", "mine", "-n", namespace],
        ["configmaps", f"--namespace={namespace}", "--selector=app=web"],
        ["configmap", "--namespace", namespace, "--field-selector=metadata.name=mine"],
        ["configmap", "mine", "--show-managed-fields", f"--namespace={namespace}"],
        ["deployments.apps", "--all-namespaces"],
        ["namespace", namespace],
        ["configmap/mine", "-n", namespace],
    ]

    found = [control_plane.get(*arguments) for arguments in asked]

    def by_kubectl(arguments: list[str]) -> Any:
        got = json.loads(control_plane.kubectl("get", *arguments, "--output=json"))
        return {
            key: value for key, value in got.items() if key != "metadata" or value != {"resourceVersion": ""}
        }

    assert found == [by_kubectl(arguments) for arguments in asked]
    assert found[0] == stored
    assert [one["metadata"]["name"] for one in found[1]["items"]] == ["mine"]
    assert dry["metadata"]["uid"]
    with pytest.raises(ProcessFailed, match='configmaps "dry" not found'):
        control_plane.get("configmap", "dry", "-n", namespace)
    with pytest.raises(ProcessFailed, match='configmaps "mine" already exists'):
        control_plane.create(stored | {"metadata": labels["metadata"]}, namespace=namespace)


def test_planes_stand_side_by_side(control_plane: ControlPlane) -> None:
    """Two at once share nothing, one without controllers takes pods too, and nothing remains of it."""
    with ControlPlane() as other:
        other.create_namespace("only-here")
        other.kubectl("run", "web", "--image=web", "-n", "only-here")

        here, there = (
            {each["metadata"]["name"] for each in plane.get("namespaces")["items"]}
            for plane in (other, control_plane)
        )
        pids = [child.pid for child in other._children]
        assert other.server != control_plane.server
    assert {"only-here"} == here - there
    assert not other.folder.exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_arguments_reach_the_api_server() -> None:
    """`apiserver_args` are kube-apiserver's own."""
    with ControlPlane(apiserver_args=["--anonymous-auth=false"]) as plane:
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            fetch(plane, f"{plane.issuer}/.well-known/openid-configuration")
        refused.value.close()


def test_wrong_arguments_are_told() -> None:
    """A program that ends instead of getting ready is named, with its last words."""
    with pytest.raises(
        ProcessFailed, match=r"kube-apiserver\S* ended with status 1[^~]*unknown flag: --no-such"
    ):
        ControlPlane(apiserver_args=["--no-such"]).__enter__()


def test_ended_parts_are_told() -> None:
    """When a part of a plane has died, kubectl's callers hear of that rather than of refused connections."""
    with ControlPlane() as plane:
        plane._children[0].end(0)

        with pytest.raises(ProcessFailed, match=r"etcd\S* was ended by SIGKILL"):
            plane.kubectl("get", "namespaces")


def test_users_settings_have_no_effect(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The user's kubeconfig, helm settings and proxy are neither read nor written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "theirs"))
    monkeypatch.setenv("HELM_NAMESPACE", "theirs")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    output_of([control_plane.folder / "bin" / "helm", "create", "web"], cwd=tmp_path)

    control_plane.helm("install", "web", tmp_path / "web", "-n", namespace)
    releases = json.loads(control_plane.helm("list", "-A", "-o", "json"))

    assert [namespace] == [release["namespace"] for release in releases if release["name"] == "web"]
    assert [found.name for found in tmp_path.iterdir()] == ["web"]


def test_named_cluster_is_used(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TESTKIT_KUBECONFIG makes it another way to the cluster named there; nothing is started or changed."""
    before = control_plane.kubeconfig.read_bytes()
    monkeypatch.setenv(NAMED_KUBECONFIG, str(control_plane.kubeconfig))

    with ControlPlane(controllers=True) as joined:
        joined.kubectl("config", "set-context", "--current", "--namespace=kube-system")
        joined.kubectl("get", "serviceaccount", "default", "-n", namespace)

        assert (control_plane.server, control_plane.issuer) == (joined.server, joined.issuer)
        assert control_plane.ca_file.read_text() == joined.ca_file.read_text()
        assert joined._children == []
    assert before == control_plane.kubeconfig.read_bytes()


def test_named_cluster_cannot_be_given_arguments(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only a plane of our own can do is refused, not left out."""
    monkeypatch.setenv(NAMED_KUBECONFIG, str(control_plane.kubeconfig))

    with pytest.raises(ClusterUnusable, match="cannot be given --anonymous-auth=false"):
        ControlPlane(apiserver_args=["--anonymous-auth=false"]).__enter__()


def test_named_kubeconfig_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path that leads nowhere is an error, never a reason to use something else."""
    monkeypatch.setenv(NAMED_KUBECONFIG, str(tmp_path / "missing"))

    with pytest.raises(ClusterUnusable, match="missing', which is no file"):
        ControlPlane().__enter__()


def test_named_cluster_must_name_its_authority(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A cluster nobody vouches for is not used."""
    content = yaml.safe_load(control_plane.kubeconfig.read_text())
    content["clusters"][0]["cluster"] = {"server": control_plane.server, "insecure-skip-tls-verify": True}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv(NAMED_KUBECONFIG, str(tmp_path / "kubeconfig"))

    with pytest.raises(ClusterUnusable, match="names no certificate authority"):
        ControlPlane().__enter__()
