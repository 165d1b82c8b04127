"""`python -m testkit.entra`: the stand-in as a process of its own."""

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.entra.grants import JWT_BEARER
from testkit.issuer import Issuer

COMMAND = (sys.executable, "-m", "testkit.entra")


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Start the stand-in; yield its process, its address and its CA file."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = dict(process.stdout.readline().split() for _ in range(2))
            yield process, told["authority"], Path(told["ca_file"])
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(issuer: Issuer, tmp_path: Path, ending: signal.Signals) -> None:
    """Registered over HTTPS by what it printed, it grants; then it ends quietly, with 0."""
    folder = tmp_path / "new"
    with started("--trust", str(issuer.ca_file), "--folder", str(folder)) as (process, authority, ca_file):
        assert ca_file.parent == folder
        trusted = ssl.create_default_context(cafile=str(ca_file))
        with httpx.Client(base_url=authority, verify=trusted) as client:
            registration = {
                "tenant": TENANT_ID,
                "client_id": CLIENT_ID,
                "issuer": issuer.url,
                "subject": "system:serviceaccount:default:default",
            }
            assert client.post("/standin/federated-credentials", json=registration).status_code == 201
            form = {
                "grant_type": "client_credentials",
                "client_id": CLIENT_ID,
                "scope": "https://vault.azure.net/.default",
                "client_assertion_type": JWT_BEARER,
                "client_assertion": issuer.mint(),
            }
            answer = client.post(f"/{TENANT_ID}/oauth2/v2.0/token", data=form)
            assert answer.json()["token_type"] == "Bearer"
        process.send_signal(ending)
        output, errors = process.communicate(timeout=30)

    assert (process.returncode, output, errors) == (0, "", "")


def test_its_own_folder_goes_with_it() -> None:
    """Without --folder the CA file stands in a temporary folder, until the end."""
    with started() as (process, _, ca_file):
        assert ca_file.exists()
        process.terminate()
        process.communicate(timeout=30)

    assert not ca_file.parent.exists()


def test_it_listens_where_it_is_told() -> None:
    """A name and a port of one's own choice; the certificate fits the name."""
    with started("--listen", "localhost:0") as (_, authority, ca_file):
        trusted = ssl.create_default_context(cafile=str(ca_file))
        port = authority.rpartition(":")[2]

        assert httpx.get(f"https://localhost:{port}/standin/", verify=trusted).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--listen", "8443"), "HOST:PORT wanted, '8443' found"),
        (("--listen", "127.0.0.1:x"), "HOST:PORT wanted, '127.0.0.1:x' found"),
        (("--listen", "127.0.0.1:99999"), "cannot listen on 127.0.0.1:99999"),
        (("--trust", "/nowhere/ca.pem"), "'/nowhere/ca.pem' does not exist"),
        (("--folder", "/proc/nowhere"), "/proc/nowhere"),
        (("--trust", __file__), "PEM certificates wanted, none found"),
    ],
)
def test_bad_arguments_end_it_with_one_clear_message(arguments: tuple[str, ...], message: str) -> None:
    """No traceback; the message says what was wanted and found."""
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode in {1, 2}
    assert message in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_port_that_is_taken_is_told() -> None:
    """Somebody listens there already."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = subprocess.run(
            [*COMMAND, "--listen", address], capture_output=True, text=True, timeout=60, check=False
        )

    assert ended.returncode == 1
    assert f"cannot listen on {address}: " in ended.stderr
    assert "in use" in ended.stderr
