"""What to change when Entra refuses a pod's token, by Entra's code, with the values at hand.

Sources: learn.microsoft.com/entra/identity-platform/reference-error-codes;
learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations;
azure.github.io/azure-workload-identity/docs/troubleshooting.html.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AUDIENCES = {
    "login.microsoftonline.com": "api://AzureADTokenExchange",
    "login.microsoftonline.us": "api://AzureADTokenExchangeUSGov",
    "login.chinacloudapi.cn": "api://AzureADTokenExchangeChina",
}
_BINDING = "api://AKSIdentityBinding"
_REGISTERED = re.compile(r"(?:registered|configured|expected)[^'\"]{0,60}['\"]([^'\"]+)['\"]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Case:
    """What is known about a refused request.

    Attributes:
        claims: Of the pod's token, unverified.
        description: Entra's own text.
        epoch: Now by this machine's clock, in seconds since the epoch.
    """

    client_id: str
    tenant_id: str
    authority: str
    scopes: tuple[str, ...]
    claims: Mapping[str, Any]
    description: str
    epoch: float

    def claim(self, name: str) -> str:
        """Return a claim of the pod's token as text; several audiences with a comma between them."""
        value = self.claims.get(name)
        if isinstance(value, list):
            return ", ".join(str(item) for item in value)
        return "" if value is None else str(value)

    def account(self) -> str:
        """Return "ServiceAccount namespace/name", as far as the token's subject tells."""
        parts = self.claim("sub").split(":")
        match parts:
            case ["system", "serviceaccount", namespace, name]:
                return f"ServiceAccount {namespace}/{name}"
        return "the pod's ServiceAccount"


def cure(codes: list[int], case: Case) -> str:
    """Return what to change, in whole sentences; "" when none of the codes is known."""
    for code in codes:
        words = _CURES.get(code)
        if words is not None:
            return words(case)
    return ""


def _no_match(case: Case) -> str:
    return _lines(
        f"No federated credential of client {case.client_id} has the pod token's issuer, subject and"
        " audience; all are compared byte for byte, a slash at the end included.",
        _presented(case),
        _register(case),
        "One that was made within the last minutes may not be known everywhere yet: try again, or set"
        " retry_on_propagation.",
    )


def _issuer_differs(case: Case) -> str:
    return _differs(
        case,
        "issuer",
        "iss",
        "It changes when a cluster is created again or its OIDC issuer is enabled; mind the slash at the"
        " end.",
    )


def _subject_differs(case: Case) -> str:
    return _differs(
        case,
        "subject",
        "sub",
        "Namespace and name of the ServiceAccount are compared with their letter case.",
    )


def _audience_differs(case: Case) -> str:
    if _BINDING in case.claim("aud"):
        return _lines(
            f"The audience differs: the pod's token has {_BINDING!r}, which is for the token proxy of AKS"
            " identity bindings and not for Entra. Let the pod have AZURE_KUBERNETES_TOKEN_PROXY, or take the"
            f" annotation azure.workload.identity/use-identity-binding from its {case.account()}.",
            _presented(case),
        )
    usual = _AUDIENCES.get(case.authority.partition("://")[2])
    wanted = f" In this cloud it is {usual!r} unless somebody chose another." if usual else ""
    return _differs(
        case,
        "audience",
        "aud",
        f"The operator's setting `audience` decides what the token has.{wanted}",
    )


def _differs(case: Case, member: str, claim: str, remark: str) -> str:
    registered = _REGISTERED.search(case.description)
    theirs = f"registered is {registered[1]!r}" if registered else "none of those registered has that"
    return _lines(
        f"The {member} differs: the pod's token has {case.claim(claim)!r}, and of the federated credentials"
        f" of client {case.client_id} {theirs}. {remark}",
        _presented(case),
        _register(case),
        "Or, if another identity was meant: the annotation azure.workload.identity/client-id of"
        f" {case.account()}, now {case.client_id!r}.",
    )


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _presented(case: Case) -> str:
    issuer, subject, audience = (case.claim(name) for name in ("iss", "sub", "aud"))
    return f"The pod's token: issuer {issuer!r}, subject {subject!r}, audience {audience!r}."


