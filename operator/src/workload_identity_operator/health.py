"""Whether the operator may be sent reviews: a handful of conditions, each with its reason."""

from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

Condition: TypeAlias = Literal["table", "version", "certificate", "caBundle", "server"]

_WAITING: Final[dict[Condition, str]] = {
    "table": "ServiceAccounts are being listed",
    "version": "Kubernetes has not told its version",
    "certificate": "no serving certificate yet",
    "caBundle": "not yet confirmed in the webhook configuration",
    "server": "not listening yet",
}


@dataclass(slots=True)
class Health:
    """What stands between start and being ready.

    Attributes:
        waiting: Each condition not met yet, and why.
        draining: Set after SIGTERM: reviews are still answered, new ones should go elsewhere.
    """

    waiting: dict[Condition, str] = field(default_factory=lambda: dict(_WAITING))
    draining: bool = False

    @property
    def ready(self) -> bool:
        """Whether reviews should be sent here."""
        return not self.waiting and not self.draining

    def met(self, condition: Condition) -> None:
        """Take that a condition is met."""
        self.waiting.pop(condition, None)

    def unmet(self, condition: Condition, why: str) -> None:
        """Take that a condition is not met (any more)."""
        self.waiting[condition] = why

    def conditions(self) -> dict[str, bool]:
        """Return each condition, and whether it is met."""
        return {condition: condition not in self.waiting for condition in _WAITING}

    def report(self) -> str:
        """Return a line for each condition, as the API server's own `/readyz?verbose` does."""
        lines = [
            f"[-]{condition}: {self.waiting[condition]}"
            if condition in self.waiting
            else f"[+]{condition} ok"
            for condition in _WAITING
        ]
        if self.draining:
            lines.append("[-]draining: the process was asked to stop")
        return "\n".join(lines) + "\n"
