"""Azure's clouds: where their tokens come from, and the audience their federation wants.

Names are those of `AZURE_ENVIRONMENT`, compared without case. The audiences of the national
clouds are Microsoft's; with the public one their Entra answers AADSTS700212.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cloud:
    """One Azure cloud.

    Attributes:
        authority_host: Base URL of its Entra, with the trailing slash that pods are given.
        audience: What a federated token's `aud` must be there.
    """

    authority_host: str
    audience: str


PUBLIC_AUDIENCE: Final = "api://AzureADTokenExchange"

PUBLIC: Final = Cloud("https://login.microsoftonline.com/", PUBLIC_AUDIENCE)
US_GOVERNMENT: Final = Cloud("https://login.microsoftonline.us/", PUBLIC_AUDIENCE + "USGov")
CHINA: Final = Cloud("https://login.chinacloudapi.cn/", PUBLIC_AUDIENCE + "China")
GERMAN: Final = Cloud("https://login.microsoftonline.de/", PUBLIC_AUDIENCE)  # retired in 2021

NAMES: Final = {
    "AzurePublicCloud": PUBLIC,
    "AzureCloud": PUBLIC,
    "AzureUSGovernmentCloud": US_GOVERNMENT,
    "AzureUSGovernment": US_GOVERNMENT,
    "AzureChinaCloud": CHINA,
    "AzureGermanCloud": GERMAN,
}
STACK: Final = "AzureStackCloud"
"""Its authority host stands in the JSON file that `AZURE_ENVIRONMENT_FILEPATH` names."""

_BY_LOWER_NAME: Final = {name.lower(): cloud for name, cloud in NAMES.items()} | {"": PUBLIC}


def cloud_named(name: str) -> Cloud | None:
    """Return the cloud of that name in any case; the public one for ""; None when there is none."""
    return _BY_LOWER_NAME.get(name.lower())
