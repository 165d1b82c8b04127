"""Settings of the custom token endpoint that could never work: each gives its line, at start."""

import pytest

from workload_identity_operator.errors import SettingsInvalid
from workload_identity_operator.settings import Flags, Settings, read_settings

GOOD = {
    "--custom-token-endpoint-annotation-suffix": "identity-binding",
    "--custom-token-endpoint-audience": "api://AKSIdentityBinding",
    "AZURE_KUBERNETES_TOKEN_PROXY": "https://kubernetes.default.svc",
}
SUFFIX, AUDIENCE, PROXY = GOOD
DATA, CONFIG_MAP, SIGNER, SELECTOR = (
    f"AZURE_KUBERNETES_CA_{name}"
    for name in ("DATA", "CONFIGMAP_NAME", "CTB_SIGNER_NAME", "CTB_LABEL_SELECTOR")
)


def read(given: dict[str, str]) -> Settings:
    """Return the settings of these flags and variables."""
    flags = {name[2:].replace("-", "_"): value for name, value in given.items() if name.startswith("--")}
    environ = {name: value for name, value in given.items() if not name.startswith("--")}
    return read_settings(Flags(**flags), {"AZURE_TENANT_ID": "t", **environ})  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", ["identity-binding", "-a", "a", "A_b.c", "x" * 59])
def test_suffixes_that_make_an_annotation(suffix: str) -> None:
    """The key is used with the case as given."""
    endpoint = read(GOOD | {SUFFIX: suffix}).token_endpoint

    assert endpoint is not None
    assert endpoint.annotation == f"azure.workload.identity/use-{suffix}"


def test_off_without_the_flags() -> None:
    """The endpoint's URL alone turns nothing on."""
    assert read({PROXY: "https://x"}).token_endpoint is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({SUFFIX: ""}, f"{SUFFIX}: is empty"),
        ({AUDIENCE: ""}, f"{AUDIENCE}: is empty"),
        ({AUDIENCE: "API://azureadtokenexchange"}, f"{AUDIENCE}: "),
        *(({SUFFIX: suffix}, f"{SUFFIX}: ") for suffix in ("a/b", "a-", "é", "x" * 60, " a", "a b")),
        *(
            ({PROXY: url}, f"{PROXY}: ")
            for url in (
                "",
                "http://x",
                "x",
                "https://u@x",
                "https://x?q",
                "https://x#f",
                "https://x:0",
                "https://",
            )
        ),
        ({DATA: "PEM", CONFIG_MAP: "x"}, f"{DATA}, {CONFIG_MAP}, {SIGNER}: more than one"),
        ({CONFIG_MAP: "x", SIGNER: "x"}, f"{DATA}, {CONFIG_MAP}, {SIGNER}: more than one"),
        ({SELECTOR: "{}"}, f"{SELECTOR}: is set without {SIGNER}"),
        *(
            ({SIGNER: "x", SELECTOR: selector}, f"{SELECTOR}: ")
            for selector in (
                "{",
                "[]",
                '{"labels": {}}',
                '{"matchLabels": {"a": 1}}',
                '{"matchExpressions": {}}',
                '{"matchExpressions": [{"operator": "In"}]}',
                '{"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}',
                '{"matchExpressions": [{"key": "a", "operator": "In"}]}',
                '{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}',
            )
        ),
    ],
)
def test_fault_is_one_line_that_names_the_setting(changed: dict[str, str], told: str) -> None:
    """One fault, one line; it begins with the flag or variable."""
    with pytest.raises(SettingsInvalid) as invalid:
        read(GOOD | changed)

    (line,) = invalid.value.faults
    assert line.startswith(told)
    assert "\n" not in line


@pytest.mark.parametrize(
    "selector", [" ", "{}", '{"matchExpressions": [{"key": "a", "operator": "Exists"}]}']
)
def test_selectors_that_are_ones(selector: str) -> None:
    """A blank one is unset, an empty object is one."""
    endpoint = read(GOOD | {SIGNER: "x", SELECTOR: selector}).token_endpoint

    assert endpoint is not None
    assert endpoint.ca_source is not None
    assert ("labelSelector" in endpoint.ca_source["clusterTrustBundle"]) == bool(selector.strip())


def test_certificate_sources_are_checked_even_when_off() -> None:
    """As with the peer: a mistake shows before the feature is turned on."""
    with pytest.raises(SettingsInvalid, match="more than one"):
        read({DATA: "PEM", SIGNER: "x"})
