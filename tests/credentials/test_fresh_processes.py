"""Whole processes: one request however many ask at once, what is imported for it, what a fork leaves."""

import subprocess
import sys
import textwrap
import time

import pytest

from testkit.entra import EntraStandIn
from testkit.entra.faults import Failing, Slow

SCOPE = "https://vault.azure.net/.default"
pytestmark = pytest.mark.usefixtures("pod")


def run(program: str, environment: dict[str, str]) -> str:
    """Run a program in a process of its own and return what it prints; warnings are errors there."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


THREADS = """
    import threading
    from workload_identity import WorkloadIdentityCredential

    credential = WorkloadIdentityCredential()
    tokens = []
    barrier = threading.Barrier(100)

    def ask():
        barrier.wait()
        tokens.append(credential.get_token("https://vault.azure.net/.default"))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(len(tokens), len(set(tokens)))
"""
TASKS = """
    import asyncio
    from workload_identity.aio import WorkloadIdentityCredential

    async def main():
        async with WorkloadIdentityCredential() as credential:
            ask = credential.get_token
            tokens = await asyncio.gather(*(ask("https://vault.azure.net/.default") for _ in range(100)))
        print(len(tokens), len(set(tokens)))

    asyncio.run(main())
"""
INSTANCES = """
    from concurrent.futures import ThreadPoolExecutor
    from workload_identity import WorkloadIdentityCredential

    credentials = [WorkloadIdentityCredential() for _ in range(20)]
    with ThreadPoolExecutor(20) as threads:
        scope = "https://vault.azure.net/.default"
        tokens = list(threads.map(lambda credential: credential.get_token(scope), credentials))
    print(len(tokens), len(set(tokens)))
"""


@pytest.mark.parametrize(
    ("program", "printed"), [(THREADS, "100 1\n"), (TASKS, "100 1\n"), (INSTANCES, "20 1\n")]
)
def test_one_request_for_all(
    program: str, printed: str, entra: EntraStandIn, environment_of_child: dict[str, str]
) -> None:
    """100 threads, 100 tasks or 20 instances in a fresh process cost one request."""
    with entra.fault(Slow(0.3)):
        assert run(program, environment_of_child) == printed

    assert len(entra.requests) == 1


def test_import_is_light(environment_of_child: dict[str, str]) -> None:
    """The package, its credential and its construction load no HTTP client and little else."""
    program = """
        import sys
        before = set(sys.modules)
        from workload_identity import WorkloadIdentityCredential, ClientAuthenticationError
        WorkloadIdentityCredential()
        heavy = {"httpx", "httpcore", "ssl", "asyncio", "typing", "dataclasses", "logging", "json",
                 "inspect", "threading", "socket", "urllib.parse", "email", "azure", "anyio", "re"}
        print(sorted((set(sys.modules) - before) & heavy))
    """

    assert run(program, environment_of_child) == "[]\n"


@pytest.mark.parametrize("host", ["AZURE_POD_IDENTITY_AUTHORITY_HOST", "MSI_ENDPOINT", "none"])
def test_import_of_managed_identity_is_light(environment_of_child: dict[str, str], host: str) -> None:
    """Neither does it for the identity of a machine, or of this pod."""
    program = """
        import sys
        before = set(sys.modules)
        from workload_identity import ManagedIdentityCredential
        ManagedIdentityCredential()
        heavy = {"httpx", "httpcore", "ssl", "asyncio", "typing", "dataclasses", "logging", "json",
                 "inspect", "threading", "socket", "urllib.parse", "email", "azure", "anyio", "re"}
        print(sorted((set(sys.modules) - before) & heavy))
    """

    assert run(program, {**environment_of_child, host: "http://127.0.0.1:9"}) == "[]\n"


@pytest.mark.parametrize("name", ["WorkloadIdentityCredential", "DefaultAzureCredential"])
def test_first_token_is_light(name: str, environment_of_child: dict[str, str]) -> None:
    """A first token takes TLS and JSON, and none of what costs more than these."""
    program = f"""
        import sys
        before = set(sys.modules)
        from workload_identity import {name}
        {name}().get_token("{SCOPE}")
        heavy = {{"httpx", "asyncio", "typing", "dataclasses", "inspect", "logging", "datetime", "email"}}
        print(sorted((set(sys.modules) - before) & heavy))
    """

    assert run(program, environment_of_child) == "[]\n"


@pytest.mark.parametrize("loaded", ["when it asks", "later", "never"])
def test_records_are_for_who_can_hear_them(
    loaded: str, environment_of_child: dict[str, str], entra: EntraStandIn
) -> None:
    """A token given is logged where logging is loaded by then; a warning anywhere, to stderr if need be."""
    program = f"""
        import sys
        from workload_identity import ClientAuthenticationError, WorkloadIdentityCredential
        def listen():
            import logging
            logging.basicConfig(level="INFO", stream=sys.stdout, format="%(name)s %(funcName)s %(levelname)s")
        if {loaded == "when it asks"}: listen()
        WorkloadIdentityCredential().get_token("{SCOPE}")
        if {loaded == "later"}: listen()
        sys.stderr = sys.stdout
        try:
            WorkloadIdentityCredential(client_id="another").get_token("{SCOPE}")
        except ClientAuthenticationError:
            pass
    """

    said = run(program, environment_of_child)

    given, refused = "workload_identity given INFO\n", "workload_identity refused WARNING\n"
    if loaded == "never":
        assert said.startswith(f"WorkloadIdentityCredential for {SCOPE}: no token of client another")
    else:
        assert said == (given if loaded == "when it asks" else "") + refused
    assert len(entra.requests) >= 1


def test_package_alone_imports_nothing(environment_of_child: dict[str, str]) -> None:
    """Names are loaded when they are used."""
    program = """
        import sys
        before = set(sys.modules)
        import workload_identity
        print(sorted(name for name in set(sys.modules) - before if name != "__future__"))
    """

    assert run(program, environment_of_child) == "['workload_identity', 'workload_identity.lazy']\n"


def test_command_line_of_httpx_is_not_loaded(environment_of_child: dict[str, str]) -> None:
    """Where click, rich and pygments are installed, httpx would import them all for its command."""
    program = """
        import sys
        from workload_identity import WorkloadIdentityCredential
        WorkloadIdentityCredential().get_token("https://vault.azure.net/.default")
        print(sorted({"rich", "click", "pygments", "httpx._main"} & set(sys.modules)))
        import httpx
        print(callable(httpx.Client))
    """

    assert run(program, environment_of_child) == "[]\nTrue\n"


def test_helper_needs_neither_operator_nor_azure(environment_of_child: dict[str, str]) -> None:
    """A token is got without any of them."""
    program = """
        import sys
        from workload_identity import WorkloadIdentityCredential
        WorkloadIdentityCredential().get_token("https://vault.azure.net/.default")
        print(sorted({"azure", "msal", "kopf", "kubernetes", "cryptography"} & set(sys.modules)))
    """

    assert run(program, environment_of_child) == "[]\n"


FORK = """
    import os, threading, time
    from workload_identity import WorkloadIdentityCredential

    credential = WorkloadIdentityCredential()
    scope = "https://vault.azure.net/.default"
    credential.get_token("https://storage.azure.com/.default")  # forks within imports hang
    asking = threading.Thread(target=lambda: credential.get_token(scope))
    asking.start()
    time.sleep(0.5)  # the request is in the air
    child = os.fork()
    if child == 0:
        token = credential.get_token(scope)
        os._exit(0 if token.token else 1)
    asking.join()
    assert credential.get_token(scope).token
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_fork_with_a_request_in_the_air(entra: EntraStandIn, environment_of_child: dict[str, str]) -> None:
    """The child asks for itself: its parent's thread does not exist there."""
    # Python 3.12 and later warn of any fork with threads; that is what is tried here.
    environment = {**environment_of_child, "PYTHONWARNINGS": "ignore"}
    with entra.fault(Slow(1.5)):
        assert run(FORK, environment).splitlines()[-1] == "0"

    assert len(entra.requests) == 3


