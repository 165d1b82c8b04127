"""Which identity endpoint this machine has: what its environment says, and which identity is meant there.

    variables that are set                                              host
    IDENTITY_ENDPOINT, IDENTITY_HEADER, IDENTITY_SERVER_THUMBPRINT      Service Fabric
    IDENTITY_ENDPOINT, IDENTITY_HEADER                                  App Service, Functions, Container Apps
    IDENTITY_ENDPOINT, IMDS_ENDPOINT                                    Azure Arc
    IDENTITY_ENDPOINT                                                   none that is known
    MSI_ENDPOINT, MSI_SECRET                                            Azure ML
    MSI_ENDPOINT                                                        Cloud Shell
    AZURE_AUTHORITY_HOST, AZURE_TENANT_ID, AZURE_FEDERATED_TOKEN_FILE   workload identity
    none of these                                                       IMDS: a virtual machine, an AKS node

The first that fits is taken; a variable that is empty is not set.

Source: azure-identity 1.27.0, `ManagedIdentityCredential`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICE_FABRIC = "Service Fabric"
APP_SERVICE = "App Service"
ARC = "Azure Arc"
UNKNOWN = "an unknown host"
AZURE_ML = "Azure ML"
CLOUD_SHELL = "Cloud Shell"
WORKLOAD = "workload identity"
IMDS = "IMDS"

_METADATA_SERVICE = "http://169.254.169.254"
_KEYS_ON_LINUX = "/var/opt/azcmagent/tokens"
_IDS = {
    "client_id": "client_id",
    "object_id": "object_id",
    "resource_id": "resource_id",
    # As the endpoints themselves call it.
    "msi_res_id": "resource_id",
    "mi_res_id": "resource_id",
}


class Host:
    """An identity endpoint.

    Attributes:
        kind: One of the constants above.
        endpoint: Its URL, "" where there is none.
        secret: What it wants to be shown; "" where it wants nothing.
        thumbprint: The SHA-1 of its certificate, as the environment has it.
        key_folder: Where Azure Arc's agent writes the keys of its challenges; "" where it never does.
        certain: The environment names it: that it is there needs no finding out.
    """

    def __init__(
        self,
        kind: str,
        endpoint: str = "",
        *,
        secret: str = "",
        thumbprint: str = "",
        key_folder: str = "",
        certain: bool = True,
    ) -> None:
        self.kind = kind
        self.endpoint = endpoint.partition("#")[0]  # a fragment is never sent, and the query goes before it
        self.secret = secret
        self.thumbprint = thumbprint
        self.key_folder = key_folder
        self.certain = certain

    def __repr__(self) -> str:
        return f"<Host {self.kind} {self.place}>"

    @property
    def place(self) -> str:
        """The host and port of its URL."""
        return self.endpoint.partition("://")[2].partition("/")[0].rpartition("@")[2]


def host_of(environment: Mapping[str, str], platform: str, *, workload_identity: bool) -> Host:
    """Return the host of this machine.

    Args:
        environment: The variables.
        platform: `sys.platform`.
        workload_identity: Whether a pod's token counts as a host.
    """

    def has(*names: str) -> bool:
        return all(environment.get(name) for name in names)

    # With a line end, as of a file, it would be no URL.
    endpoint = environment.get("IDENTITY_ENDPOINT", "").strip()
    if endpoint:
        if has("IDENTITY_HEADER"):
            thumbprint = environment.get("IDENTITY_SERVER_THUMBPRINT", "")
            kind = SERVICE_FABRIC if thumbprint else APP_SERVICE
            return Host(kind, endpoint, secret=environment["IDENTITY_HEADER"], thumbprint=thumbprint)
        if has("IMDS_ENDPOINT"):
            return Host(ARC, endpoint, key_folder=_key_folder(environment, platform))
        return Host(UNKNOWN, endpoint)
    endpoint = environment.get("MSI_ENDPOINT", "").strip()
    if endpoint:
        secret = environment.get("MSI_SECRET", "")
        return Host(AZURE_ML if secret else CLOUD_SHELL, endpoint, secret=secret)
    if workload_identity and has("AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        return Host(WORKLOAD)
    named = environment.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "").strip().strip("/")
    endpoint = f"{named or _METADATA_SERVICE}/metadata/identity/oauth2/token"
    return Host(IMDS, endpoint, certain=bool(named))


def _key_folder(environment: Mapping[str, str], platform: str) -> str:
    if platform.startswith("linux"):
        return _KEYS_ON_LINUX
    data = environment.get("PROGRAMDATA", "")
    if platform == "win32" and data:
        return f"{data}\\AzureConnectedMachineAgent\\Tokens"
    return ""


def identity_of(
    client_id: str | None, config: Mapping[str, str] | None, kind: str, *, tolerant: bool
) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """Return which user-assigned identity is meant, and what else a request gets.

    Args:
        client_id: Of that name, the credential's keyword; "" and None name nothing.
        config: Its keyword `identity_config`.
        kind: The host's.
        tolerant: Let Cloud Shell have an id that it does not know.

    Returns:
        "client_id", "object_id" or "resource_id" with its value, or None for the system-assigned identity;
        and parameters that Cloud Shell gets as they are.

    Raises:
        ValueError: Two identities are named, or one that is none, or something unknown.
    """
    named = {"client_id": client_id} if client_id else {}
    others = {}
    for key, value in (config or {}).items():
        name = _IDS.get(key)
        if name is None and kind != CLOUD_SHELL:
            raise ValueError(f"identity_config: {_unknown(key)}")
        if not value:
            raise ValueError(
                f"identity_config: {key!r} is to be the id of an identity, found {value!r}; leave it out for"
                " the system-assigned identity"
            )
        if name is None:
            others[key] = str(value)
        elif named:
            raise ValueError(
                f"identity_config and client_id name more than one identity ({', '.join([*named, key])}):"
                " one of client_id, object_id and resource_id is wanted"
            )
        else:
            named[name] = str(value)
    identity = next(iter(named.items()), None)
    if kind == CLOUD_SHELL and identity is not None and not tolerant:
        raise ValueError(
            f"Cloud Shell has the identity of who signed in there and no other: leave out {identity[0]}"
        )
    return identity, others


def _unknown(key: object) -> str:
    import difflib  # noqa: PLC0415 - hardly anyone comes here

    near = difflib.get_close_matches(str(key).lower(), _IDS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"{key!r} is unknown, one of client_id, object_id and resource_id is wanted{meant}"
