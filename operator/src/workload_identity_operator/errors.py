"""What the operator raises: two errors for a pod's review, one for its own settings.

PodRefused         the pod's author must change something; shown at kubectl
AccountLookupFailed the API server could not be asked; the same create may succeed later
SettingsInvalid    the operator's own configuration is wrong; it does not start
"""

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
