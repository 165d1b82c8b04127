"""What somebody sees of a demo that goes well, wherever it plays."""

import json
import re

from testkit.processes import Ended


def saw_all(demo: Ended) -> None:
    """See that no step failed, what the pod was given, whose token was traded for it, and never a token.

    Raises:
        AssertionError: Something was not to be seen, or was that should not be.
    """
    shown = demo.output
    assert demo.status == 0, shown + demo.errors
    assert "✗" not in shown
    assert re.search(r"\+ +- name: AZURE_FEDERATED_TOKEN_FILE", shown)
    claims = json.loads("{" + shown.split("claims:\n{")[1].split("\n}\n")[0] + "}")
    assert claims["appid"] == "11111111-2222-3333-4444-555555555555"
    assert claims["aud"] == "https://storage.azure.com"
    assert re.search(r"^Demo passed in ", shown, re.MULTILINE)
    assert not re.search(r"eyJ[\w-]+\.", shown + demo.errors)
