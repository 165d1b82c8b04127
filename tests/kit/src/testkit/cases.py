"""What becomes of a pod, one YAML file a case: `tests/wiring/cases/<topic>/<case>.yaml`, found by walking.

    description   what the case shows, one sentence
    pod           as the API server sends it
    account       annotations of its ServiceAccount; null when there is no such one
    settings      environment variables and flags other than the usual ones
    kubernetes    version of the API server, where the usual one would not show it
    wired         the pod afterwards
    refused       instead of `wired`: texts that the refusal holds
    warnings      texts, one for each warning in its order; none when left out

Whoever wires pods, these hold.
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from testkit.manifests import ROOT
from workload_identity_operator.settings import Flags, Settings, read_settings

Json = dict[str, Any]

FOLDER: Final = ROOT / "tests" / "wiring" / "cases"
ENVIRONMENT: Final = {"AZURE_TENANT_ID": "22222222-2222-2222-2222-222222222222"}


def read_cases() -> dict[str, Json]:
    """Return all cases by topic and name, "basics/plain-pod"."""
    return {str(path.relative_to(FOLDER).with_suffix("")): _read(path) for path in FOLDER.rglob("*.yaml")}


def _read(path: Path) -> Json:
    """Return a case with no two parts shared: a patch to one must not reach another by an alias."""
    case: Json = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
    outcome = {"wired"} if "wired" in case else {"refused"}
    optional = {"settings", "kubernetes", "warnings"}
    assert case.keys() - optional == {"description", "pod", "account"} | outcome, path
    return case


def settings_of(case: Json) -> Settings:
    """Return the settings that the case asks for, read as the command line is."""
    given: dict[str, str] = case.get("settings", {})
    flags = {name[2:].replace("-", "_"): value for name, value in given.items() if name.startswith("--")}
    environ = {name: value for name, value in given.items() if not name.startswith("--")}
    return read_settings(Flags(**flags), ENVIRONMENT | environ)  # type: ignore[arg-type]
