"""A stand-in ends at once and leaves nothing behind."""

import gc
import ssl
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from testkit.entra import EntraStandIn, faults
from testkit.entra.fixtures import TENANT_ID

TOKEN = f"/{TENANT_ID}/oauth2/v2.0/token"


def client_of(entra: EntraStandIn) -> httpx.Client:
    """Return a client that trusts the stand-in."""
    trusted = ssl.create_default_context(cafile=str(entra.ca_file))
    return httpx.Client(base_url=entra.authority, verify=trusted, timeout=30)


def test_a_late_answer_does_not_hold_it_up() -> None:
    """Whoever waits for a slow answer sees the connection end."""
    with ThreadPoolExecutor(1) as threads:
        with EntraStandIn() as entra:
            client = client_of(entra)
            entra.fault(faults.Slow(60), times=1)
            waiting = threads.submit(client.post, TOKEN)
            deadline = time.monotonic() + 20
            while client.get("/standin/faults").json():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            ending = time.monotonic()
        assert time.monotonic() - ending < 20
        with pytest.raises(httpx.TransportError):
            waiting.result()
        client.close()


def test_connections_of_clients_end_with_it() -> None:
    """A client that keeps its connections open costs no warning, and learns that nobody is there."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with EntraStandIn() as entra:
            client = client_of(entra)
            assert client.post(TOKEN).status_code == 400
        gc.collect()

    assert [str(warning.message) for warning in seen] == []
    with pytest.raises(httpx.TransportError):
        client.post(TOKEN)
    client.close()


def test_one_that_was_never_asked_ends_too() -> None:
    """Start and end, and again: the same object can be used twice."""
    entra = EntraStandIn()
    authorities = []
    for _ in range(2):
        with entra:
            authorities.append(entra.authority)
            assert entra.ca_file.exists()
        assert not entra.ca_file.exists()

    assert len(authorities) == 2