def test_fork_keeps_tokens(entra: EntraStandIn, environment_of_child: dict[str, str]) -> None:
    """A token that is held serves the children too."""
    program = """
        import os
        from workload_identity import WorkloadIdentityCredential

        credential = WorkloadIdentityCredential()
        token = credential.get_token("https://vault.azure.net/.default")
        child = os.fork()
        if child == 0:
            os._exit(0 if credential.get_token("https://vault.azure.net/.default") == token else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """

    assert run(program, environment_of_child) == "0\n"
    assert len(entra.requests) == 1


def test_unclosed_credentials_are_quiet(entra: EntraStandIn, environment_of_child: dict[str, str]) -> None:
    """Nothing is open between requests, so nothing complains when it is collected."""
    program = """
        import asyncio, gc
        import workload_identity, workload_identity.aio

        workload_identity.WorkloadIdentityCredential().get_token("https://vault.azure.net/.default")

        async def main():
            await workload_identity.aio.WorkloadIdentityCredential().get_token("https://storage.azure.com/.default")

        asyncio.run(main())
        gc.collect()
        print("done")
    """

    assert run(program, environment_of_child) == "done\n"
    assert len(entra.requests) == 2


def test_program_may_end_during_a_renewal(entra: EntraStandIn, environment_of_child: dict[str, str]) -> None:
    """A renewal in the background neither holds up the end of a program nor complains about it."""
    entra.lifetime = 200
    program = """
        import time
        from workload_identity import WorkloadIdentityCredential
        from workload_identity.clock import Clock

        credential = WorkloadIdentityCredential()
        credential.get_token("https://vault.azure.net/.default")
        credential._clock = Clock(time.time, lambda: time.monotonic() + 40)
        credential.get_token("https://vault.azure.net/.default")
        time.sleep(0.3)  # the renewal is in the air
        print("done")
    """
    begin = time.monotonic()
    with entra.fault(Failing(503, retry_after=None), times=1), entra.fault(Slow(1)):
        assert run(program, environment_of_child) == "done\n"

    assert time.monotonic() - begin < 20
