"""What to change when Entra refuses, by Entra's code and by what was to prove the right to a token.

Every sentence has the values at hand.

Sources: learn.microsoft.com/entra/identity-platform/reference-error-codes;
learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations;
azure.github.io/azure-workload-identity/docs/troubleshooting.html.
"""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime

from workload_identity.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

_AUDIENCES = {
    "login.microsoftonline.com": "api://AzureADTokenExchange",
    "login.microsoftonline.us": "api://AzureADTokenExchangeUSGov",
    "login.chinacloudapi.cn": "api://AzureADTokenExchangeChina",
}
_BINDING = "api://AKSIdentityBinding"
_REGISTERED = re.compile(r"(?:registered|configured|expected)[^'\"]{0,60}['\"]([^'\"]+)['\"]", re.IGNORECASE)


class Case(Value):
    """What is known about a refused request.

    Attributes:
        claims: Of the pod's token or another assertion, unverified; of a certificate "thumbprint",
            "until", and "note" with what is wrong with the file since. Where a user's token is exchanged,
            "user" has the claims of that.
        description: Entra's own text.
        epoch: Now by this machine's clock, in seconds since the epoch.
        proof: How the client proves who it is: "pod", by a pod's token; "assertion", by that of a function
            or a pipeline; "secret"; "certificate"; "user", not at all, as a user signs in; or "" for one that
            cannot.
    """

    client_id: str
    tenant_id: str
    authority: str
    scopes: tuple[str, ...]
    claims: Mapping[str, Any]
    description: str
    epoch: float
    proof: str = "pod"

    @property
    def token(self) -> str:
        """What the assertion is called."""
        return "the pod's token" if self.proof == "pod" else "the assertion"

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
        words = _OF_PROOF.get(case.proof, {}).get(code) or _OF_ANY.get(code)
        if words is not None:
            return words(case)
    return ""


def _no_match(case: Case) -> str:
    return _lines(
        f"No federated credential of client {case.client_id} has the issuer, subject and audience of"
        f" {case.token}; all are compared byte for byte, a slash at the end included.",
        _presented(case),
        _register(case),
        "One that was made within the last minutes may not be known everywhere yet: try again"
        f"{', or set retry_on_propagation' if case.proof == 'pod' else ''}.",
    )


def _issuer_differs(case: Case) -> str:
    return _differs(
        case,
        "issuer",
        "iss",
        "It changes when a cluster is created again or its OIDC issuer is enabled; mind the slash at the end."
        if case.proof == "pod"
        else "Mind the slash at the end.",
    )


