"""Kubeconfigs that cannot be used: one line at start, and nothing of the file's secrets in it."""

import base64
import os
import sys
from pathlib import Path

import pytest
import yaml

from testkit.processes import finish

SECRET = "s3cr3t-of-the-user"
COMMAND = [sys.executable, "-m", "workload_identity_operator", "run"]


def kubeconfig(cluster: dict[str, object], user: dict[str, object]) -> str:
    """Return a kubeconfig with one context."""
    return yaml.safe_dump(
        {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
            "users": [{"name": "x", "user": user}],
        }
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"users: [\n token: {SECRET}", "is no YAML, see its line 2"),
        ("just a text", "cannot be used: wanted a mapping with contexts"),
        ("", "cannot be used: no current-context"),
        (f"current-context: gone\nusers: [{{name: x, user: {{token: {SECRET}}}}}]", 'has no "gone"'),
        (kubeconfig({"server": "127.0.0.1:1"}, {"token": SECRET}), 'its server is "127.0.0.1:1": wanted'),
        (kubeconfig({}, {"exec": {"command": "kubelogin"}}), "programs that fetch one (exec) are not run"),
        (
            kubeconfig({"certificate-authority": "/missing"}, {"token": SECRET}),
            "cannot be read: No such file",
        ),
        (kubeconfig({"certificate-authority-data": "!!!"}, {"token": SECRET}), "ca-data is no base64"),
        (
            kubeconfig(
                {"certificate-authority-data": base64.b64encode(b"no PEM").decode()}, {"token": SECRET}
            ),
            "cannot be read",
        ),
    ],
)
def test_fault_is_one_line_without_secrets(tmp_path: Path, text: str, told: str) -> None:
    """Whatever is wrong with the file: status 2, a line that begins with `error:`, no traceback."""
    file = tmp_path / "kubeconfig"
    file.write_text(text, encoding="utf-8")

    env = os.environ | {"AZURE_TENANT_ID": "t"}
    ended = finish([*COMMAND, f"--kubeconfig={file}"], env=dict(env), timeout=30)

    assert ended.status == 2
    (line,) = ended.errors.splitlines()
    assert line.startswith("error: kubeconfig: ")
    assert told in line
    assert SECRET not in line


def test_no_cluster_at_all(tmp_path: Path) -> None:
    """Outside a cluster and without a kubeconfig: the line says what to give."""
    env = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    ended = finish(COMMAND, env=env | {"AZURE_TENANT_ID": "t", "HOME": str(tmp_path)}, timeout=30)

    assert ended.status == 2
    assert ended.errors.startswith("error: no cluster: name one by --kubeconfig or KUBECONFIG")
