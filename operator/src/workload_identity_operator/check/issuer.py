"""Judges the cluster's issuer: what Entra fetches of it, beside what the API server signs with.

Source: Microsoft's "Workload identity federation": two anonymous https documents, the issuer equal to the
token's byte for byte, RS256.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from workload_identity_operator.check.cluster import Cluster, Fetched
from workload_identity_operator.check.findings import Finding, Object, Unseen
from workload_identity_operator.errors import quoted
from workload_identity_operator.shapes import Json

DISCOVERY: Final = "/.well-known/openid-configuration"
_INSIDE: Final = (".svc", ".local", ".internal", ".cluster", ".lan", ".home.arpa")
_RS256: Final = "RS256"
_CLOCKS_APART: Final = 5 * 60.0
"""Seconds that Entra does not mind."""


def issuer_of(cluster: Cluster) -> str:
    """Return the issuer of the cluster's tokens; "" when it was not told."""
    claims = (cluster.token or {}).get("claims") or {}
    return str(claims.get("iss") or (cluster.discovery or {}).get("issuer") or "")


def document_url(issuer: str) -> str:
    """Return where Entra fetches an issuer's discovery document."""
    return issuer.rstrip("/") + DISCOVERY


def is_on_loopback(url: str) -> bool:
    """Whether a URL leads to this very machine, as on a developer's."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def why_not_public(url: str) -> str:
    """Return why nobody outside can reach a URL; "" where they may, or it is on loopback."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "no https URL"
    host = parts.hostname or ""
    if is_on_loopback(url):
        return ""
    try:
        return "" if ipaddress.ip_address(host).is_global else "an address inside a network"
    except ValueError:
        inside = "." not in host or host.endswith(_INSIDE)
        return "a name inside a network" if inside else ""


def issuer_findings(cluster: Cluster) -> Iterator[Finding]:
    """Yield what is wrong with issuer, documents and keys."""
    yield from _clock_findings(cluster)
    issuer = issuer_of(cluster)
    if not issuer:
        return
    about = Object("Issuer", issuer)
    yield from _algorithm_findings(cluster, about)
    if why := why_not_public(issuer):
        yield Finding(
            "issuer-not-public",
            about,
            "an https URL that Entra can reach",
            why,
            "set kube-apiserver's --service-account-issuer to one, publish both documents there, renew pods",
        )
        return
    if cluster.issued is None:
        return
    document = cluster.issued.body
    if document is None:
        yield _unreachable(about, cluster.issued, "the discovery document")
        return
    if (named := document.get("issuer")) != issuer:
        slash = str(named).rstrip("/") == issuer.rstrip("/")
        yield Finding(
            "issuer-differs",
            about,
            f"{cluster.issued.url} to name the issuer {quoted(issuer, 200)}",
            f"{quoted(str(named), 200)}{', which differs by a slash at its end' if slash else ''}",
            "publish what `kubectl get --raw /.well-known/openid-configuration` says, byte for byte",
        )
    algorithms = document.get("id_token_signing_alg_values_supported")
    if isinstance(algorithms, list) and _RS256 not in algorithms:
        yield Finding(
            "issuer-document-wrong",
            about,
            f"{_RS256} among id_token_signing_alg_values_supported",
            quoted(str(algorithms)),
            "publish the API server's own document",
        )
    yield from _key_findings(cluster, about, document)


def _clock_findings(cluster: Cluster) -> Iterator[Finding]:
    ahead = next((-told.ahead for told in cluster.tenants.values() if told.ahead), 0.0)
    if abs(ahead) <= _CLOCKS_APART:
        return
    found = f"{abs(ahead) / 60:.0f} minutes "
    found += "ahead: its tokens are not valid yet" if ahead > 0 else "behind: its tokens end so much earlier"
    yield Finding(
        "clock-differs",
        Object("Cluster", cluster.server),
        "the API server's clock, by which tokens are made, as Entra's",
        found,
        "set the clocks of the control plane's machines, and have them keep time (NTP)",
    )


def _unreachable(about: Object, fetched: Fetched, what: str) -> Finding:
    return Finding(
        "issuer-unreachable",
        about,
        f"{what} at {fetched.url}, for everybody",
        fetched.fault,
        "publish it there, without authentication (AKS: az aks update --enable-oidc-issuer)",
    )


def _key_findings(cluster: Cluster, about: Object, document: Json) -> Iterator[Finding]:
    where = document.get("jwks_uri")
    if not isinstance(where, str) or not where:
        found, change = "none", "publish the API server's own document"
        yield Finding("issuer-document-wrong", about, "jwks_uri, where the keys are", found, change)
        return
    if why := why_not_public(where):
        yield Finding(
            "issuer-not-public",
            about,
            "a jwks_uri that Entra can reach",
            f"{quoted(where, 200)}, {why}",
            "set kube-apiserver's --service-account-jwks-uri to a public URL, and publish the keys there",
        )
        return
    if cluster.issued_keys is None:
        return
    if cluster.issued_keys.body is None:
        yield _unreachable(about, cluster.issued_keys, "the key set")
        return
    published = _keys_in(cluster.issued_keys.body)
    if not published:
        yield Finding(
            "issuer-document-wrong",
            about,
            f"a key set at {where}, with keys",
            "none in it",
            "publish what `kubectl get --raw /openid/v1/jwks` says",
        )
        return
    own = _keys_in(cluster.keys or {})
    signing = ((cluster.token or {}).get("header") or {}).get("kid")
    wanted = dict(own) if own else ({signing: None} if signing else {})
    missing = [
        kid
        for kid, key in wanted.items()
        if kid not in published or (key is not None and published[kid] != key)
    ]
    if missing:
        signs = " (the one that signs now)" if signing in missing else ""
        yield Finding(
            "issuer-keys-missing",
            about,
            f"the API server's keys at {where}",
            f"not there, or another: key {', '.join(quoted(one) for one in sorted(missing))}{signs}",
            "publish what `kubectl get --raw /openid/v1/jwks` says, with the old keys for a day more",
        )


def _algorithm_findings(cluster: Cluster, about: Object) -> Iterator[Finding]:
    header = (cluster.token or {}).get("header") or {}
    found = header.get("alg")
    if not found and (keys := (cluster.keys or {}).get("keys")):
        kinds = {str(one.get("alg") or one.get("kty")) for one in keys}
        found = None if _RS256 in kinds or "RSA" in kinds else ", ".join(sorted(kinds))
    if found and found != _RS256:
        yield Finding(
            "issuer-algorithm",
            about,
            f"tokens signed {_RS256}",
            str(found),
            "have kube-apiserver sign with an RSA key: --service-account-signing-key-file",
        )


def _keys_in(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the material of each key by its id."""
    keys = document.get("keys")
    return {
        str(one.get("kid")): tuple(str(one.get(part, "")) for part in ("kty", "n", "e", "x", "y"))
        for one in (keys if isinstance(keys, list) else ())
        if isinstance(one, dict)
    }


def issuer_unseen(cluster: Cluster) -> Iterator[Unseen]:
    """Yield what could not be told of it."""
    issuer = issuer_of(cluster)
    if issuer and cluster.issued is not None and is_on_loopback(issuer):
        yield Unseen(
            f"whether Entra can reach the issuer {issuer}", "it is on loopback, which is this machine only"
        )
