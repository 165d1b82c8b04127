"""Which of pod, ServiceAccount and operator settles what, as tables."""

import pytest

from workload_identity_operator import contract
from workload_identity_operator.errors import PodRefused, quoted
from workload_identity_operator.identity import identity_of, skipped_containers, token_expiration
from workload_identity_operator.settings import Flags, read_settings

CLIENT = "11111111-1111-1111-1111-111111111111"
ABSENT = None


CLUSTER = read_settings(
    Flags(authority_host="https://login.example", audience="api://audience"),
    {"AZURE_TENANT_ID": "cluster-tenant"},
)


def annotations(key: str, value: str | None) -> dict[str, str]:
    """Return annotations that hold the key, or none."""
    return {} if value is ABSENT else {key: value}


@pytest.mark.parametrize(
    ("pod", "account", "seconds"),
    [
        (ABSENT, ABSENT, 3600),
        (ABSENT, "", 3600),
        ("", ABSENT, 3600),
        ("", "", 3600),
        (ABSENT, "7200", 7200),
        ("", "7200", 7200),
        ("7201", ABSENT, 7201),
        ("7201", "7200", 7201),
        ("7201", "nonsense", 7201),
        ("3600", "86400", 3600),
        ("86400", "3600", 86400),
        ("+3600", ABSENT, 3600),
        ("003600", ABSENT, 3600),
        ("-003600", ABSENT, None),
        ("nonsense", "7200", None),
        ("", "nonsense", None),
    ],
)
def test_expiration(pod: str | None, account: str | None, seconds: int | None) -> None:
    """The pod's wins over the account's, which is then not parsed; empty counts as absent; else an hour."""
    given = annotations(contract.EXPIRATION, pod), annotations(contract.EXPIRATION, account)

    if seconds is None:
        with pytest.raises(PodRefused):
            token_expiration(*given)
    else:
        assert seconds == token_expiration(*given)


@pytest.mark.parametrize("digits", ["0" * 1_000_000 + "x", "9" * 1_000_000, "1" + "0" * 1_000_000])
def test_expiration_of_a_megabyte(digits: str) -> None:
    """However long, it is refused at once (quadratic time would be an hour) and quoted in part."""
    with pytest.raises(PodRefused) as refusal:
        token_expiration({contract.EXPIRATION: digits}, {})

    assert digits[:64] in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    ("account", "tenant"),
    [
        (ABSENT, "cluster-tenant"),
        ("", ""),
        ("contoso.example", "contoso.example"),
        (" x ", " x "),
    ],
)
def test_tenant(account: str | None, tenant: str) -> None:
    """The account's wins when it is there, even empty; it is never trimmed."""
    found = identity_of({}, {}, annotations(contract.TENANT_ID, account), CLUSTER)

    assert tenant == found.tenant_id


@pytest.mark.parametrize(("account", "client"), [(ABSENT, ""), ("", ""), (CLIENT, CLIENT), ("x\n", "x\n")])
def test_client(account: str | None, client: str) -> None:
    """It is the account's or none, never the pod's, and never trimmed."""
    pod = {contract.CLIENT_ID: "of-the-pod"}

    found = identity_of(pod, pod, annotations(contract.CLIENT_ID, account), CLUSTER)

    assert client == found.client_id


def test_the_operators_part() -> None:
    """Authority and audience are the operator's alone."""
    found = identity_of({}, {}, {}, CLUSTER)

    assert (found.authority_host, found.audience) == ("https://login.example/", "api://audience")


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (ABSENT, set()),
        ("", set()),
        (";", set()),
        ("a", {"a"}),
        ("a;", {"a"}),
        ("a;b", {"a", "b"}),
        (" a ;\tb\n", {"a", "b"}),
        ("a;;a;zzz", {"a", "zzz"}),
        ("a,b", {"a,b"}),
        ("a b", {"a b"}),
        ("\x85a\xa0;\u2009b\u3000", {"a", "b"}),
        ("\u200ba;\x1cb;c\x1f;\ufeffd", {"\u200ba", "\x1cb", "c\x1f", "\ufeffd"}),
    ],
)
def test_skipped_containers(listed: str | None, names: set[str]) -> None:
    """Names stand between semicolons; only what Unicode calls white space is trimmed."""
    assert names == skipped_containers(annotations(contract.SKIP_CONTAINERS, listed))


