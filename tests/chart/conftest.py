"""The chart as tests see it when there is no cluster."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from testkit.manifests import rendered


@pytest.fixture
def render() -> Callable[..., dict[str, Any]]:
    """Return a function from values to the objects they give, by kind: the chart has one of each.

    But for those that keep the policy, which are "declared ConfigMap" and so on.
    """

    def render(values: Mapping[str, Any] | None = None, **release: str) -> dict[str, Any]:
        documents = [document for document in yaml.safe_load_all(rendered(values, **release)) if document]
        objects = {}
        for document in documents:
            declared = document["metadata"]["name"].endswith("-declared")
            objects[f"declared {document['kind']}" if declared else document["kind"]] = document
        assert len(documents) == len(objects)
        return objects

    return render
