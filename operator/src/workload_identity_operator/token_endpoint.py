"""The custom token endpoint (AKS: identity binding), where a pod's token is traded instead of at Entra.

A pod asks for it by an annotation whose last part the operator is told, `use-identity-binding` on AKS. Its
token then has the endpoint's audience, and its containers learn the endpoint's URL, its TLS name and the
authority behind its certificate.

Source: Azure/azure-workload-identity v1.6.0. Settings that it accepts, to wire pods that cannot work, are
faults here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from workload_identity_operator import contract
from workload_identity_operator.clouds import PUBLIC_AUDIENCE
from workload_identity_operator.errors import quoted
from workload_identity_operator.shapes import Json, is_base_url

PROXY, SNI_NAME, CA_FILE, CA_DATA = contract.ENDPOINT_VARIABLES
CA_CONFIG_MAP: Final = "AZURE_KUBERNETES_CA_CONFIGMAP_NAME"
CA_SIGNER: Final = "AZURE_KUBERNETES_CA_CTB_SIGNER_NAME"
CA_SELECTOR: Final = "AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR"
SUFFIX_FLAG: Final = "--custom-token-endpoint-annotation-suffix"
AUDIENCE_FLAG: Final = "--custom-token-endpoint-audience"

_CA_PATH: Final = "ca-cert/ca.crt"
_LONGEST_SUFFIX: Final = 59  # with "use-" the 63 characters that Kubernetes allows
# Kubernetes compares without case, and the key is then used with the case as given.
_KEY: Final = re.compile(r"use-[-A-Za-z0-9_.]*[A-Za-z0-9]")
_OPERATORS: Final = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}
"""Operators of a label selector, and whether they take values."""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """What pods that use the endpoint are given.

    Attributes:
        annotation: Pod annotation that asks for it by the value `true`, in any case.
        audience: Audience of the projected token.
        proxy: Its https URL.
        sni_name: TLS server name to send and to verify; "" when it is the URL's host.
        ca_data: The authority's certificates as PEM, or "".
        ca_source: What projects them as a file beside the token instead; None when nothing does.
    """

    annotation: str
    audience: str
    proxy: str
    sni_name: str = ""
    ca_data: str = ""
    ca_source: Json | None = None

    def wanted_by(self, annotations: Mapping[str, str]) -> bool:
        """Whether a pod's annotations ask for it."""
        return annotations.get(self.annotation, "").lower() == "true"

    def env(self, base_path: str) -> tuple[tuple[str, str], ...]:
        """Return the variables of a container that mounts the volume there; empty ones are left out."""
        ca_file = f"{base_path}/{_CA_PATH}" if self.ca_source else ""
        return ((PROXY, self.proxy), (SNI_NAME, self.sni_name), (CA_FILE, ca_file), (CA_DATA, self.ca_data))


class Reading(NamedTuple):
    """What flags and environment say of an endpoint.

    Attributes:
        endpoint: None when there is none, or when it is faulty.
        faults: One line for each fault.
    """

    endpoint: TokenEndpoint | None
    faults: list[str]


