"""A chain looks for the metadata service at its real address, in a network of the test's own."""

import json
import subprocess
import sys
import textwrap
from typing import Any

import pytest

PROGRAM = """
    import asyncio, contextlib, json, logging, socket, sys, time
    from testkit.alone import alone

    logging.disable()
    situation, family = sys.argv[1:]
    ADDRESS = "169.254.169.254"
    try:
        alone(*(() if situation == "no route" else (ADDRESS,)))
    except OSError as failure:
        print(json.dumps({"cannot": str(failure)}))
        sys.exit()

    from workload_identity.context import IN_CHAIN
    if family == "blocking":
        from workload_identity import ManagedIdentityCredential
    else:
        from workload_identity.aio import ManagedIdentityCredential
    SCOPE = "https://vault.azure.net/.default"

    async def awaited(credential):
        return await credential.get_token(SCOPE)

    def ask(chain=True, **given):
        credential = ManagedIdentityCredential(shared_cache=False, **given)
        token = IN_CHAIN.set(chain)
        begun = time.monotonic()
        try:
            given = credential.get_token(SCOPE) if family == "blocking" else asyncio.run(awaited(credential))
            outcome = "token"
        except Exception as failure:
            outcome = f"{type(failure).__name__}: {failure}"
        finally:
            IN_CHAIN.reset(token)
        return outcome, time.monotonic() - begun

    @contextlib.contextmanager
    def machine():
        if situation in {"no route", "refused"}:
            yield None
        elif situation == "swallowed":
            # A full queue: the kernel drops whoever wants to connect.
            with socket.socket() as listener, socket.socket() as first:
                listener.bind((ADDRESS, 80))
                listener.listen(0)
                first.connect((ADDRESS, 80))
                yield None
        elif situation == "mute":
            with socket.create_server((ADDRESS, 80)):
                yield None
        else:
            from testkit.hosts import Imds, after, saying
            with Imds(80, ADDRESS) as imds:
                if situation == "slow":
                    imds.script(after(0.6, saying(400)), after(1.5, imds.judged))
                yield imds

    with machine() as imds:
        first, again = ask(), ask()
        result = {
            "first": first,
            "again": again,
            "httpx": "httpx" in sys.modules,
            "asked": [asked.headers.get("metadata") for asked in imds.requests] if imds else [],
        }
        if situation == "refused":
            result["switched off"] = ask(_probe=False, retry_backoff_factor=0)
            result["alone"] = ask(chain=False, retry_backoff_factor=0)
            result["switched on"] = ask(chain=False, _probe=True)
    print(json.dumps(result))
"""


@pytest.fixture(params=["blocking", "awaiting"])
def look(request: pytest.FixtureRequest, environment_of_child: dict[str, str]) -> Any:
    """Run the program on a machine in a situation."""
    kept = {
        name: value
        for name, value in environment_of_child.items()
        if not name.startswith(("AZURE_", "IDENTITY_", "MSI_", "IMDS_"))
    }

    def looking(situation: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), situation, request.param],
            env=kept,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads(done.stdout)
        if "cannot" in result:
            pytest.skip(f"no network of our own, that takes root or user namespaces: {result['cannot']}")
        return result

    return looking


@pytest.mark.parametrize("situation", ["no route", "refused", "swallowed", "mute"])
def test_machine_without_metadata_service(look: Any, situation: str) -> None:
    """A chain knows within a second or so, whatever the network does, and the second time at once."""
    result = look(situation)

    for outcome, seconds in (result["first"], result["again"]):
        assert outcome.startswith("CredentialUnavailableError: no token")
        assert "no answer from the instance metadata service at 169.254.169.254" in outcome
        assert seconds < 10  # and not minutes; the second itself is a flow's deadline, tried elsewhere
    assert "looked for every 30 s" in result["again"][0]
    assert "looked for every 30 s" not in result["first"][0]
    assert not result["httpx"]


def test_probe_can_be_switched(look: Any) -> None:
    """Who names managed identity in AZURE_TOKEN_CREDENTIALS expects it; on its own a credential does."""
    result = look("refused")

    for outcome, _ in (result["switched off"], result["alone"]):
        assert "(4 tries)" in outcome
    assert "looked for every 30 s" in result["switched on"][0]


def test_machine_with_metadata_service(look: Any) -> None:
    """It is looked for once, without the header that would make it answer with a token."""
    result = look("present")

    assert [outcome for outcome, _ in (result["first"], result["again"])] == ["token", "token"]
    assert result["asked"] == [None, "true", "true"]


def test_machine_with_a_slow_metadata_service(look: Any) -> None:
    """A second is for a sign of life only: the token may take longer."""
    result = look("slow")

    assert result["first"][0] == "token"
    assert result["asked"] == [None, "true", "true"]
