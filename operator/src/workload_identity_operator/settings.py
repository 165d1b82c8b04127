"""The operator's settings: the peer's flags and variables under their names, and a few of ours.

Everything is validated before anything is started; each fault is one line that names the flag or
variable, what was found and what is wanted.
"""

import ipaddress
import json
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Final, TypeVar

from workload_identity_operator import clouds, contract
from workload_identity_operator.errors import SettingsInvalid, quoted
from workload_identity_operator.shapes import is_base_url, is_object_name
from workload_identity_operator.sidecar import Proxy
from workload_identity_operator.token_endpoint import TokenEndpoint, read_token_endpoint

T = TypeVar("T")

TLS_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
LOG_LEVELS: Final = ("", "info", "debug", "trace", "all")
"""From quiet to talkative; "" means warnings only."""
DEFAULT_NAMESPACE: Final = "azure-workload-identity-system"

_TENANT: Final = re.compile(r"[A-Za-z0-9.-]+")
_AUDIENCE: Final = re.compile(r"[!-~]+")
_IMAGE: Final = re.compile(r"[A-Za-z0-9[][]A-Za-z0-9._:/@+-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens.

    Attributes:
        host: None for all addresses.
        port: 0 lets the system choose one.
    """

    host: str | None
    port: int

    def __str__(self) -> str:
        """Return it as one writes it, `HOST:PORT`."""
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The command line as given, nothing checked.

    Attributes are named after their flags; defaults are the peer's, but for the last eight, which
    the peer does not have.
    """

    audience: str = ""
    webhook_cert_dir: str = "/certs"
    disable_cert_rotation: bool = False
    tls_min_version: str = "1.3"
    health_addr: str = ":9440"
    metrics_addr: str = ":8095"
    metrics_backend: str = "prometheus"
    log_level: str = ""
    kubeconfig: str = ""
    custom_token_endpoint_annotation_suffix: str = ""
    custom_token_endpoint_audience: str = ""
    listen: str = ":9443"
    authority_host: str = ""
    webhook_configuration: str = contract.CONFIGURATION_PREFIX + contract.RELEASE_NAME
    certificate_secret: str = contract.RELEASE_NAME + "-certificate"
    declaration: str = contract.RELEASE_NAME + "-declared"
    settings_checksum: str = ""
    drain_seconds: float = 5.0
    legacy_token_path: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator runs with.

    Attributes:
        tenant_id: Tenant of pods whose ServiceAccount names none.
        authority_host: `AZURE_AUTHORITY_HOST` of pods, with trailing slash.
        audience: Audience of projected tokens.
        token_endpoint: The custom token endpoint that pods may ask for, or None.
        proxy: The proxy sidecar that pods may ask for.
        namespace: Where the operator's own objects are.
        listen: The webhook's address.
        health: Address of `/healthz` and `/readyz`.
        metrics: Address of `/metrics`.
        tls_minimum: Oldest TLS version the webhook speaks.
        log_level: One of `LOG_LEVELS`.
        certificate_folder: Holds `tls.crt` and `tls.key` that someone else keeps; None when the
            operator makes its own certificate.
        certificate_secret: Secret in `namespace` through which replicas share that certificate.
        webhook_configuration: MutatingWebhookConfiguration that the operator keeps.
        declaration: ConfigMap in `namespace` with the policy's objects as the chart declares them.
        checksum: The chart's, of the settings that PodWirings are compiled with; these are written while the
            declaration has the same one. "" when it does not matter.
        kubeconfig: None looks at `KUBECONFIG`, the pod's own ServiceAccount, `~/.kube/config`.
        drain: How long, in seconds, reviews are still answered after SIGTERM.
        legacy_path: Whether pods that do not say get the token at the peer's former path too.
    """

    tenant_id: str
    authority_host: str
    audience: str
    token_endpoint: TokenEndpoint | None
    proxy: Proxy
    namespace: str
    listen: Address
    health: Address
    metrics: Address
    tls_minimum: ssl.TLSVersion
    log_level: str
    certificate_folder: Path | None
    certificate_secret: str
    webhook_configuration: str
    declaration: str
    checksum: str
    kubeconfig: Path | None
    drain: float
    legacy_path: bool

    @property
    def release(self) -> str:
        """Name of what else the operator keeps: the policy's binding, its Lease."""
        return self.webhook_configuration.removeprefix(contract.CONFIGURATION_PREFIX)


def read_settings(flags: Flags, environ: Mapping[str, str]) -> Settings:
    """Return the settings that flags and environment give.

    Raises:
        SettingsInvalid: With every fault there is, not only the first.
    """
    faults: list[str] = []

    def checked(check: Callable[[], T], otherwise: T) -> T:
        try:
            return check()
        except ValueError as fault:
            faults.append(str(fault))
            return otherwise

    nowhere = Address(None, 0)
    endpoint = read_token_endpoint(
        flags.custom_token_endpoint_annotation_suffix, flags.custom_token_endpoint_audience, environ
    )
    faults += endpoint.faults
    cloud = checked(lambda: _cloud(environ), clouds.PUBLIC)
    settings = Settings(
        tenant_id=checked(lambda: _tenant(environ), ""),
        authority_host=checked(lambda: _authority(flags.authority_host), "") or cloud.authority_host,
        audience=checked(lambda: _audience(flags.audience), "") or cloud.audience,
        token_endpoint=endpoint.endpoint,
        proxy=Proxy(
            image=checked(lambda: _image("PROXY_IMAGE", contract.PROXY_IMAGE, environ), ""),
            init_image=checked(lambda: _image("PROXY_INIT_IMAGE", contract.PROXY_INIT_IMAGE, environ), ""),
            log_level=flags.log_level,
        ),
        namespace=checked(
            lambda: _name("POD_NAMESPACE", environ.get("POD_NAMESPACE", DEFAULT_NAMESPACE)), ""
        ),
        listen=checked(lambda: _address("--listen", flags.listen), nowhere),
        health=checked(lambda: _address("--health-addr", flags.health_addr), nowhere),
        metrics=checked(lambda: _address("--metrics-addr", flags.metrics_addr), nowhere),
        tls_minimum=checked(
            lambda: TLS_VERSIONS[_one_of("--tls-min-version", flags.tls_min_version, tuple(TLS_VERSIONS))],
            ssl.TLSVersion.TLSv1_3,
        ),
        log_level=checked(lambda: _one_of("--log-level", flags.log_level, LOG_LEVELS), ""),
        certificate_folder=checked(lambda: _certificate_folder(flags), None),
        certificate_secret=checked(lambda: _name("--certificate-secret", flags.certificate_secret), ""),
        webhook_configuration=checked(
            lambda: _name("--webhook-configuration", flags.webhook_configuration), ""
        ),
        declaration=checked(lambda: _name("--declaration", flags.declaration), ""),
        checksum=flags.settings_checksum,
        kubeconfig=checked(lambda: _kubeconfig(flags.kubeconfig), None),
        drain=checked(lambda: _seconds("--drain-seconds", flags.drain_seconds), 0.0),
        legacy_path=flags.legacy_token_path,
    )
    addresses = {"--listen": settings.listen, "--health-addr": settings.health}
    checked(lambda: _apart({**addresses, "--metrics-addr": settings.metrics}), None)
    checked(lambda: _one_of("--metrics-backend", flags.metrics_backend.lower(), ("prometheus",)), "")
    if faults:
        raise SettingsInvalid(faults)
    return settings


def _tenant(environ: Mapping[str, str]) -> str:
    tenant = environ.get("AZURE_TENANT_ID")
    if tenant is None:
        raise ValueError("AZURE_TENANT_ID is not set: set it to the tenant id of your Azure directory")
    if not tenant:
        raise ValueError("AZURE_TENANT_ID is empty: set it to the tenant id of your Azure directory")
    if not _TENANT.fullmatch(tenant):
        raise ValueError(
            f"AZURE_TENANT_ID: {quoted(tenant)} is no tenant id: wanted a GUID or a domain name "
            "(letters, digits, '-' and '.')"
        )
    return tenant


def _cloud(environ: Mapping[str, str]) -> clouds.Cloud:
    name = environ.get("AZURE_ENVIRONMENT", "")
    if cloud := clouds.cloud_named(name):
        return cloud
    if name.lower() == clouds.STACK.lower():
        return clouds.Cloud(_stack_authority(environ), clouds.PUBLIC_AUDIENCE)
    known = ", ".join([*clouds.NAMES, clouds.STACK])
    raise ValueError(f"AZURE_ENVIRONMENT: {quoted(name)} is no Azure cloud: wanted one of {known}")


def _stack_authority(environ: Mapping[str, str]) -> str:
    """Return the authority host of an Azure Stack, from the file that describes it."""
    variable = "AZURE_ENVIRONMENT_FILEPATH"
    path = environ.get(variable)
    if not path:
        raise ValueError(
            f"{variable} is not set: {clouds.STACK} wants the path of its JSON description there"
        )
    try:
        description = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{variable}: {quoted(path)} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{variable}: {quoted(path)} is no JSON: {error}") from error
    found = description.get("activeDirectoryEndpoint") if isinstance(description, dict) else None
    if not isinstance(found, str) or not found:
        raise ValueError(f"{variable}: {quoted(path)} has no activeDirectoryEndpoint")
    return _url(f"activeDirectoryEndpoint in {quoted(path)}", found)


def _image(variable: str, default: str, environ: Mapping[str, str]) -> str:
    image = environ.get(variable) or default
    if not _IMAGE.fullmatch(image):
        raise ValueError(
            f"{variable}: {quoted(image)} is no image: wanted REGISTRY/NAME:TAG, or with @DIGEST"
        )
    return image


def _audience(audience: str) -> str:
    if audience and not _AUDIENCE.fullmatch(audience):
        raise ValueError(
            f"--audience: {quoted(audience)} is no audience: wanted ASCII without blanks, "
            f"such as {clouds.PUBLIC_AUDIENCE}"
        )
    return audience


def _authority(url: str) -> str:
    return _url("--authority-host", url) if url else ""


def _url(what: str, url: str) -> str:
    """Return an https base URL with trailing slash."""
    if not is_base_url(url):
        raise ValueError(f"{what}: {quoted(url)} is no base URL: wanted https://HOST[:PORT][/PATH]")
    return url.rstrip("/") + "/"


def _address(flag: str, text: str) -> Address:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else None
    usable = _HOST.fullmatch(host) if bare is None else _is_ipv6(bare)
    if not colon or not usable or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:  # noqa: PLR2004 - ports end there
        raise ValueError(f"{flag}: {quoted(text)} is no address: wanted HOST:PORT or :PORT, such as :9443")
    return Address(bare or host or None, int(port))


def _apart(addresses: Mapping[str, Address]) -> None:
    """See that no two servers listen on one port of one interface; on port 0 each gets its own."""
    for (one, first), (other, second) in combinations(addresses.items(), 2):
        shared = first.host == second.host or None in {first.host, second.host}
        if first.port and first.port == second.port and shared:
            raise ValueError(f"{one}, {other}: both are port {first.port}: give each a port of its own")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _one_of(flag: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        wanted = ", ".join(quoted(name) for name in known)
        raise ValueError(f"{flag}: {quoted(value)} is unknown: wanted one of {wanted}")
    return value


def _name(what: str, value: str) -> str:
    if not is_object_name(value):
        raise ValueError(
            f"{what}: {quoted(value)} is no Kubernetes name: wanted up to 253 of a-z, 0-9, '-' and '.', "
            "with a letter or digit at both ends"
        )
    return value


def _certificate_folder(flags: Flags) -> Path | None:
    if not flags.disable_cert_rotation:
        return None
    folder = Path(flags.webhook_cert_dir)
    for name in ("tls.crt", "tls.key"):
        if not _is_file(folder / name):
            raise ValueError(
                f"--webhook-cert-dir: {quoted(str(folder))} has no {name}: with --disable-cert-rotation "
                "someone else must keep tls.crt and tls.key there"
            )
    return folder


def _kubeconfig(path: str) -> Path | None:
    if not path:
        return None
    if not _is_file(Path(path)):
        raise ValueError(f"--kubeconfig: {quoted(path)} is no file")
    return Path(path)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a folder on the way that may not be entered
        return False


def _seconds(flag: str, value: float) -> float:
    if not 0 <= value <= 3600:  # noqa: PLR2004 - an hour is more than anyone drains
        raise ValueError(f"{flag}: {value} is out of bounds: wanted 0 to 3600 seconds")
    return value
