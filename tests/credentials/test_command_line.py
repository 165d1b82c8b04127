"""`python -m workload_identity`: what a person in a pod sees, and what is never shown by accident."""

import json
import subprocess
import sys
from typing import Any

import pytest

from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from workload_identity.__main__ import TOKEN, Row, table

SCOPE = "https://vault.azure.net/.default"
Pod = Any
Toolbox = Any


@pytest.fixture
def here(environment_of_child: dict[str, str], toolbox: Toolbox) -> dict[str, str]:
    """The environment of a wired pod with an empty toolbox, where no metadata service is looked for."""
    return {
        **environment_of_child,
        "PATH": f"{toolbox.folder}:/usr/bin:/bin",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "IDENTITY_ENDPOINT": "http://127.0.0.1:1",
    }


def run(environment: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run the command and return its exit status and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "workload_identity", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_token(here: dict[str, str]) -> None:
    """Whose token it is and until when, not the token."""
    status, shown, complaint = run(here, "token", SCOPE)

    assert (status, complaint) == (0, "")
    assert shown.startswith("good until 20")
    assert f"\ntid: {TENANT_ID}\n" in shown
    assert "eyJ" not in shown
    status, shown, _ = run(here, "token", SCOPE, "--json")
    assert status == 0
    assert json.loads(shown)["claims"]["tid"] == TENANT_ID
    assert "token" not in json.loads(shown)


def test_the_token_itself(here: dict[str, str]) -> None:
    """For who asks for it."""
    status, shown, _ = run(here, "token", SCOPE, "--show-token")
    assert (status, shown.count("\n"), shown[:3]) == (0, 1, "eyJ")
    assert json.loads(run(here, "token", SCOPE, "--show-token", "--json")[1])["token"].startswith("eyJ")


def test_explain(here: dict[str, str]) -> None:
    """Each member, in the chain's order: what it found, what it answers, and which one is taken."""
    status, shown, complaint = run(here, "explain", SCOPE)

    assert (status, complaint) == (0, "")
    lines = shown.splitlines()
    heads = [line[:54].rstrip() for line in lines[1:] if not line.startswith(" ")]
    assert [(head[:36].rstrip(), head[36:]) for head in heads] == [
        ("EnvironmentCredential", "not here"),
        ("WorkloadIdentityCredential", "token, taken"),
        ("ManagedIdentityCredential", "not here"),
        ("SharedTokenCacheCredential", "left out"),
        ("VisualStudioCodeCredential", "left out"),
        ("AzureCliCredential", "not here"),
        ("AzurePowerShellCredential", "not here"),
        ("AzureDeveloperCliCredential", "not here"),
        ("InteractiveBrowserCredential", "left out"),
        ("InteractiveBrowserBrokerCredential", "left out"),
    ]
    assert f"client_id={CLIENT_ID!r}" in shown
    assert here["AZURE_FEDERATED_TOKEN_FILE"] in shown
    assert "eyJ" not in shown


def test_explain_a_pod_that_is_not_wired(here: dict[str, str], toolbox: Toolbox) -> None:
    """The exit status says that there is no token, the rows say what to do."""
    toolbox.put_answer("az", "", "ERROR: AADSTS70043: expired", 1)
    for name in [name for name in here if name.startswith("AZURE_")]:
        del here[name]

    status, shown, _ = run(here, "explain", SCOPE)

    assert status == 1
    assert "azure.workload.identity/client-id" in shown
    assert shown.endswith("\nDefaultAzureCredential gets no token here.\n")
    status, shown, _ = run(here, "explain", "--json")
    rows = {row["member"]: row for row in json.loads(shown)}
    assert status == 1
    assert [rows[name]["answer"] for name in ("WorkloadIdentityCredential", "AzureCliCredential")] == [
        "not here",
        "failed",
    ]
    assert not rows["AzureCliCredential"]["stops"]
    assert run(here, "token", SCOPE)[0] == 1


def test_explain_what_hides_a_token(here: dict[str, str], toolbox: Toolbox) -> None:
    """A member that fails stops the chain: a token after it is shown, and not taken."""
    toolbox.put_answer("az", '{"accessToken": "opaque", "expires_on": 2000000000}')
    here["AZURE_CLIENT_ID"] = "00000000-0000-0000-0000-00000000dead"

    status, shown, _ = run(here, "explain", SCOPE, "--json")

    rows = {row["member"]: row for row in json.loads(shown)}
    assert status == 1
    assert rows["WorkloadIdentityCredential"]["stops"]
    assert (rows["AzureCliCredential"]["answer"], rows["AzureCliCredential"]["chosen"]) == ("token", False)
    assert "opaque" not in shown
    assert "The chain stops here." in run(here, "explain", SCOPE)[1]


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("token", ""), ("explain", "a\nb")])
def test_misuse(here: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Status 2 and what is wrong."""
    status, shown, complaint = run(here, *arguments)

    assert (status, shown) == (2, "")
    assert complaint


def test_variable_that_names_nothing(here: dict[str, str]) -> None:
    """Likewise."""
    status, _, complaint = run({**here, "AZURE_TOKEN_CREDENTIALS": "all"}, "explain")

    assert status == 2
    assert complaint.startswith("AZURE_TOKEN_CREDENTIALS='all': wanted one of dev, prod,")


@pytest.mark.parametrize("date", [1e20, -1e20, 99_999_999_999_999, float("nan"), True])
def test_date_that_there_cannot_be(date: float) -> None:
    """A token may say anything: it is shown as it is said."""
    shown = table([Row("AzureCliCredential", TOKEN, claims={"exp": date, "sub": "somebody"})])

    assert "exp: " in shown
    assert "sub: somebody" in shown
