"""Flags and environment become settings, or one clear line for each fault."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from workload_identity_operator.errors import SettingsInvalid
from workload_identity_operator.settings import Address, Flags, Settings, read_settings

TENANT = "22222222-2222-2222-2222-222222222222"
ENVIRON = {"AZURE_TENANT_ID": TENANT}
TOO_LONG = "x" * 5000


def faults_of(flags: Flags, environ: dict[str, str]) -> tuple[str, ...]:
    """Return the faults for which settings are refused."""
    with pytest.raises(SettingsInvalid) as invalid:
        read_settings(flags, environ)
    return invalid.value.faults


def settings_with(environ: Mapping[str, str] = MappingProxyType({}), **flags: Any) -> Settings:
    """Return the settings that these flags and variables give, beside a tenant."""
    return read_settings(Flags(**flags), {**ENVIRON, **environ})


def test_defaults() -> None:
    """With nothing but a tenant the defaults are the peer's, and ours where it has none."""
    found = settings_with()

    assert (
        found.tenant_id,
        found.authority_host,
        found.audience,
    ) == (TENANT, "https://login.microsoftonline.com/", "api://AzureADTokenExchange")
    assert found.namespace == "azure-workload-identity-system"
    assert (str(found.listen), str(found.health), str(found.metrics)) == (":9443", ":9440", ":8095")
    assert found.tls_minimum == ssl.TLSVersion.TLSv1_3
    assert found.log_level == ""
    assert (found.certificate_folder, found.kubeconfig) == (None, None)
    assert found.drain == 5


# The cloud.

CLOUDS = {
    "AzurePublicCloud": ("https://login.microsoftonline.com/", "api://AzureADTokenExchange"),
    "AzureCloud": ("https://login.microsoftonline.com/", "api://AzureADTokenExchange"),
    "": ("https://login.microsoftonline.com/", "api://AzureADTokenExchange"),
    "AzureUSGovernmentCloud": ("https://login.microsoftonline.us/", "api://AzureADTokenExchangeUSGov"),
    "AzureUSGovernment": ("https://login.microsoftonline.us/", "api://AzureADTokenExchangeUSGov"),
    "AzureChinaCloud": ("https://login.chinacloudapi.cn/", "api://AzureADTokenExchangeChina"),
    "AzureGermanCloud": ("https://login.microsoftonline.de/", "api://AzureADTokenExchange"),
}


@pytest.mark.parametrize("spelt", [str, str.lower, str.upper, str.swapcase])
@pytest.mark.parametrize("name", CLOUDS)
def test_clouds(name: str, spelt: type[str]) -> None:
    """Each cloud is known by its names in any case, and brings its authority and audience."""
    found = settings_with({"AZURE_ENVIRONMENT": spelt(name)})

    assert CLOUDS[name] == (found.authority_host, found.audience)


def test_own_authority_and_audience() -> None:
    """Flags win over the cloud's own, each alone."""
    china = {"AZURE_ENVIRONMENT": "AzureChinaCloud"}

    assert settings_with(china, audience="api://mine").authority_host == "https://login.chinacloudapi.cn/"
    assert settings_with(china, audience="api://mine").audience == "api://mine"
    authority = settings_with(china, authority_host="https://login.example")
    assert (authority.authority_host, authority.audience) == (
        "https://login.example/",
        "api://AzureADTokenExchangeChina",
    )


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("https://login.example", "https://login.example/"),
        ("https://login.example/", "https://login.example/"),
        ("https://login.example//", "https://login.example/"),
        ("https://login.example:8443/adfs", "https://login.example:8443/adfs/"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443/"),
        ("https://127.0.0.1", "https://127.0.0.1/"),
    ],
)
def test_authority_host(given: str, used: str) -> None:
    """An authority is an https URL and is given to pods with one trailing slash."""
    assert used == settings_with(authority_host=given).authority_host


@pytest.mark.parametrize(
    "url",
    [
        "login.example",
        "http://login.example",
        "https://",
        "https:///path",
        "https://user@login.example",
        "https://@login.example",
        "https://login.example?",
        "https://login.example/?a=b",
        "https://login.example#",
        "https://login.example:0",
        "https://login.example:",
        "https://login.example:99999",
        "https://[fd00::1",
        "https://[wrong]",
        "https://login example",
        " https://login.example",
        "https://login.example\n",
        "https://login.ex\tample",
        "https://lögin.example",
        "https://login.example/a b",
    ],
)
def test_authority_that_is_none(url: str) -> None:
    """Whatever else stands there is one fault, on one line."""
    (fault,) = faults_of(Flags(authority_host=url), ENVIRON)

    assert fault.startswith('--authority-host: "')
    assert "https://HOST" in fault
    assert fault.isprintable()


