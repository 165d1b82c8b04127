"""What a pod is given: its annotations, its ServiceAccount's and the operator's settings, made one.

Precedence, first match wins:

    | what       | 1                   | 2                         | 3              |
    |------------|---------------------|---------------------------|----------------|
    | client id  | ServiceAccount      | none, variable left out   |                |
    | tenant id  | ServiceAccount (*)  | the cluster's             |                |
    | expiration | pod, if non-empty   | ServiceAccount, non-empty | 3600 seconds   |
    | legacy path| pod, true or false  | the operator's flag       |                |

    (*) its presence decides: an empty one leaves the variable out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.shapes import integer
from workload_identity_operator.token_endpoint import TokenEndpoint

_GUID: Final = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
SHAPES: Final = {
    contract.CLIENT_ID: re.compile(_GUID),
    contract.TENANT_ID: re.compile(_GUID + r"|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"),  # or one of its domains
}
"""What the values of annotations must look like for Entra to know them."""
# Unicode White_Space; str.strip() would also take U+001C to U+001F.
_WHITE_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class Defaults(Protocol):
    """What an identity takes from the operator's settings."""

    @property
    def tenant_id(self) -> str:
        """The cluster's tenant."""

    @property
    def authority_host(self) -> str:
        """Base URL of the cloud's Entra, with trailing slash."""

    @property
    def audience(self) -> str:
        """Audience of the projected token."""

    @property
    def legacy_path(self) -> bool:
        """Whether the token is mounted at the peer's former path too."""

    @property
    def token_endpoint(self) -> TokenEndpoint | None:
        """The custom token endpoint that pods may ask for; None when there is none."""


@dataclass(frozen=True, slots=True)
class Identity:
    """All that wiring a pod needs to know.

    Attributes:
        client_id: "" leaves `AZURE_CLIENT_ID` out.
        tenant_id: "" leaves `AZURE_TENANT_ID` out.
        authority_host: Base URL of the cloud's Entra, with trailing slash.
        audience: Audience of the projected token.
        expiration: Lifetime of the projected token, in seconds.
        skip: Names of containers that stay untouched.
        token_endpoint: Where the token is traded instead of at Entra; None for Entra.
        legacy_path: Whether the token is mounted at the peer's former path too.
        warnings: What the pod's author should know; soft findings, one sentence each.
    """

    client_id: str
    tenant_id: str
    authority_host: str
    audience: str
    expiration: int = contract.DEFAULT_EXPIRATION
    skip: frozenset[str] = frozenset()
    token_endpoint: TokenEndpoint | None = None
    legacy_path: bool = False
    warnings: tuple[str, ...] = ()


def identity_of(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    account: Mapping[str, str],
    defaults: Defaults,
) -> Identity:
    """Return what a pod is given.

    Args:
        labels: `metadata.labels` of the pod; {} when null.
        annotations: `metadata.annotations` of the pod; {} when null.
        account: Annotations of its ServiceAccount.
        defaults: The operator's settings.

    Raises:
        PodRefused: The token expiration is not a whole number or out of bounds, or the list of
            containers to skip is too long.
    """
    known, endpoint = contract.POD_ANNOTATIONS, defaults.token_endpoint
    if endpoint:
        known |= {endpoint.annotation}
        if not endpoint.wanted_by(annotations):
            endpoint = None
    return Identity(
        client_id=account.get(contract.CLIENT_ID, ""),
        tenant_id=account.get(contract.TENANT_ID, defaults.tenant_id),
        authority_host=defaults.authority_host,
        audience=endpoint.audience if endpoint else defaults.audience,
        expiration=token_expiration(annotations, account),
        skip=skipped_containers(annotations),
        token_endpoint=endpoint,
        legacy_path=wants_legacy_path(annotations, default=defaults.legacy_path),
        warnings=(
            *_unknown_keys("label", labels, frozenset({contract.USE_LABEL})),
            *_unknown_keys("annotation", annotations, known),
            *account_warnings(account),
        ),
    )


def is_guid(text: str) -> bool:
    """Whether it has the shape of a client id."""
    return SHAPES[contract.CLIENT_ID].fullmatch(text) is not None


def token_expiration(pod: Mapping[str, str], account: Mapping[str, str]) -> int:
    """Return how long the projected token lives, in seconds.

    The pod's annotation wins over its ServiceAccount's, whose value is then not even parsed.
    An empty annotation counts as absent.

    Returns:
        3600 to 86400, both included; 3600 when neither says.

    Raises:
        PodRefused: Not a whole number, or out of bounds; the message quotes the value.
    """
    value, owner = pod.get(contract.EXPIRATION), "pod"
    if not value:
        value, owner = account.get(contract.EXPIRATION), "ServiceAccount"
    if not value:
        return contract.DEFAULT_EXPIRATION
    what = f"annotation {contract.EXPIRATION} of the {owner}"
    wanted = f"wanted {contract.MIN_EXPIRATION} to {contract.MAX_EXPIRATION} seconds"
    seconds = integer(value, 64, what, wanted)
    if not contract.MIN_EXPIRATION <= seconds <= contract.MAX_EXPIRATION:
        raise PodRefused(f"{what}: {seconds} is out of bounds; {wanted}")
    return seconds


def skipped_containers(annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the container names that the pod's annotation lists, separated by `;`.

    Raises:
        PodRefused: The annotation is longer than Kubernetes would store.
    """
    listed = annotations.get(contract.SKIP_CONTAINERS, "")
    if len(listed) > contract.MAX_ANNOTATION:
        raise PodRefused(
            f"annotation {contract.SKIP_CONTAINERS} of the pod: wanted at most {contract.MAX_ANNOTATION} "
            f"characters, found {len(listed)}"
        )
    names = listed.split(";")
    return frozenset(name.strip(_WHITE_SPACE) for name in names) - {""}


def wants_legacy_path(annotations: Mapping[str, str], *, default: bool) -> bool:
    """Whether a pod gets the token at the peer's former path too; only true and false say something."""
    said = annotations.get(contract.LEGACY_PATH_ANNOTATION, "").lower()
    return said == "true" or (default and said != "false")


def account_warnings(account: Mapping[str, str]) -> Sequence[str]:
    """Return what is odd about a ServiceAccount's annotations, one sentence each."""
    warnings = list(_unknown_keys("ServiceAccount annotation", account, contract.SERVICE_ACCOUNT_ANNOTATIONS))
    for key, shape in SHAPES.items():
        value = account.get(key, "")
        if value and not shape.fullmatch(value.strip(_WHITE_SPACE)):
            name = key.removeprefix(contract.PREFIX)
            warnings.append(f"ServiceAccount annotation {name} is no GUID: {quoted(value, 48)}")
    return warnings


def _unknown_keys(kind: str, present: Mapping[str, str], known: frozenset[str]) -> Sequence[str]:
    """Tell of keys under our prefix that mean nothing there: typos, and keys on the wrong object."""
    unknown = sorted(key for key in present if key.startswith(contract.PREFIX) and key not in known)
    return [f"{kind} {quoted(key, 56)} {_advice(key)}" for key in unknown[: contract.MOST_WARNINGS]]


def _advice(key: str) -> str:
    if key == contract.USE_LABEL:
        return "has no effect: label the pod with it"
    if key in contract.POD_ANNOTATIONS:
        return "has no effect: annotate the pod with it"
    if key in contract.SERVICE_ACCOUNT_ANNOTATIONS:
        return "has no effect: annotate the ServiceAccount with it"
    return "is unknown: check its spelling"