def read_token_endpoint(suffix: str, audience: str, environ: Mapping[str, str]) -> Reading:
    """Return the endpoint that the two flags turn on; both empty is none.

    The certificates' sources are checked even then, as the peer does.
    """
    faults: list[str] = []
    ca_source = _ca_source(environ, faults)
    if not suffix and not audience:
        return Reading(None, faults)
    if not suffix or not audience:
        missing, there = (SUFFIX_FLAG, AUDIENCE_FLAG) if audience else (AUDIENCE_FLAG, SUFFIX_FLAG)
        faults.append(
            f"{missing}: is empty though {there} is set: set both for a custom token endpoint, or neither"
        )
        return Reading(None, faults)
    if audience.lower() == PUBLIC_AUDIENCE.lower():
        faults.append(
            f"{AUDIENCE_FLAG}: {quoted(audience)} is that of ordinary tokens: the endpoint needs its own"
        )
    if not _KEY.fullmatch(f"use-{suffix}") or len(suffix) > _LONGEST_SUFFIX:
        faults.append(
            f"{SUFFIX_FLAG}: {quoted(suffix)} cannot end an annotation: wanted at most {_LONGEST_SUFFIX} "
            "letters, digits, '-', '_' and '.', the last a letter or digit"
        )
    proxy = environ.get(PROXY, "")
    if not is_base_url(proxy):
        faults.append(
            f"{PROXY}: {quoted(proxy)} cannot be the token endpoint: wanted https://HOST[:PORT][/PATH], "
            "no user, query or fragment"
        )
    if faults:
        return Reading(None, faults)
    endpoint = TokenEndpoint(
        annotation=f"{contract.PREFIX}use-{suffix}",
        audience=audience,
        proxy=proxy,
        sni_name=environ.get(SNI_NAME, ""),
        ca_data=environ.get(CA_DATA, ""),
        ca_source=ca_source,
    )
    return Reading(endpoint, faults)


def _ca_source(environ: Mapping[str, str], faults: list[str]) -> Json | None:
    """Return the projection of the endpoint's certificates; None when they are not projected."""
    config_map, signer = environ.get(CA_CONFIG_MAP, ""), environ.get(CA_SIGNER, "")
    selector = _selector(environ.get(CA_SELECTOR, ""), faults)
    if sum(map(bool, (environ.get(CA_DATA), config_map, signer))) > 1:
        faults.append(
            f"{CA_DATA}, {CA_CONFIG_MAP}, {CA_SIGNER}: more than one is set: wanted one of them, or none"
        )
    if selector is not None and not signer:
        faults.append(f"{CA_SELECTOR}: is set without {CA_SIGNER}: set both, or neither")
    if config_map:
        item = {"key": "ca.crt", "path": _CA_PATH}
        return {"configMap": {"name": config_map, "items": [item], "optional": False}}
    if signer:
        chosen = {} if selector is None else {"labelSelector": selector}
        return {"clusterTrustBundle": {"signerName": signer, **chosen, "path": _CA_PATH, "optional": False}}
    return None


def _selector(text: str, faults: list[str]) -> Json | None:
    """Return a LabelSelector written as JSON; None for a blank text or a faulty one."""
    if not text.strip():
        return None
    try:
        selector = json.loads(text)
    except ValueError as error:
        faults.append(f"{CA_SELECTOR}: {quoted(text)} is no JSON: {error}")
        return None
    if fault := _selector_fault(selector):
        faults.append(f"{CA_SELECTOR}: {quoted(text)} is no label selector: {fault}")
        return None
    found: Json = selector
    return found


def _selector_fault(selector: Any) -> str | None:
    if not isinstance(selector, dict):
        return "wanted an object"
    if unknown := sorted(selector.keys() - {"matchLabels", "matchExpressions"}):
        return f"wanted matchLabels and matchExpressions, found {', '.join(unknown)}"
    labels = {} if selector.get("matchLabels") is None else selector["matchLabels"]
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        return "wanted matchLabels to map texts to texts"
    expressions = [] if selector.get("matchExpressions") is None else selector["matchExpressions"]
    if not isinstance(expressions, list):
        return "wanted matchExpressions to be a list"
    return next(filter(None, map(_expression_fault, expressions)), None)


def _expression_fault(expression: Any) -> str | None:
    if not isinstance(expression, dict) or not isinstance(expression.get("key"), str):
        return "wanted each expression to have a key"
    operator, values = expression.get("operator"), expression.get("values") or []
    if operator not in _OPERATORS:
        return f"wanted an operator of {', '.join(_OPERATORS)}"
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return "wanted values to be a list of texts"
    if bool(values) != _OPERATORS[operator]:
        return f"wanted {'' if _OPERATORS[operator] else 'no '}values with {operator}"
    return None