STACK = {"AZURE_ENVIRONMENT": "azurestackcloud"}


@pytest.mark.parametrize(
    "content",
    [
        '{"activeDirectoryEndpoint": "https://login.stack.example/adfs", "other": [1]}',
        '\ufeff{"activeDirectoryEndpoint": "https://login.stack.example/adfs/"}',
    ],
)
def test_azure_stack(tmp_path: Path, content: str) -> None:
    """Azure Stack's authority is read from the file that describes it; a byte-order mark is no fault."""
    file = tmp_path / "stack.json"
    file.write_text(content, encoding="utf-8")

    found = settings_with(STACK | {"AZURE_ENVIRONMENT_FILEPATH": str(file)})

    assert (found.authority_host, found.audience) == (
        "https://login.stack.example/adfs/",
        "api://AzureADTokenExchange",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b'{"activeDirectoryEndpoint": "\xff"}', "no JSON"),
        (b"[]", "no activeDirectoryEndpoint"),
        (b"{}", "no activeDirectoryEndpoint"),
        (b'{"activeDirectoryEndpoint": ""}', "no activeDirectoryEndpoint"),
        (b'{"activeDirectoryEndpoint": 7}', "no activeDirectoryEndpoint"),
        (
            b'{"activeDirectoryEndpoint": "http://login.stack.example"}',
            '"http://login.stack.example" is no base URL',
        ),
        (b'{"activeDirectoryEndpoint": "https://login.stack.example/?a"}', "no base URL"),
    ],
)
def test_azure_stack_file_that_says_nothing(tmp_path: Path, content: bytes, told: str) -> None:
    """What is wrong with the file is one fault that names it."""
    file = tmp_path / "stack.json"
    file.write_bytes(content)

    (fault,) = faults_of(Flags(), ENVIRON | STACK | {"AZURE_ENVIRONMENT_FILEPATH": str(file)})

    assert told in fault
    assert str(file)[:60] in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (None, "AZURE_ENVIRONMENT_FILEPATH is not set"),
        ("", "AZURE_ENVIRONMENT_FILEPATH is not set"),
        ("/nonexistent/stack.json", "cannot be read: No such file"),
        ("/", "cannot be read: Is a directory"),
        (TOO_LONG, "cannot be read: File name too long"),
    ],
)
def test_azure_stack_file_that_is_not_there(path: str | None, told: str) -> None:
    """A file that is not named, or cannot be read, is one fault."""
    named = {} if path is None else {"AZURE_ENVIRONMENT_FILEPATH": path}

    (fault,) = faults_of(Flags(), ENVIRON | STACK | named)

    assert told in fault


# Addresses.


def with_address(flag: str, text: str) -> Flags:
    """Return flags of which one is given."""
    given: dict[str, Any] = {flag: text}
    return Flags(**given)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":8443", None, 8443),
        (":0", None, 0),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:80", "localhost", 80),
        ("[::]:8443", "::", 8443),
        ("[::1]:0", "::1", 0),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
    ],
)
def test_addresses(text: str, host: str | None, port: int) -> None:
    """An address is a host, which may be left out or IPv6 in brackets, and a port, where 0 is any."""
    for flag in ("listen", "health_addr", "metrics_addr"):
        found = read_settings(with_address(flag, text), ENVIRON)
        address = {"listen": found.listen, "health_addr": found.health, "metrics_addr": found.metrics}[flag]
        assert Address(host, port) == address
        assert text == str(address)


