"""What moving from azure-identity takes: its public names and keywords beside ours, told by both libraries.

`docs/moving-from-azure-identity.md` is made of this by `make manifests`; a test holds it to what the
installed azure-identity really has.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import azure.identity
import azure.identity.aio

import workload_identity
import workload_identity.aio
from workload_identity import options

ROOT: Final = Path(__file__).parents[4]
PAGE: Final = ROOT / "docs" / "moving-from-azure-identity.md"
FAMILIES: Final[dict[ModuleType, ModuleType]] = {
    azure.identity: workload_identity,
    azure.identity.aio: workload_identity.aio,
}
"""azure-identity's modules and ours."""

BEHAVIOUR: Final[tuple[tuple[str, str, str], ...]] = (
    (
        "Requests for one token",
        "one for each thread, task or instance that asks at the same time",
        "one; all others wait for its answer, be it a token or an error",
    ),
    (
        "Tokens held",
        "by each credential object",
        "by the process, for all credentials of one identity; `shared_cache=False` keeps them apart",
    ),
    (
        "Renewal ahead of a token's end",
        "in the caller's thread; some credentials fail while their token is still good",
        "in the background; nobody fails before the token's real end",
    ),
    ("How long a call may take", "300 s of silence, again and again", "120 s in all (`timeout`)"),
    (
        "The pod's token file",
        "kept for 10 minutes; a missing file stops a chain with FileNotFoundError",
        "read for each request, again when Entra finds it stale; a missing file lets a chain go on",
    ),
    (
        "Requests before the first token",
        "discovery documents, in some credentials",
        "none but the token request, except where a person signs in",
    ),
    (
        "What is raised",
        "sometimes KeyError, JSON or transport errors",
        "the three classes that the documentation names, azure-core's too where that is imported; ValueError",
    ),
    (
        "What an error says",
        "text",
        "text with what to change, and fields: `error`, `error_codes`, `correlation_id`, `claims` and more",
    ),
    ("`repr` of a token", "the token", "a mask and its end"),
    (
        "Tenants",
        "letter case matters; some are not checked",
        "letter case does not matter; all are checked, also those of a call",
    ),
    ("Empty variables", "used as they are", "as if they were not set"),
    (
        "Misspelt keywords",
        "ignored",
        "a UserWarning that names the nearest one",
    ),
    (
        "Token proxy of AKS identity bindings",
        "`use_token_proxy=True`, not through the default chain",
        "wherever the pod has one, through the default chain too; `enable_azure_proxy=False` declines",
    ),
    (
        "Certificates, awaiting",
        "never send their chain",
        "send it with `send_certificate_chain=True`, as the blocking ones do",
    ),
    (
        "Service Fabric, awaiting",
        "trusts any server",
        "trusts the pinned certificate alone, before anything secret is sent",
    ),
    (
        "A managed identity that answers with an error",
        "blocking: a chain goes on; awaiting: it stops",
        "a chain stops, unless the answer is that there is no identity here",
    ),
    (
        "A default chain's member that cannot be made",
        "the chain cannot be made",
        "reported when a token is asked for, as that member's failure",
    ),
    (
        "Device code, browser and password, awaiting",
        "not there",
        "there; MSAL works on a thread",
    ),
    (
        "`AZURE_CLIENT_SEND_CERTIFICATE_CHAIN`",
        'anything counts as yes, "false" too',
        "`1` and `true` are yes",
    ),
)
"""What differs on purpose: about what, azure-identity, ours."""


def keywords(credential: type) -> set[str]:
    """Return what azure-identity's constructor takes: by its signature, and by its words for `**kwargs`."""
    told = re.findall(r":(?:keyword|param) (?:[^:\n]*? )?(\w+):", inspect.getdoc(credential) or "")
    variable = {parameter.name for parameter in _all_parameters(credential)} - {
        parameter.name for parameter in parameters(credential)
    }
    return {*told, *(parameter.name for parameter in parameters(credential))} - variable


def accepted(credential: type) -> set[str]:
    """Return what our constructor takes."""
    named = {parameter.name for parameter in parameters(credential)}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in _all_parameters(credential)):
        named |= options.Options.__annotations__.keys() | options.WITHOUT_EFFECT
    return named


def parameters(credential: type) -> list[inspect.Parameter]:
    """Return a constructor's parameters that have a name, in order."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [parameter for parameter in _all_parameters(credential) if parameter.kind not in variable]


def _all_parameters(credential: type) -> list[inspect.Parameter]:
    constructor: Any = credential.__init__  # type: ignore[misc]  # of the class that is looked at, no other
    return list(inspect.signature(constructor).parameters.values())[1:]


def credentials(module: ModuleType) -> dict[str, type]:
    """Return a module's public credentials by name."""
    named = {name: getattr(module, name) for name in sorted(module.__all__) if name.endswith("Credential")}
    return {name: found for name, found in named.items() if not getattr(found, "_is_protocol", False)}


def page() -> str:
    """Return the page."""
    version = azure.identity.__version__
    return "\n".join(
        [
            "# Moving from azure-identity",
            "",
            "<!-- Made by `make manifests`: change tests/kit/src/testkit/migration.py instead. -->",
            "",
            "Change the import; names, arguments and environment variables stay:",
            "",
            "```python",
            "from workload_identity import DefaultAzureCredential  # was: from azure.identity",
            "from workload_identity.aio import DefaultAzureCredential  # was: from azure.identity.aio",
            "```",
            "",
            "Azure SDK clients take these credentials as they take azure-identity's, and `except` clauses",
            "for `azure.core.exceptions.ClientAuthenticationError` keep working. The tables below are",
            f"checked against azure-identity {version}.",
            "",
            "## Credentials",
            "",
            "| | blocking | awaiting | keywords that azure-identity does not document |",
            "| --- | --- | --- | --- |",
            *_rows(),
            "",
            "Every credential also takes the transport options of the",
            "[helper's README](../helper/README.md#options).",
            "",
            "## What differs on purpose",
            "",
            "| | azure-identity | this library |",
            "| --- | --- | --- |",
            *(f"| {about} | {theirs} | {ours} |" for about, theirs, ours in BEHAVIOUR),
            "",
        ]
    )


def _rows() -> Iterator[str]:
    blocking, awaiting = (credentials(ours) for ours in FAMILIES.values())
    their_awaiting = credentials(azure.identity.aio)
    for name, ours in blocking.items():
        theirs = getattr(azure.identity, name, None)
        known = keywords(theirs) if theirs else set()
        more = sorted({parameter.name for parameter in parameters(ours)} - known)
        new = " (new)" if name in awaiting and name not in their_awaiting else ""
        yield (
            f"| `{name}` | {'yes' if theirs else 'yes (new)'} | {'yes' if name in awaiting else 'no'}{new}"
            f" | {', '.join(f'`{keyword}`' for keyword in more if not keyword.startswith('_'))} |"
        )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
