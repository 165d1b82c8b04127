"""The chart as tests see it when there is no cluster."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from testkit.manifests import rendered


@pytest.fixture
def render() -> Callable[..., dict[str, Any]]:
    """Return a function from values to the objects they give, by kind: the chart has one of each."""

    def render(values: Mapping[str, Any] | None = None, **release: str) -> dict[str, Any]:
        documents = [document for document in yaml.safe_load_all(rendered(values, **release)) if document]
        objects = {document["kind"]: document for document in documents}
        assert len(documents) == len(objects)
        return objects

    return render
