"""The proxy's images come from the environment, its log level is the operator's own."""

import pytest

from workload_identity_operator.errors import SettingsInvalid
from workload_identity_operator.settings import Flags, read_settings
from workload_identity_operator.sidecar import Proxy

TENANT = {"AZURE_TENANT_ID": "22222222-2222-2222-2222-222222222222"}
REGISTRY = "mcr.microsoft.com/oss/azure/workload-identity"
PUBLISHED = Proxy(f"{REGISTRY}/proxy:v1.6.0", f"{REGISTRY}/proxy-init:v1.6.0", "")


@pytest.mark.parametrize(
    ("environ", "flags", "proxy"),
    [
        ({}, Flags(), PUBLISHED),
        ({"PROXY_IMAGE": "", "PROXY_INIT_IMAGE": ""}, Flags(), PUBLISHED),
        ({"PROXY_IMAGE": "mine"}, Flags(), Proxy("mine", PUBLISHED.init_image, "")),
        ({"PROXY_INIT_IMAGE": "mine"}, Flags(), Proxy(PUBLISHED.image, "mine", "")),
        ({}, Flags(log_level="debug"), Proxy(PUBLISHED.image, PUBLISHED.init_image, "debug")),
    ],
)
def test_proxy(environ: dict[str, str], flags: Flags, proxy: Proxy) -> None:
    """Each image is settable alone, and an empty variable is none."""
    assert proxy == read_settings(flags, TENANT | environ).proxy


@pytest.mark.parametrize(
    "image",
    [
        "registry.example/proxy:v1",
        "registry.example:5000/a/b_c/proxy:v1.6.0-rc.1",
        "[fd00::1]:5000/proxy",
        "registry.example/proxy@sha256:" + "0" * 64,
        "registry.example/proxy:v1@sha256:" + "0" * 64,
    ],
)
def test_images(image: str) -> None:
    """Registries with ports, tags and digests are images."""
    assert read_settings(Flags(), TENANT | {"PROXY_IMAGE": image}).proxy.image == image


@pytest.mark.parametrize("image", [" ", " proxy", "proxy\n", "a b", "https://x y", "-x", "/proxy", "prôxy"])
def test_what_is_no_image(image: str) -> None:
    """Pods of such an image could not be made: each variable is a fault of its own, with what it holds."""
    with pytest.raises(SettingsInvalid) as invalid:
        read_settings(Flags(), TENANT | {"PROXY_IMAGE": image, "PROXY_INIT_IMAGE": image})

    first, second = invalid.value.faults
    assert first.startswith("PROXY_IMAGE: ")
    assert second.startswith("PROXY_INIT_IMAGE: ")
    assert "is no image: wanted REGISTRY/NAME:TAG" in first
