"""Whose a MutatingWebhookConfiguration is: a release's of ours, the peer's, or another's."""

from collections.abc import Mapping
from typing import Any, Final

from workload_identity_operator import contract
from workload_identity_operator.shapes import Json

UNLABELLED_ONLY: Final[Json] = {
    "matchExpressions": [{"key": contract.USE_LABEL, "operator": "NotIn", "values": ["true"]}]
}
"""Selector of our policy's binding while labelled pods are left to the peer."""
_CHART: Final = "workload-identity-operator-"
"""Begins the label `helm.sh/chart` of each release of ours."""


def is_of_chart(found: Mapping[str, Any]) -> bool:
    """Whether an object is a release's of our chart."""
    return str((found["metadata"].get("labels") or {}).get("helm.sh/chart", "")).startswith(_CHART)


def release_of(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and namespace of the release that Helm takes an object to be of; ("", "") of none."""
    notes = found["metadata"].get("annotations") or {}
    return notes.get("meta.helm.sh/release-name", ""), notes.get("meta.helm.sh/release-namespace", "")


def peer_among(configurations: Mapping[str, Json], ours: str) -> str:
    """Return the name of the peer's MutatingWebhookConfiguration; "" when there is none.

    Args:
        configurations: All there are, by name.
        ours: The name of our own. Other releases of our chart are no peer either.
    """
    found = (
        name
        for name in sorted(configurations)
        if name != ours
        and not is_of_chart(configurations[name])
        and (name == contract.PEER_CONFIGURATION or _is_named_as_peers(configurations[name]))
    )
    return next(found, "")


def left_to(binding: Mapping[str, Any]) -> str:
    """Return whose our policy's binding says that labelled pods are; "" when they are ours."""
    return str((binding["metadata"].get("annotations") or {}).get(contract.LEFT_TO, ""))


def leaves_out_others(binding: Mapping[str, Any]) -> bool:
    """Whether our policy's binding leaves out other pods than those that are left to the peer."""
    matched = (binding.get("spec") or {}).get("matchResources") or {}
    said = {key: value for key, value in matched.items() if value and key != "matchPolicy"}
    return said not in ({}, {"objectSelector": UNLABELLED_ONLY})


def _is_named_as_peers(configuration: Json) -> bool:
    webhooks = configuration.get("webhooks") or ()
    return any(webhook["name"] == contract.WEBHOOK_NAME for webhook in webhooks)
