"""Whom a credential may ask."""

import pytest

from workload_identity.authority import (
    AzureAuthorityHosts,
    KnownAuthorities,
    normal_authority,
    region_of,
    regional,
    tenant_for,
    valid_tenant,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("login.microsoftonline.com", "https://login.microsoftonline.com"),
        ("https://login.microsoftonline.com/", "https://login.microsoftonline.com"),
        (" https://login.microsoftonline.us// ", "https://login.microsoftonline.us"),
        ("HTTPS://Login.Example", "https://Login.Example"),
        ("localhost:8443", "https://localhost:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("[::1]", "https://[::1]"),
        ("https://private.cloud/path/kept/", "https://private.cloud/path/kept"),
    ],
)
def test_authority_is_normalised(given: str, expected: str) -> None:
    """A scheme is added, blanks and slashes at the end go, a path stays."""
    assert normal_authority(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "http://login.microsoftonline.com",
        "ftp://x",
        "",
        " ",
        "https://",
        "https:///path",
        "https://user:password@host",
        "https://host?query",
        "https://host#fragment",
        "https://host:port",
        "https://host:",
        "https://host:123456",
        "https://a b",
        "https://a\nb",
        "a:b:c",
        "host\\path",
        "://host",
    ],
)
def test_malformed_authority_is_refused(given: str) -> None:
    """The message quotes what was found."""
    with pytest.raises(ValueError, match="authority") as raised:
        normal_authority(given)

    assert repr(given) in str(raised.value)


@pytest.mark.parametrize(
    "tenant", ["72f988bf-86f1-41af-91ab-2d7cd011db47", "contoso.onmicrosoft.com", "adfs"]
)
def test_tenants(tenant: str) -> None:
    """GUIDs and domain names are tenants."""
    assert valid_tenant(tenant) == tenant


@pytest.mark.parametrize("tenant", ["", ".", "..", "../x", "a/b", "a b", "a\n", "é", "a?b", "٣", 7, None])
def test_malformed_tenant_is_refused(tenant: object) -> None:
    """Nothing else reaches a URL; the message says where a tenant id is found."""
    with pytest.raises(ValueError, match="az account show"):
        valid_tenant(tenant)


@pytest.mark.parametrize(
    ("configured", "requested", "allowed", "single", "expected"),
    [
        ("own", None, (), False, "own"),
        ("own", "", (), False, "own"),
        ("Own", "oWN", (), False, "Own"),
        ("own", "other", (), False, None),
        ("own", "other", ("other",), False, "other"),
        ("own", "OTHER", ("other",), False, "OTHER"),
        ("own", "other", ("third",), False, None),
        ("own", "other", ("*",), False, "other"),
        ("own", "other", ("*",), True, "own"),
        ("adfs", "other", ("*",), False, "adfs"),
        ("organizations", "other", (), False, "other"),
        ("organizations", "other", ("third",), False, None),
    ],
)
def test_tenant_of_a_call(
    configured: str, requested: str | None, allowed: tuple[str, ...], single: bool, expected: str | None
) -> None:
    """Another tenant is asked only where that is allowed."""
    assert tenant_for(configured, requested, allowed, single=single) == expected


def test_hosts_of_the_clouds() -> None:
    """The clouds' hosts have azure-identity's names and values."""
    assert AzureAuthorityHosts.AZURE_PUBLIC_CLOUD == "login.microsoftonline.com"
    assert AzureAuthorityHosts.AZURE_CHINA == "login.chinacloudapi.cn"
    assert AzureAuthorityHosts.AZURE_GOVERNMENT == "login.microsoftonline.us"
    assert KnownAuthorities is AzureAuthorityHosts


def test_closed_cloud_is_deprecated() -> None:
    """Reading the German cloud's host warns."""
    with pytest.warns(DeprecationWarning, match="2021"):
        assert AzureAuthorityHosts.AZURE_GERMANY == "login.microsoftonline.de"


@pytest.mark.parametrize(
    ("authority", "expected"),
    [
        ("https://login.microsoftonline.com", "https://westeurope.login.microsoft.com"),
        ("https://login.windows.net", "https://westeurope.login.microsoft.com"),
        ("https://Login.MicrosoftOnline.com", "https://westeurope.login.microsoft.com"),
        ("https://login.microsoftonline.com:443", "https://westeurope.login.microsoft.com"),
        ("https://login.microsoftonline.us", "https://westeurope.login.microsoftonline.us"),
        ("https://private.cloud:8443/path", "https://westeurope.private.cloud:8443/path"),
    ],
)
def test_region_has_a_host(authority: str, expected: str) -> None:
    """Those of the public cloud share one name; elsewhere the region comes first."""
    assert regional(authority, "westeurope") == expected
    assert regional(authority, "") == authority


@pytest.mark.parametrize(
    ("value", "expected"),
    [("westeurope", "westeurope"), (" eastus2 ", "eastus2"), ("", ""), ("true", ""), ("TryAutoDetect", "")],
)
def test_region_is_what_is_named(value: str, expected: str) -> None:
    """Nothing is found out."""
    assert region_of({"AZURE_REGIONAL_AUTHORITY_NAME": value}) == expected
    assert region_of({}) == ""


@pytest.mark.parametrize("value", ["a.b", "a/b", "west europe", "x" * 64, "é"])
def test_region_is_one_label(value: str) -> None:
    """It becomes part of a host's name."""
    with pytest.raises(ValueError, match="AZURE_REGIONAL_AUTHORITY_NAME"):
        region_of({"AZURE_REGIONAL_AUTHORITY_NAME": value})
