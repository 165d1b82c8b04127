"""Compiles what a namespace's ServiceAccounts are annotated with into its PodWiring.

The API server's policy wires pods from that table alone, so all that is hard is done here: precedence,
parsing, bounds. What cannot be compiled stays out and is the webhook's, which refuses or wires it.

The same annotations and settings give the same PodWiring, whoever compiles: replicas need not agree
on who writes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused
from workload_identity_operator.identity import Defaults, token_expiration
from workload_identity_operator.shapes import Json

MOST_PROBLEMS: Final = 20
"""ServiceAccounts that a status names; it counts all of them."""

_TOO_LARGE: Final = f"does not fit: a PodWiring holds {contract.MAX_POD_WIRING_BYTES} bytes of identities"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A PodWiring as it should be.

    Attributes:
        spec: What the policy wires from.
        left_out: Names of the ServiceAccounts that are not in it, sorted, and why.
        truncated: Whether some of them did not fit.
    """

    spec: Json
    left_out: Mapping[str, str]
    truncated: bool


def compile_identities(accounts: Mapping[str, Mapping[str, str]], defaults: Defaults) -> Compiled | None:
    """Return the PodWiring of a namespace; None when it needs none.

    Args:
        accounts: Annotations of its annotated ServiceAccounts, by name.
        defaults: The operator's settings.
    """
    if not accounts:
        return None
    identities: dict[str, Json] = {}
    left_out: dict[str, str] = {}
    free, truncated = contract.MAX_POD_WIRING_BYTES, False
    for name in sorted(accounts):
        try:
            identity = _identity(accounts[name])
        except PodRefused as fault:
            left_out[name] = str(fault)
            continue
        size = _size(json.dumps({name: identity}))
        if size > free:
            left_out[name] = _TOO_LARGE
            truncated = True
            continue
        free -= size
        identities[name] = identity
    spec = {
        "tenantID": defaults.tenant_id,
        "authorityHost": defaults.authority_host,
        "audience": defaults.audience,
        "identities": identities,
    }
    return Compiled(spec, left_out, truncated)


def _size(text: str) -> int:
    """Return how many bytes JSON takes as API servers write it: `<`, `>` and `&` escaped, six each."""
    return len(text) + 5 * sum(map(text.count, "<>&"))


def _identity(annotations: Mapping[str, str]) -> Json:
    """Return what the policy gives the pods of one ServiceAccount.

    An absent client id leaves its variable out and makes the label necessary; an absent tenant id
    stands for the cluster's, an empty one leaves the variable out.

    Raises:
        PodRefused: The token expiration is not a whole number or out of bounds.
    """
    identity: Json = {"expirationSeconds": token_expiration({}, annotations)}
    if client_id := annotations.get(contract.CLIENT_ID):
        identity["clientID"] = client_id
    if (tenant_id := annotations.get(contract.TENANT_ID)) is not None:
        identity["tenantID"] = tenant_id
    return identity


def status_of(compiled: Compiled, generation: int, former: Mapping[str, object], now: str) -> Json:
    """Return what a PodWiring's status should say.

    Args:
        compiled: What its spec is.
        generation: That of the stored object which has this spec.
        former: The status it has; conditions that stay keep their time.
        now: RFC 3339, for conditions that change.
    """
    count, left = len(compiled.spec["identities"]), len(compiled.left_out)
    if left:
        found = ("SomeLeftOut", f"{left} of {count + left} annotated ServiceAccounts are left to the webhook")
    else:
        found = ("AllIn", "every annotated ServiceAccount is in")
    size = ("TooLarge", _TOO_LARGE) if compiled.truncated else ("Fits", "nothing is left out for its size")
    since = _times(former)
    conditions = [
        {
            "type": kind,
            "status": str(holds),
            "reason": reason,
            "message": message,
            "lastTransitionTime": since.get((kind, str(holds)), now),
        }
        for kind, holds, (reason, message) in (
            ("Compiled", not left, found),
            ("Truncated", compiled.truncated, size),
        )
    ]
    problems = list(compiled.left_out.items())[:MOST_PROBLEMS]
    return {
        "observedGeneration": generation,
        "identities": count,
        "leftOut": left,
        "conditions": conditions,
        "problems": [{"serviceAccount": name, "reason": reason} for name, reason in problems],
    }


def _times(status: Mapping[str, object]) -> dict[tuple[str, str], str]:
    """Return since when each condition of a stored status has its value."""
    conditions = status.get("conditions")
    return {
        (found.get("type", ""), found.get("status", "")): found.get("lastTransitionTime", "")
        for found in (conditions if isinstance(conditions, list) else ())
    }
