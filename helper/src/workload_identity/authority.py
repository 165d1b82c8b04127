"""Whom to ask: the token service's address and the tenant.

Sources: azure-identity 1.27.0, `AzureAuthorityHosts`, and its rules for authorities and for tenants that a
request may name; learn.microsoft.com/entra/identity-platform/authentication-national-cloud.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ANY_TENANT = "*"
_TENANT_LETTERS = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-.")
_LONGEST_PORT = 5
_REGION = "AZURE_REGIONAL_AUTHORITY_NAME"
_REGION_LETTERS = _TENANT_LETTERS - {"."}
_LONGEST_LABEL = 63
_FOUND_OUT = frozenset({"", "true", "tryautodetect"})
_PUBLIC = frozenset(
    {"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net"}
)


class _Hosts(type):
    @property
    def AZURE_GERMANY(cls) -> str:  # noqa: N802 - azure-identity's name
        """The closed German cloud; reading it gives a DeprecationWarning."""
        import warnings  # noqa: PLC0415 - hardly anyone comes here

        warnings.warn(
            "AZURE_GERMANY is deprecated: Microsoft Cloud Germany was closed on 29 October 2021.",
            DeprecationWarning,
            stacklevel=2,
        )
        return "login.microsoftonline.de"


class AzureAuthorityHosts(metaclass=_Hosts):
    """Hosts of Azure's clouds, for the keyword `authority` and the variable AZURE_AUTHORITY_HOST."""

    AZURE_PUBLIC_CLOUD = "login.microsoftonline.com"
    AZURE_CHINA = "login.chinacloudapi.cn"
    AZURE_GOVERNMENT = "login.microsoftonline.us"


KnownAuthorities = AzureAuthorityHosts


def normal_authority(authority: str) -> str:
    """Return the address of a token service: https, without a slash at its end, any path kept.

    Args:
        authority: A host such as `login.microsoftonline.com`, or an https URL.

    Raises:
        ValueError: Anything but https, or no address at all; the message says what is wrong with it.
    """
    scheme, separator, rest = authority.strip().rpartition("://")
    if separator and scheme.lower() != "https":
        raise ValueError(f"authority {authority!r}: wanted an https address, found scheme {scheme!r}")
    rest = rest.rstrip("/ ")
    if not _names_host(rest.partition("/")[0]) or any(letter in "@?#\\" or letter <= " " for letter in rest):
        raise ValueError(
            f"authority {authority!r}: wanted a host such as {AzureAuthorityHosts.AZURE_PUBLIC_CLOUD!r}, or"
            " an https URL without user, query or fragment"
        )
    return f"https://{rest}"


def _names_host(place: str) -> bool:
    """Tell whether this is a host name or an address in brackets, with or without a port."""
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, "443"
    bracketed = host.startswith("[") and host.endswith("]")
    return (
        bool(host)
        and (bracketed or ":" not in host)
        and port.isascii()
        and port.isdecimal()
        and len(port) <= _LONGEST_PORT
    )


def regional(authority: str, region: str) -> str:
    """Return a cloud's token service in a region, such as "westeurope"; without one the service as it is.

    Source: msal 1.39.0, `azure_region`; hosts of the public cloud share one name in regions.
    """
    if not region:
        return authority
    host = authority.partition("://")[2].lower().removesuffix(":443").rstrip(".")
    return f"https://{region}.{'login.microsoft.com' if host in _PUBLIC else host}"


def region_of(environment: Mapping[str, str]) -> str:
    """Return the region that AZURE_REGIONAL_AUTHORITY_NAME names; "" for none, or one to be found out.

    Nothing is found out: that would take a request to the machine's metadata service.

    Raises:
        ValueError: It is no region's name.
    """
    region = environment.get(_REGION, "").strip()
    if region.lower() in _FOUND_OUT:
        return ""
    if not _REGION_LETTERS.issuperset(region) or len(region) > _LONGEST_LABEL:
        raise ValueError(f"{_REGION}={region!r}: wanted a region's name such as 'westeurope'")
    return region


def valid_tenant(tenant_id: object) -> str:
    """Return the tenant id as it is.

    Raises:
        ValueError: It is no GUID and no domain name, judged by its letters.
    """
    # Dots alone would be another path.
    if (
        not isinstance(tenant_id, str)
        or not tenant_id.strip(".")
        or not _TENANT_LETTERS.issuperset(tenant_id)
    ):
        raise ValueError(
            f"tenant id {tenant_id!r}: wanted a GUID or a domain name (letters, digits, '-' and '.'). The"
            " portal shows it under Microsoft Entra ID, Overview; `az account show --query tenantId` prints"
            " it."
        )
    return tenant_id


def tenant_for(
    configured: str, requested: str | None, allowed: Collection[str], *, single: bool
) -> str | None:
    """Return the tenant to ask, or None when the requested one is not allowed.

    Which wins, first match:

        nothing requested, or the configured one   the configured one
        ADFS, or `single`                          the configured one
        "*" or the requested one is allowed        the requested one
        configured "organizations", none allowed   the requested one

    Args:
        configured: The credential's own tenant.
        requested: The one this call names; letter case does not matter.
        allowed: `additionally_allowed_tenants`.
        single: AZURE_IDENTITY_DISABLE_MULTITENANTAUTH is set.
    """
    if not requested or requested.lower() == configured.lower():
        return configured
    if single or configured == "adfs":
        return configured
    if ANY_TENANT in allowed or requested.lower() in {tenant.lower() for tenant in allowed}:
        return requested
    if not allowed and configured == "organizations":
        return requested
    return None
