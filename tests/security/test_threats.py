"""The threat model says what is so: each of its lines names a test that is there, or its reason."""

import ast
import json
import re
import tomllib
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from testkit.cases import settings_of
from testkit.control_plane import ControlPlane
from testkit.manifests import ROOT, rendered
from testkit.processes import ProcessFailed
from testkit.workloads import CLIENT, pod
from workload_identity_operator import contract
from workload_identity_operator.identity import identity_of
from workload_identity_operator.wiring import wire

MODEL = ROOT / "docs" / "security.md"
Json = dict[str, Any]


def lines_of_the_model() -> list[list[str]]:
    """Return the rows of all its tables, without their heads."""
    rows = [line for line in MODEL.read_text("utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return [row for row in cells if row[0] not in {"threat", "---"}]


def test_each_line_has_a_test_or_a_reason() -> None:
    """No threat is met by words alone."""
    lines = lines_of_the_model()

    assert len(lines) > 30
    assert [row[0] for row in lines if len(row) != 3] == []
    assert [row[0] for row in lines if not re.match(r"`tests/|reason: \w", row[2])] == []


def test_each_test_that_is_named_is_there() -> None:
    """A test that is renamed takes its line with it."""
    named = re.findall(r"`(tests/\S+)::(\w+)`", MODEL.read_text("utf-8"))

    def functions(path: str) -> set[str]:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        found = ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        return {node.name for node in found if isinstance(node, kinds)}

    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []


def test_tenants_cannot_write_podwirings(control_plane: ControlPlane, namespace: str) -> None:
    """Whoever administers a namespace has no right to its PodWiring; they may make pods and accounts."""
    definition = [one for one in yaml.safe_load_all(rendered()) if one and "Definition" in one["kind"]]
    how = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    control_plane.kubectl(*how, given=json.dumps(definition[0]))
    inside = f"--namespace={namespace}"
    control_plane.kubectl("create", "rolebinding", "admins", "--clusterrole=admin", "--user=ada", inside)

    def may(verb: str, what: str) -> bool:
        try:
            control_plane.kubectl("auth", "can-i", verb, what, inside, "--as=ada")
        except ProcessFailed:
            return False
        return True

    wirings = f"{contract.POD_WIRINGS}.{contract.POD_WIRING_GROUP}"
    assert [verb for verb in ("create", "update", "patch", "delete") if may(verb, wirings)] == []
    assert may("create", "serviceaccounts")
    assert may("create", "pods")


ANNOTATIONS = st.dictionaries(
    st.sampled_from(
        [
            *sorted(contract.POD_ANNOTATIONS - {contract.EXPIRATION}),
            *(contract.PREFIX + name for name in ("audience", "authority-host", "token-endpoint", "path")),
            *(contract.PREFIX + name for name in ("client-id", "tenant-id", "use-identity-binding")),
        ]
    ),
    st.sampled_from(["true", "https://evil.example/", "/etc", "../../x", "kube-system/default", "a" * 64]),
)


@given(annotations=ANNOTATIONS)
def test_no_annotation_says_where_tokens_go(annotations: dict[str, str]) -> None:
    """Audience, authority, paths and volumes are the operator's, whatever a pod is annotated with."""
    settings = settings_of({})
    identity = identity_of({}, annotations, annotations, settings)
    annotated = pod("web", "billing", metadata={"annotations": annotations})
    operations = wire(annotated, identity).operations
    (volume,) = (one["value"][0] for one in operations if one["path"] == "/spec/volumes")
    tokens = [source["serviceAccountToken"] for source in volume["projected"]["sources"]]

    assert (identity.audience, identity.authority_host) == (settings.audience, settings.authority_host)
    assert identity.token_endpoint is None
    assert {token["audience"] for token in tokens} == {settings.audience}
    assert {token["expirationSeconds"] for token in tokens} == {3600}
    assert {token["path"] for token in tokens} <= {contract.TOKEN_PATH, contract.LEGACY_TOKEN_PATH}


def test_a_pod_does_not_name_its_identity() -> None:
    """What it says of client and tenant has no effect, and its author is told."""
    other = "99999999-2222-3333-4444-555555555555"
    annotations = {contract.CLIENT_ID: other, contract.TENANT_ID: other}

    identity = identity_of({}, annotations, {contract.CLIENT_ID: CLIENT}, settings_of({}))

    assert (identity.client_id, identity.tenant_id) == (CLIENT, settings_of({}).tenant_id)
    assert len(identity.warnings) == 2


def test_a_skipped_container_has_no_token() -> None:
    """It gets neither the mount nor a variable."""
    both: Json = {"containers": [{"name": "app", "image": "x"}, {"name": "other", "image": "x"}]}
    annotations = {contract.SKIP_CONTAINERS: "other"}
    identity = identity_of({}, annotations, {contract.CLIENT_ID: CLIENT}, settings_of({}))

    touched = {operation["path"] for operation in wire(pod("web", "billing", spec=both), identity).operations}

    assert touched == {"/spec/containers/0/env", "/spec/containers/0/volumeMounts", "/spec/volumes"}


def test_network_policy_opens_two_ports_only() -> None:
    """Reviews and metrics in, each from whom the values say; name look-ups and the API server out."""
    caller, scraper = {"ipBlock": {"cidr": "10.0.0.1/32"}}, {"podSelector": {"matchLabels": {"app": "a"}}}
    values = {"networkPolicy": {"enabled": True, "webhookFrom": [caller], "metricsFrom": [scraper]}}
    objects = [one for one in yaml.safe_load_all(rendered(values)) if one]
    (policy,) = (one["spec"] for one in objects if one["kind"] == "NetworkPolicy")

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    webhook, metrics = policy["ingress"]
    assert (webhook["from"], [port["port"] for port in webhook["ports"]]) == ([caller], ["webhook"])
    assert (metrics["from"], [port["port"] for port in metrics["ports"]]) == ([scraper], ["metrics"])
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [53, 53, 443, 6443]


def test_dependencies_are_locked_by_hash() -> None:
    """Each file that a package can come from has a SHA-256 in the lock file."""
    locked = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    fetched = [package for package in locked if "registry" in package["source"]]
    files = [file for package in fetched for file in package.get("wheels", ())]
    files += [package["sdist"] for package in fetched if "sdist" in package]

    assert len(fetched) > 50
    assert len(files) > 50
    assert [file["url"] for file in files if not re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"])] == []
    assert [package["name"] for package in fetched if not {"sdist", "wheels"} & package.keys()] == []