def _subject_differs(case: Case) -> str:
    return _differs(
        case,
        "subject",
        "sub",
        "Namespace and name of the ServiceAccount are compared with their letter case."
        if case.proof == "pod"
        else "It is compared with its letter case.",
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
    whence = "The operator's setting `audience` decides what the token has." if case.proof == "pod" else ""
    return _differs(case, "audience", "aud", f"{whence}{wanted}".strip())


def _differs(case: Case, member: str, claim: str, remark: str) -> str:
    registered = _REGISTERED.search(case.description)
    theirs = f"registered is {registered[1]!r}" if registered else "none of those registered has that"
    return _lines(
        f"The {member} differs: {case.token} has {case.claim(claim)!r}, and of the federated credentials"
        f" of client {case.client_id} {theirs}. {remark}".rstrip(),
        _presented(case),
        _register(case),
        "Or, if another identity was meant: the annotation azure.workload.identity/client-id of"
        f" {case.account()}, now {case.client_id!r}."
        if case.proof == "pod"
        else "",
    )


def _lines(*lines: str) -> str:
    return "\n".join(line for line in lines if line)


def _presented(case: Case) -> str:
    issuer, subject, audience = (case.claim(name) for name in ("iss", "sub", "aud"))
    name = f"{case.token[0].upper()}{case.token[1:]}"
    return f"{name}: issuer {issuer!r}, subject {subject!r}, audience {audience!r}."


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
    unknown = f"Tenant {case.tenant_id} does not know client {case.client_id}."
    if case.proof != "pod":
        return (
            f"{unknown} Correct client_id (the application's client id, not its object id) or tenant_id, or"
            " have an administrator of the tenant consent to the application."
        )
    return (
        f"{unknown} Correct the annotations"
        " azure.workload.identity/client-id (the client id, not the object id) and"
        f" azure.workload.identity/tenant-id of {case.account()} and create the pod again."
    )


def _unknown_tenant(case: Case) -> str:
    where = (
        f"the annotation azure.workload.identity/tenant-id of {case.account()} or the operator's setting for"
        " the tenant"
        if case.proof == "pod"
        else "tenant_id"
    )
    return (
        f"{case.authority} does not know tenant {case.tenant_id!r}. Correct {where}, or, when the tenant is"
        " of another cloud, AZURE_AUTHORITY_HOST."
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
    annotation = f"the annotation azure.workload.identity/tenant-id of {case.account()}"
    where = annotation if case.proof == "pod" else "tenant_id"
    return f"The identity is not of tenant {case.tenant_id}: correct {where}."


def _out_of_its_time(case: Case) -> str:
    start, end = case.claims.get("nbf", case.claims.get("iat")), case.claims.get("exp")
    return (
        f"The assertion is good from {_time(start)} to {_time(end)}; this machine's clock says"
        f" {_time(case.epoch)}. Make a new one for each request, and compare the clocks."
    )


def _unverified(case: Case) -> str:
    return (
        "Entra cannot verify the assertion's signature with the keys that its issuer"
        f" {case.claim('iss')!r} publishes: sign with one of those, and name it by its key id."
    )


def _no_such_assertion(_case: Case) -> str:
    return "What was sent as an assertion is no intact signed JWT."


def _wrong_secret(case: Case) -> str:
    return (
        f"client_secret is none of the secrets of client {case.client_id}: a secret's value is wanted, not"
        f" its id. To make one: az ad app credential reset --append --id {shlex.quote(case.client_id)}"
    )


def _old_secret(case: Case) -> str:
    return (
        f"The secret of client {case.client_id} has run out. To make another: az ad app credential reset"
        f" --append --id {shlex.quote(case.client_id)}"
    )


def _unregistered(case: Case) -> str:
    return _lines(
        f"The certificate with thumbprint {case.claim('thumbprint')}, good until {case.claim('until')}, is"
        f" not registered with client {case.client_id}, or has run out. To register it: az ad app credential"
        f" reset --append --id {shlex.quote(case.client_id)} --cert @FILE",
        "Where the application trusts certificates by name and issuer: set send_certificate_chain, and let"
        " the file have the certificates in between.",
        case.claim("note"),
    )


def _clocks_differ(case: Case) -> str:
    return f"The assertion was signed just now, at {_time(case.epoch)} by this machine's clock: correct that."


def _wrong_user_token(case: Case) -> str:
    user = case.claims.get("user") or {}
    return (
        f"The user's token has audience {user.get('aud')!r} and is good until {_time(user.get('exp'))}; it is"
        f" now {_time(case.epoch)}. One that a client got for this API (client {case.client_id}) is wanted,"
        " unchanged and still good: not one for Microsoft Graph, no id token, and no token of an application"
        " in its own name."
    )


def _sign_in_again(_case: Case) -> str:
    return (
        "The user has to sign in again or prove more: hand `claims` of this error, if there are any, to the"
        " client that called, as a claims challenge."
    )


def _another_way(_case: Case) -> str:
    return (
        "More than a password is wanted: sign in with InteractiveBrowserCredential or DeviceCodeCredential,"
        " or let a program that runs by itself have an identity of its own."
    )


def _wrong_password(_case: Case) -> str:
    return "Correct username and password; too many wrong ones lock the account."


def _no_public_client(case: Case) -> str:
    return (
        f"Client {case.client_id} is a confidential one: allow public client flows in its registration, under"
        " Authentication, or name another client_id."
    )


def _no_consent(case: Case) -> str:
    return (
        f"Nobody has consented that client {case.client_id} may do this for the user: have the user or an"
        f" administrator consent to {' '.join(case.scopes)!r}."
    )


def _used_code(_case: Case) -> str:
    return (
        "An authorization code works once and for ten minutes: sign in again for another, and redeem it in"
        " one place only."
    )


def _wrong_redirect(_case: Case) -> str:
    return "redirect_uri must be, letter by letter, the one that the sign-in was begun with."


def _no_secret(case: Case) -> str:
    return f"Client {case.client_id} is a confidential one: give its client_secret."


def _over(_case: Case) -> str:
    return "The sign-in is over, or was revoked: sign in again."


def _time(epoch: object) -> str:
    try:
        return f"{datetime.fromtimestamp(float(epoch), UTC):%Y-%m-%d %H:%M:%S} UTC"  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "an unknown time"


_Cures: TypeAlias = "Mapping[int, Callable[[Case], str]]"

_FEDERATED: _Cures = {
    70021: _no_match,
    700211: _issuer_differs,
    700212: _audience_differs,
    700213: _subject_differs,
    7002131: _subject_differs,
    90061: _unreachable_issuer,
    50166: _unreachable_issuer,
    501661: _unreachable_issuer,
    900612: _bad_keys,
}
_POD: _Cures = {
    **_FEDERATED,
    700024: _out_of_time,
    700027: _bad_signature,
    7000272: _bad_signature,  # a key id that the key set does not have
    50012: _bad_signature,
    7000215: _not_an_assertion,
    50027: _not_an_assertion,
    700222: _entras_own,
}
_ASSERTION: _Cures = {
    **_FEDERATED,
    700024: _out_of_its_time,
    700027: _unverified,
    7000272: _unverified,
    50012: _unverified,
    50027: _no_such_assertion,
}
_SECRET: _Cures = {7000215: _wrong_secret, 7000222: _old_secret}
_CERTIFICATE: _Cures = {
    700027: _unregistered,
    7000272: _unregistered,
    700024: _clocks_differ,
}
_USER: _Cures = {
    50034: _wrong_password,
    50126: _wrong_password,
    50076: _another_way,
    50079: _another_way,
    50158: _another_way,
    7000218: _no_public_client,
}
_OF_PROOF: Mapping[str, _Cures] = {
    "pod": _POD,
    "assertion": _ASSERTION,
    "secret": _SECRET,
    "certificate": _CERTIFICATE,
    "user": _USER,
}
_OF_ANY: _Cures = {
    700016: _unknown_client,
    90002: _unknown_tenant,
    900023: _unknown_tenant,
    500011: _unknown_resource,
    70011: _bad_scope,
    1002012: _bad_scope,
    53003: _conditional_access,
    50005: _conditional_access,
    50020: _wrong_tenant,
    50013: _wrong_user_token,
    500131: _wrong_user_token,
    500133: _wrong_user_token,
    50076: _sign_in_again,
    50079: _sign_in_again,
    50158: _sign_in_again,
    65001: _no_consent,
    70000: _over,
    70008: _over,
    70043: _over,
    700082: _over,
    50173: _over,
    700084: _over,
    54005: _used_code,
    50011: _wrong_redirect,
    500112: _wrong_redirect,
    7000218: _no_secret,
}
