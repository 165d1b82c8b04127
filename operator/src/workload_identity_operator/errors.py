"""What the operator raises: two errors for a pod's review, one for its own settings.

PodRefused         the pod's author must change something; shown at kubectl
AccountLookupFailed the API server could not be asked; the same create may succeed later
SettingsInvalid    the operator's own configuration is wrong; it does not start
"""

import json
from collections.abc import Sequence


class PodRefused(Exception):  # noqa: N818 - what happened, in the user's words
    """The pod cannot be wired as it is.

    `str()` names what was wanted, what was found and what to change. The API server shows it
    to whoever creates the pod; controllers retry.
    """


class AccountLookupFailed(Exception):  # noqa: N818 - what happened
    """The pod's ServiceAccount is neither in the table nor could the API server be asked."""


class SettingsInvalid(Exception):  # noqa: N818 - what happened
    """Flags or environment are wrong.

    Attributes:
        faults: One line for each fault, each naming the flag or variable, what was found and
            what is wanted.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


def quoted(text: str, longest: int = 64) -> str:
    """Return the text as a JSON string, cut so that a message stays readable.

    What does not print is escaped: a message ends at a terminal, and the API server drops a
    warning that holds a control character.
    """
    shown = json.dumps(text if len(text) <= longest else text[:longest] + "…", ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in shown)
