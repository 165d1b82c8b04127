"""Which proxy of the environment a request goes through: what NO_PROXY stands for."""

import pytest

from workload_identity.options import Options
from workload_identity.sending import proxy_of_environment
from workload_identity.steps import Send

PROXY = "http://proxy:3128"


def found(url: str, *, direct: bool = False) -> str:
    """Return the proxy of a request."""
    return proxy_of_environment(Send(url, None, {}, 0, direct=direct), Options({}), None)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one proxy, for https."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", PROXY)


@pytest.mark.parametrize(
    ("url", "entries"),
    [
        ("https://login.example/x", "*"),
        ("https://login.example/x", "login.example"),
        ("https://LOGIN.example./x", "Login.Example"),
        ("https://login.example/x", "a, .example ,b"),
        ("https://login.example/x", "example"),
        ("https://login.example/x", "*.example"),
        ("https://login.example/x", "login.example:443"),
        ("https://login.example:8443/x", "login.example:8443"),
        ("https://login.example/x", "https://login.example"),
        ("https://10.1.2.3/x", "10.1.2.3"),
        ("https://10.1.2.3/x", "10.1.2.3:443"),
        ("https://10.1.2.3/x", "10.0.0.0/8"),
        ("https://10.1.2.3/x", "10.1.2.9/8"),
        ("https://[fd00::5]/x", "fd00::5"),
        ("https://[fd00::5]/x", "[fd00::5]"),
        ("https://[fd00::5]:8443/x", "[fd00::5]:8443"),
        ("https://[fd00::5]/x", "[::1],fe80::/10,fd00::/8"),
    ],
)
def test_without_a_proxy(url: str, entries: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names stand for what is below them, addresses for themselves, networks for all in them."""
    monkeypatch.setenv("NO_PROXY", entries)

    assert found(url) == ""


@pytest.mark.parametrize(
    ("url", "entries"),
    [
        ("https://login.example/x", ""),
        ("https://login.example/x", ",, ,"),
        ("https://login.example/x", "gin.example"),
        ("https://login.example/x", "x.login.example"),
        ("https://login.example/x", "login.example:80"),
        ("https://login.example/x", "http://login.example"),
        ("https://login.example/x", "10.0.0.0/8,[::1],fe80::/10,[fe80::1%eth0],a b,%,/,:,[,<local>"),
        ("https://login.example/x", "."),
        ("https://10.1.2.3/x", "10.1.2"),
        ("https://10.1.2.3/x", "10.1.2.3:80"),
        ("https://10.1.2.3/x", "11.0.0.0/8,login.example,[::1],/,]"),
        ("https://[fd00::5]/x", "[fd00::5]:80,10.0.0.0/8"),
    ],
)
def test_through_the_proxy(url: str, entries: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for others, or for nothing at all, changes nothing."""
    monkeypatch.setenv("NO_PROXY", entries)

    assert found(url) == PROXY


def test_proxy_of_another_scheme() -> None:
    """HTTPS_PROXY is for https alone."""
    assert found("http://login.example/x") == ""


def test_this_machines_own() -> None:
    """Identity endpoints are never behind a proxy."""
    assert found("https://login.example/x", direct=True) == ""


@pytest.mark.parametrize("given", ["proxy:3128", " http://proxy:3128 ", "//proxy:3128"])
def test_notations_of_a_proxy(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme may be left out."""
    monkeypatch.setenv("HTTPS_PROXY", "")
    monkeypatch.setenv("ALL_PROXY", given)

    assert found("https://login.example/x") == PROXY
