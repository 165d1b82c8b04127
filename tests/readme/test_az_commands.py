"""The pages' `az` commands have only options that azure-cli documents."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EVERYWHERE = {"--output", "--query"}
# Read from the parameters of azure-cli 2.91.0.
OPTIONS = {
    "account show": set[str](),
    "acr create": {"--name", "--resource-group", "--sku"},
    "acr login": {"--name", "--expose-token"},
    "aks create": {
        *("--name", "--resource-group", "--node-count", "--enable-oidc-issuer", "--attach-acr"),
        "--generate-ssh-keys",
    },
    "aks get-credentials": {"--name", "--resource-group"},
    "aks show": {"--name", "--resource-group"},
    "aks update": {"--name", "--resource-group", "--enable-oidc-issuer"},
    "group create": {"--name", "--location"},
    "group delete": {"--name"},
    "identity create": {"--name", "--resource-group"},
    "identity federated-credential create": {
        *("--name", "--identity-name", "--resource-group", "--issuer", "--subject", "--audiences"),
    },
    "identity show": {"--name", "--resource-group"},
    "role assignment create": {
        *("--role", "--scope", "--assignee-object-id", "--assignee-principal-type"),
    },
    "storage account create": {"--name", "--resource-group", "--sku", "--allow-shared-key-access"},
    "storage account show": {"--name", "--resource-group"},
}


def commands(text: str) -> list[str]:
    """Return every `az` command of a page's shell blocks and inline code, those in `$(…)` too."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"`(az .+?)`", text)
    found = []
    for block in blocks:
        rest = block.replace("\\\n", " ")
        while inner := re.search(r"\$\(([^()]*)\)", rest):
            found += [inner[1]] * inner[1].startswith("az ")
            rest = rest.replace(inner[0], "VALUE", 1)
        found += [part.strip() for part in re.split(r"[\n|]", rest) if part.strip().startswith("az ")]
    return found


@pytest.mark.parametrize("command", commands((DOCS / "aks.md").read_text(encoding="utf-8")))
def test_options_are_documented(command: str) -> None:
    """Each command is one of azure-cli's, with options of its own."""
    words, _, _ = command.removeprefix("az ").partition(" --")
    options = set(re.findall(r"(?<=\s)--[a-z-]+", command))

    assert words.strip() in OPTIONS
    assert options <= OPTIONS[words.strip()] | EVERYWHERE


def test_no_command_is_overlooked() -> None:
    """As many as the page has: each line or substitution that calls `az` is found."""
    text = (DOCS / "aks.md").read_text(encoding="utf-8")
    assert len(commands(text)) == len(re.findall(r"(?:^|\$\(|`)az ", text, re.MULTILINE))