def _register(case: Case) -> str:
    issuer, subject, audience = (shlex.quote(case.claim(name)) for name in ("iss", "sub", "aud"))
    client = shlex.quote(case.client_id)
    return (
        "To register it: az identity federated-credential create --identity-name IDENTITY --resource-group"
        f" GROUP --name NAME --issuer {issuer} --subject {subject} --audiences {audience}"
        f" (an app registration: az ad app federated-credential create --id {client} --parameters FILE);"
        " to see what there is: az identity federated-credential list --identity-name IDENTITY"
        " --resource-group GROUP"
    )


def _unknown_client(case: Case) -> str:
    return (
        f"Tenant {case.tenant_id} does not know client {case.client_id}. Correct the annotations"
        " azure.workload.identity/client-id (the client id, not the object id) and"
        f" azure.workload.identity/tenant-id of {case.account()} and create the pod again."
    )


def _unknown_tenant(case: Case) -> str:
    return (
        f"{case.authority} does not know tenant {case.tenant_id!r}. Correct the annotation"
        f" azure.workload.identity/tenant-id of {case.account()} or the operator's setting for the tenant,"
        " or, when the tenant is of another cloud, AZURE_AUTHORITY_HOST."
    )


def _out_of_time(case: Case) -> str:
    start, end = case.claims.get("nbf", case.claims.get("iat")), case.claims.get("exp")
    over = isinstance(end, int | float) and end <= case.epoch
    why = (
        "The kubelet did not renew the file in time, or something keeps a copy of it."
        if over
        else "The clocks of this machine, the cluster and Entra differ."
    )
    return (
        f"The pod's token is good from {_time(start)} to {_time(end)}; this machine's clock says"
        f" {_time(case.epoch)}. {why}"
    )


def _bad_signature(case: Case) -> str:
    return (
        f"Entra cannot verify the pod token's signature with the keys of its issuer {case.claim('iss')!r}:"
        " publish the cluster's current signing keys there (after a rotation Entra may keep the old ones for"
        " an hour)."
    )


def _unreachable_issuer(case: Case) -> str:
    return (
        f"Entra could not fetch {case.claim('iss').rstrip('/')}/.well-known/openid-configuration or the keys"
        " it names: both must be readable from the Internet, without signing in. On AKS `az aks update`"
        " restores them."
    )


def _bad_keys(case: Case) -> str:
    return f"The key set that issuer {case.claim('iss')!r} publishes cannot be parsed: correct it."


def _not_an_assertion(_case: Case) -> str:
    return (
        "What was sent is no intact service account token: AZURE_FEDERATED_TOKEN_FILE must name the file that"
        " the kubelet writes."
    )


def _entras_own(_case: Case) -> str:
    return "A token that Entra issued itself cannot be traded: use the service account token of the pod."


def _unknown_resource(case: Case) -> str:
    return (
        f"Tenant {case.tenant_id} does not know the resource of {' '.join(case.scopes)!r}: correct the scope,"
        " or AZURE_AUTHORITY_HOST when it is of another cloud."
    )


def _bad_scope(case: Case) -> str:
    return (
        f"The scope {' '.join(case.scopes)!r} cannot be had this way: a resource and '/.default' is wanted,"
        " such as 'https://vault.azure.net/.default'."
    )


def _conditional_access(case: Case) -> str:
    return (
        f"A Conditional Access policy for workload identities keeps client {case.client_id} from this token."
    )


def _wrong_tenant(case: Case) -> str:
    return (
        f"The identity is not of tenant {case.tenant_id}: correct the annotation"
        f" azure.workload.identity/tenant-id of {case.account()}."
    )


def _time(epoch: object) -> str:
    try:
        return f"{datetime.fromtimestamp(float(epoch), UTC):%Y-%m-%d %H:%M:%S} UTC"  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "an unknown time"


_CURES: Mapping[int, Callable[[Case], str]] = {
    70021: _no_match,
    700211: _issuer_differs,
    700212: _audience_differs,
    700213: _subject_differs,
    7002131: _subject_differs,
    700016: _unknown_client,
    700024: _out_of_time,
    700027: _bad_signature,
    7000272: _bad_signature,  # a key id that the key set does not have
    50012: _bad_signature,
    90061: _unreachable_issuer,
    50166: _unreachable_issuer,
    501661: _unreachable_issuer,
    900612: _bad_keys,
    7000215: _not_an_assertion,
    50027: _not_an_assertion,
    700222: _entras_own,
    90002: _unknown_tenant,
    900023: _unknown_tenant,
    500011: _unknown_resource,
    70011: _bad_scope,
    1002012: _bad_scope,
    53003: _conditional_access,
    50005: _conditional_access,
    50020: _wrong_tenant,
}