@pytest.mark.parametrize(
    "text",
    [
        *("", "9443", ":", "localhost", "localhost:", ":http", ":-1", ":+1", ":65536", ":1_0", ":٨٠", ": 80"),
        *("::1:80", "[::1]", "[::1]80", "[]:80", "[localhost]:80", "[::1:80", "::1]:80", "[::g]:80"),
        *("http://localhost:80", "local host:80", "lökalhost:80", "localhost:80\n", "localhost:80/path"),
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    """Whatever else stands there is one fault, on one line, for each of the three flags."""
    for flag in ("listen", "health_addr", "metrics_addr"):
        (fault,) = faults_of(with_address(flag, text), ENVIRON)
        assert fault.startswith("--" + flag.replace("_", "-") + ': "')
        assert "wanted HOST:PORT" in fault
        assert fault.isprintable()


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        ({"listen": ":1", "health_addr": ":1"}, "--listen, --health-addr: "),
        ({"listen": "127.0.0.1:9440"}, "--listen, --health-addr: "),
        ({"health_addr": "[::1]:1", "metrics_addr": "[::1]:1"}, "--health-addr, --metrics-addr: "),
    ],
)
def test_servers_share_no_port(given: dict[str, str], flags: str) -> None:
    """Two that do would both begin, and one of them never be asked."""
    (fault,) = faults_of(Flags(**given), ENVIRON)  # type: ignore[arg-type]

    assert fault.startswith(flags)


def test_one_port_of_two_addresses() -> None:
    """Port 0 is another one each time."""
    read_settings(Flags(listen="127.0.0.1:1", health_addr="127.0.0.2:1", metrics_addr="[::1]:1"), ENVIRON)
    read_settings(Flags(listen=":0", health_addr=":0", metrics_addr=":0"), ENVIRON)


# The rest.


@pytest.mark.parametrize("tenant", [TENANT, "contoso.onmicrosoft.com", "common"])
def test_tenants(tenant: str) -> None:
    """A tenant is a GUID or a domain."""
    assert tenant == settings_with({"AZURE_TENANT_ID": tenant}).tenant_id


@pytest.mark.parametrize("minimum", ["1.0", "1.1", "1.2", "1.3"])
def test_tls_versions(minimum: str) -> None:
    """Four versions of TLS can be the oldest spoken."""
    name = settings_with(tls_min_version=minimum).tls_minimum.name

    assert {"1.0": "TLSv1", "1.1": "TLSv1_1", "1.2": "TLSv1_2", "1.3": "TLSv1_3"}[minimum] == name


@pytest.mark.parametrize("level", ["", "info", "debug", "trace", "all"])
def test_log_levels(level: str) -> None:
    """Five levels of talk are known."""
    assert level == settings_with(log_level=level).log_level


@pytest.mark.parametrize("backend", ["prometheus", "Prometheus", "PROMETHEUS"])
def test_metrics_backend(backend: str) -> None:
    """There is one metrics backend, in any case."""
    assert settings_with(metrics_backend=backend) == settings_with()


def test_files(tmp_path: Path) -> None:
    """A kubeconfig, and a certificate that someone else keeps, are taken where they are."""
    for name in ("tls.crt", "tls.key", "kubeconfig"):
        (tmp_path / name).touch()
    flags = Flags(
        disable_cert_rotation=True,
        webhook_cert_dir=str(tmp_path),
        kubeconfig=str(tmp_path / "kubeconfig"),
    )

    found = read_settings(flags, ENVIRON)

    assert (tmp_path, tmp_path / "kubeconfig") == (found.certificate_folder, found.kubeconfig)


def test_certificate_folder_is_not_looked_at_without_need() -> None:
    """Who lets us keep the certificate need not have the folder."""
    assert settings_with(webhook_cert_dir="/nonexistent").certificate_folder is None


