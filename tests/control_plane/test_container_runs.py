"""A program runs as a container of a stored pod would: same environment, same tokens, same paths."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from testkit import kubelet
from testkit.control_plane import ControlPlane
from testkit.kubelet import NeedsNode, run_container

FOLDER = "/var/run/secrets/azure/wi"
SHOW_CLAIMS = """
import base64, json, os, sys
path = os.environ["TOKEN_FILE"]
payload = open(path).read().split(".")[1]
print(json.dumps([path, json.loads(base64.urlsafe_b64decode(payload + "=="))]))
"""


@pytest.fixture
def pod(control_plane: ControlPlane, namespace: str) -> Any:
    """A stored pod with a projected token, as the operator would have made it."""
    token = {"audience": "api://AzureADTokenExchange", "expirationSeconds": 7200, "path": "token/azure"}
    wanted = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web"},
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "web",
                    "env": [
                        {"name": "TOKEN_FILE", "value": f"{FOLDER}/token/azure"},
                        {"name": "NEAR", "value": f"{FOLDER}-2"},
                    ],
                    "volumeMounts": [{"name": "azure", "mountPath": FOLDER, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "azure", "projected": {"sources": [{"serviceAccountToken": token}]}}],
        },
    }
    control_plane.kubectl("create", "-n", namespace, "-f", "-", given=json.dumps(wanted))
    return control_plane.get("pod", "web", "-n", namespace)


def test_token_is_at_its_path(control_plane: ControlPlane, namespace: str, pod: Any) -> None:
    """The program finds, where its environment says, the token of this very pod."""
    ran = run_container(control_plane, pod, "main", [sys.executable, "-c", SHOW_CLAIMS])
    path, claims = json.loads(ran.output)

    assert ran.in_place == (path == f"{FOLDER}/token/azure")
    assert claims["aud"] == ["api://AzureADTokenExchange"]
    assert (f"system:serviceaccount:{namespace}:default", control_plane.issuer) == (
        claims["sub"],
        claims["iss"],
    )
    assert {"name": "web", "uid": pod["metadata"]["uid"]} == claims["kubernetes.io"]["pod"]
    assert claims["exp"] - claims["iat"] == 7200


def test_only_the_containers_environment_is_there(
    control_plane: ControlPlane, pod: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of ours reaches the program."""
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "ours")

    ran = run_container(control_plane, pod, "main", ["/usr/bin/env"])

    assert sorted(line.partition("=")[0] for line in ran.output.splitlines()) == ["NEAR", "TOKEN_FILE"]


def test_default_token_is_there_too(control_plane: ControlPlane, pod: Any) -> None:
    """The token that every pod gets for the API server is one of the projected ones."""
    path = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    if not kubelet._enclosed():
        pytest.skip("this machine permits no mount namespaces")

    ran = run_container(control_plane, pod, "main", ["/usr/bin/test", "-s", path])

    assert ran.status == 0
    assert not Path(path).exists()


def test_what_the_program_says_and_how_it_ends_is_returned(control_plane: ControlPlane, pod: Any) -> None:
    """A failing program is a result, not an error."""
    ran = run_container(control_plane, pod, "main", ["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])

    assert (ran.status, ran.output, ran.errors) == (7, "out\n", "err\n")


def test_paths_are_changed_where_nothing_may_be_mounted(
    control_plane: ControlPlane, pod: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without mount namespaces the environment leads to the token elsewhere, and the result says so."""
    monkeypatch.setattr(kubelet, "_enclosed", list)

    ran = run_container(control_plane, pod, "main", [sys.executable, "-c", SHOW_CLAIMS])
    env = run_container(control_plane, pod, "main", ["/usr/bin/env"]).output
    path, claims = json.loads(ran.output)

    assert not ran.in_place
    assert path.startswith(str(control_plane.folder))
    assert path.endswith(f"{FOLDER}/token/azure")
    assert claims["aud"] == ["api://AzureADTokenExchange"]
    assert f"NEAR={FOLDER}-2" in env.splitlines()
    assert not Path(path).exists()


def test_token_by_sub_path_is_refused(control_plane: ControlPlane, pod: Any) -> None:
    """What is not done here is an error that names it."""
    pod["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = "token"

    with pytest.raises(NeedsNode, match="container 'main' mounts token volume 'azure' by a subPath"):
        run_container(control_plane, pod, "main", ["/usr/bin/env"])
