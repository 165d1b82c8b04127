"""The chart as tests see it when there is no cluster."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from testkit.manifests import rendered

SOURCE = re.compile(r"^# Source: .*/templates/(.+)\.yaml$", re.MULTILINE)
"""What helm says above each object: the file it comes from."""


@pytest.fixture
def render() -> Callable[..., dict[str, Any]]:
    """Return a function from values to the objects they give, by kind: the chart has one of each.

    Where there is another of a kind its file says what for: that of `clusterrole-declared.yaml` is the
    "declared ClusterRole".
    """

    def render(values: Mapping[str, Any] | None = None, **release: Any) -> dict[str, Any]:
        objects: dict[str, Any] = {}
        for text in re.split(r"^---$", rendered(values, **release), flags=re.MULTILINE):
            if document := yaml.safe_load(text):
                (file,) = SOURCE.findall(text)
                kind, _, what = file.partition("-")
                if kind == "extraobjects":  # the one file with whatever the user wants
                    kind, what = document["kind"].lower(), "extra"
                assert kind == document["kind"].lower(), f"{file}.yaml: found a {document['kind']}"
                name = f"{what} {document['kind']}".strip()
                assert name not in objects, f"{file}.yaml: found a second object"
                objects[name] = document
        return objects

    return render