FAULTS = {
    "tenant unset": (Flags(), {}, ["AZURE_TENANT_ID is not set"]),
    "tenant empty": (Flags(), {"AZURE_TENANT_ID": ""}, ["AZURE_TENANT_ID is empty"]),
    "tenant blank": (Flags(), {"AZURE_TENANT_ID": " "}, ['AZURE_TENANT_ID: " "', "GUID"]),
    "tenant with newline": (Flags(), {"AZURE_TENANT_ID": f"{TENANT}\n"}, [f'"{TENANT}\\n"', "GUID"]),
    "tenant URL": (Flags(), {"AZURE_TENANT_ID": "https://a/b"}, ['"https://a/b"', "GUID"]),
    "tenant quoted": (Flags(), {"AZURE_TENANT_ID": f'"{TENANT}"'}, ["AZURE_TENANT_ID", "GUID"]),
    "cloud unknown": (
        Flags(),
        ENVIRON | {"AZURE_ENVIRONMENT": "Azure"},
        ['AZURE_ENVIRONMENT: "Azure"', "AzurePublicCloud", "AzureStackCloud"],
    ),
    "cloud blank": (Flags(), ENVIRON | {"AZURE_ENVIRONMENT": " AzureCloud"}, ['" AzureCloud"']),
    "audience with newline": (Flags(audience="api://a\n"), ENVIRON, ['--audience: "api://a\\n"']),
    "audience of odd bytes": (Flags(audience="api://\udcff"), ENVIRON, ['--audience: "api://\\udcff"']),
    "namespace empty": (Flags(), ENVIRON | {"POD_NAMESPACE": ""}, ['POD_NAMESPACE: ""']),
    "namespace path": (Flags(), ENVIRON | {"POD_NAMESPACE": "../a"}, ['POD_NAMESPACE: "../a"']),
    "TLS version": (Flags(tls_min_version="1.4"), ENVIRON, ['--tls-min-version: "1.4"', '"1.2", "1.3"']),
    "log level": (Flags(log_level="INFO"), ENVIRON, ['--log-level: "INFO"', '"info", "debug"']),
    "metrics backend": (Flags(metrics_backend="statsd"), ENVIRON, ['--metrics-backend: "statsd"']),
    "certificate folder": (
        Flags(disable_cert_rotation=True, webhook_cert_dir="/nonexistent"),
        ENVIRON,
        ['--webhook-cert-dir: "/nonexistent" has no tls.crt'],
    ),
    "certificate folder too long": (
        Flags(disable_cert_rotation=True, webhook_cert_dir=TOO_LONG),
        ENVIRON,
        ["--webhook-cert-dir", "has no tls.crt"],
    ),
    "kubeconfig": (Flags(kubeconfig="/nonexistent"), ENVIRON, ['--kubeconfig: "/nonexistent" is no file']),
    "kubeconfig folder": (Flags(kubeconfig="/"), ENVIRON, ['--kubeconfig: "/" is no file']),
    "kubeconfig too long": (Flags(kubeconfig=TOO_LONG), ENVIRON, ["--kubeconfig", "is no file"]),
    "Secret": (Flags(certificate_secret="a/b"), ENVIRON, ['--certificate-secret: "a/b"']),
    "configuration": (Flags(webhook_configuration="A"), ENVIRON, ['--webhook-configuration: "A"']),
    "drain": (Flags(drain_seconds=-1), ENVIRON, ["--drain-seconds: -1"]),
    "drain for ever": (Flags(drain_seconds=float("inf")), ENVIRON, ["--drain-seconds: inf"]),
    "drain nothing": (Flags(drain_seconds=float("nan")), ENVIRON, ["--drain-seconds: nan"]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_one_line(name: str) -> None:
    """A faulty setting gives one line that names it, what was found and what is wanted."""
    flags, environ, parts = FAULTS[name]

    (fault,) = faults_of(flags, environ)

    assert [part for part in parts if part not in fault] == []
    assert fault.isprintable()
    assert len(fault) < 300


def test_half_a_certificate(tmp_path: Path) -> None:
    """A folder that holds the certificate without its key is a fault that names the key."""
    (tmp_path / "tls.crt").touch()

    (fault,) = faults_of(Flags(disable_cert_rotation=True, webhook_cert_dir=str(tmp_path)), ENVIRON)

    assert "has no tls.key" in fault


def test_all_faults_at_once() -> None:
    """All that is wrong is told in one go, each with its own line."""
    flags = Flags(
        tls_min_version="0",
        health_addr="a",
        metrics_addr="b",
        metrics_backend="c",
        log_level="d",
        kubeconfig="/e",
        listen="f",
        authority_host="g",
        webhook_configuration="H",
        certificate_secret="I",
        disable_cert_rotation=True,
        webhook_cert_dir="/j",
        drain_seconds=-1,
    )

    faults = faults_of(flags, {"AZURE_ENVIRONMENT": "k", "POD_NAMESPACE": "L"})

    named = [fault.split(":")[0].split(" ")[0] for fault in faults]
    assert sorted(named) == sorted(
        [
            *("--tls-min-version", "--health-addr", "--metrics-addr", "--metrics-backend", "--log-level"),
            *("--kubeconfig", "--listen", "--authority-host", "--webhook-configuration"),
            *("--certificate-secret", "--webhook-cert-dir", "--drain-seconds"),
            *("AZURE_TENANT_ID", "AZURE_ENVIRONMENT", "POD_NAMESPACE"),
        ]
    )
