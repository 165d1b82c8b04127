"""`make demo` where this machine can have a node."""

import os
import re
import sys
from pathlib import Path

import pytest

from testkit import stages
from testkit.processes import finish
from testkit.spectator import saw_all


def test_demo_runs_pods(tmp_path: Path, loaded: dict[str, str]) -> None:
    """It says that pods run; one writes a blob with the token of its ServiceAccount; no token is shown."""
    if reason := stages.lacking():
        pytest.skip(reason)
    assert loaded  # whose images the demo then finds kept
    env = {name: value for name, value in os.environ.items() if not name.startswith("TESTKIT_")}

    ended = finish([sys.executable, "-m", "testkit.demo"], env=env, cwd=tmp_path, timeout=900)

    saw_all(ended)
    assert "On a node of its own: pods run." in ended.output
    assert re.search(r"blob pods/billing-\S+-greeting written and read", ended.output)
