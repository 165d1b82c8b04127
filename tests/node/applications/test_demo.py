"""`make demo` where this machine can have a node."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from testkit import stages
from testkit.processes import finish


def test_demo_runs_pods(tmp_path: Path, loaded: dict[str, str]) -> None:
    """It says that pods run; one writes a blob with the token of its ServiceAccount; no token is shown."""
    if reason := stages.lacking():
        pytest.skip(reason)
    assert loaded  # whose images the demo then finds kept
    env = {name: value for name, value in os.environ.items() if not name.startswith("TESTKIT_")}

    ended = finish([sys.executable, "-m", "testkit.demo"], env=env, cwd=tmp_path, timeout=900)

    assert ended.status == 0, ended.output + ended.errors
    assert "✗" not in ended.output
    assert "On a node of its own: pods run." in ended.output
    assert re.search(r"blob pods/billing-\S+-greeting written and read", ended.output)
    assert re.search(r"\+ +- name: AZURE_FEDERATED_TOKEN_FILE", ended.output)
    claims = json.loads("{" + ended.output.split("claims:\n{")[1].split("\n}\n")[0] + "}")
    assert claims["appid"] == "11111111-2222-3333-4444-555555555555"
    assert claims["aud"] == "https://storage.azure.com"
    assert re.search(r"^Demo passed in ", ended.output, re.MULTILINE)
    assert not re.search(r"eyJ[\w-]+\.", ended.output + ended.errors)