def test_long_skip_list() -> None:
    """A list as long as Kubernetes stores is split; a longer one, which would take seconds, is refused."""
    longest = "a;" * (contract.MAX_ANNOTATION // 2)

    assert skipped_containers({contract.SKIP_CONTAINERS: longest}) == {"a"}
    with pytest.raises(PodRefused, match=r"skip-containers of the pod: wanted at most 262144 .* 262145"):
        skipped_containers({contract.SKIP_CONTAINERS: longest + ";"})


PREFIX = contract.PREFIX


@pytest.mark.parametrize(
    ("labels", "pod", "account", "warnings"),
    [
        ({}, {}, {}, []),
        ({PREFIX + "use": "true"}, {PREFIX + "skip-containers": "a"}, {PREFIX + "client-id": CLIENT}, []),
        ({}, {PREFIX + "inject-proxy-sidecar": "", PREFIX + "proxy-sidecar-port": "1"}, {}, []),
        ({"app": "a"}, {"example.com/client_id": "a"}, {"example.com/use": "a"}, []),
        ({PREFIX + "usse": "true"}, {}, {}, ['label "azure.workload.identity/usse" is unknown']),
        ({PREFIX + "Use": "true"}, {}, {}, ['label "azure.workload.identity/Use" is unknown']),
        ({}, {PREFIX + "use": "true"}, {}, ["label the pod with it"]),
        ({}, {}, {PREFIX + "use": "true"}, ["label the pod with it"]),
        ({PREFIX + "skip-containers": "a"}, {}, {}, ["annotate the pod with it"]),
        ({}, {PREFIX + "client-id": CLIENT}, {}, ["annotate the ServiceAccount with it"]),
        ({}, {}, {PREFIX + "skip-containers": "a"}, ["annotate the pod with it"]),
        ({}, {}, {PREFIX + "client_id": CLIENT}, ['"azure.workload.identity/client_id" is unknown']),
        ({}, {}, {PREFIX + "client-id": CLIENT.upper()}, []),
        ({}, {}, {PREFIX + "client-id": f" {CLIENT}\n"}, []),
        ({}, {}, {PREFIX + "client-id": f"{{{CLIENT}}}"}, ["client-id is no GUID"]),
        ({}, {}, {PREFIX + "client-id": CLIENT.replace("-", "")}, ["client-id is no GUID"]),
        ({}, {}, {PREFIX + "client-id": " "}, ['client-id is no GUID: " "']),
        ({}, {}, {PREFIX + "tenant-id": "contoso"}, ['tenant-id is no GUID: "contoso"']),
        ({}, {}, {PREFIX + "tenant-id": "contoso.onmicrosoft.com"}, []),
        ({}, {}, {PREFIX + "tenant-id": "https://contoso.com"}, ["tenant-id is no GUID"]),
    ],
)
def test_warnings(
    labels: dict[str, str], pod: dict[str, str], account: dict[str, str], warnings: list[str]
) -> None:
    """Typos, keys on the wrong object and ids that are none are told; known and foreign keys are not."""
    found = identity_of(labels, pod, account, CLUSTER).warnings

    assert [part for part, warning in zip(warnings, found, strict=True) if part not in warning] == []


def test_many_unknown_keys() -> None:
    """Of a hundred thousand as many are told as an answer has warnings, the first of the alphabet."""
    labels = {f"{PREFIX}{number:06d}": "" for number in range(100_000)}

    found = identity_of(labels, {}, {}, CLUSTER).warnings

    assert len(found) == contract.MOST_WARNINGS
    assert "/000000" in found[0]


@pytest.mark.parametrize(
    "key", ["use", "client-id", "tenant-id", "skip-containers", "inject-proxy-sidecar", "x" * 63, "é" * 1000]
)
def test_warnings_are_short(key: str) -> None:
    """A warning has its advice within 120 characters, where it would be cut, whatever the key."""
    wrong = {PREFIX + key: "y" * 1000}

    found = identity_of(wrong, wrong, wrong, CLUSTER).warnings

    assert found
    assert [warning for warning in found if len(warning) > 120] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", '"plain"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("naïve 🚀", '"naïve 🚀"'),
        ("a\nb\x1b[31m", '"a\\nb\\u001b[31m"'),
        ("\x7f\x9b\u202e\u200b\xa0", '"\\u007f\\u009b\\u202e\\u200b\\u00a0"'),
        ("\U000e0041", '"\\udb40\\udc41"'),
        ("x" * 64, '"' + "x" * 64 + '"'),
        ("x" * 65, '"' + "x" * 64 + '…"'),
    ],
)
def test_what_messages_quote(text: str, shown: str) -> None:
    """A quoted value is cut, and nothing in it can move a cursor, hide or reverse what stands there."""
    assert shown == quoted(text)
