"""What the repository keeps of the chart, for people who read it there: made anew by `make manifests`.

`check/rules.json` in the operator is what `check` compares validating policies and webhook of a cluster with.
`manifests/install.yaml` is the chart rendered with its default values, for `envsubst | kubectl apply` on any
cluster; `manifests/policy.yaml` adds what only newer API servers take; the chart's README.md has a table of
values.yaml, docs/check.md one of what `check` finds.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import yaml

from testkit.binaries import BinariesMissing, provide
from testkit.processes import ProcessFailed, output_of
from workload_identity_operator.check.findings import CODES
from workload_identity_operator.settings import DEFAULT_NAMESPACE

ROOT: Final = Path(__file__).parents[4]
CHART: Final = ROOT / "charts" / "workload-identity-operator"
RELEASE: Final = "workload-identity-operator"
TENANT: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for a tenant where the chart wants one and which does not matter."""

HEADER: Final = f"""\
# The chart workload-identity-operator with its default values. Made by `make manifests`; to install:
#
#   AZURE_TENANT_ID=… AZURE_ENVIRONMENT=AzurePublicCloud envsubst <install.yaml | kubectl apply -f -

apiVersion: v1
kind: Namespace
metadata:
  name: {DEFAULT_NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/enforce-version: latest
    pod-security.kubernetes.io/audit: restricted
    pod-security.kubernetes.io/audit-version: latest
    pod-security.kubernetes.io/warn: restricted
    pod-security.kubernetes.io/warn-version: latest
"""

POLICY_HEADER: Final = """\
# Beside install.yaml, on Kubernetes 1.36 or later: lets the API server wire plain pods by itself. Made by
# `make manifests`; to install:
#
#   kubectl apply -f policy.yaml
"""

# What a rendering says for one installation by Helm, and what the static manifest says instead.
STATIC: Final = {
    f'AZURE_TENANT_ID: "{TENANT}"': 'AZURE_TENANT_ID: "${AZURE_TENANT_ID}"',
    'AZURE_ENVIRONMENT: "AzurePublicCloud"': 'AZURE_ENVIRONMENT: "${AZURE_ENVIRONMENT}"',
    # In place of a checksum: it changes exactly when the settings do, and so rolls the pods.
    r"checksum/config: [0-9a-f]{64}": 'checksum/config: "${AZURE_TENANT_ID} ${AZURE_ENVIRONMENT}"',
    # The policy's manifest declares none: it is applied apart, without those variables.
    r' *- "--settings-checksum=[0-9a-f]{64}"\n': "",
    "managed-by: Helm": "managed-by: kubectl",
    r"# Source: .*\n": "",
}

TABLE: Final = r"(?<=<!-- {0} -->\n).*(?=<!-- /{0} -->)"
"""Where a table of a name stands in a page."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart: a row of the table.

    Attributes:
        name: With the names of the objects around it, "image.release".
        type: And its unit, where it has one.
        default: As JSON.
        effect: In sentences.
    """

    name: str
    type: str
    default: str
    effect: str


def made_files() -> dict[Path, str]:
    """Return the files that are made, with what should be in them.

    Raises:
        BinariesMissing, ProcessFailed: Without helm there is nothing to show.
        ValueError: The chart is not such that its files can be made.
    """
    readme = CHART / "README.md"
    values = read_values((CHART / "values.yaml").read_text(encoding="utf-8"))
    findings = ROOT / "docs" / "check.md"
    policies = rendered({"engine": "webhook", "guard": True}, tests=False)
    return {
        ROOT / "operator/src/workload_identity_operator/check/rules.json": rules_of(policies),
        findings: with_table(findings.read_text(encoding="utf-8"), table_of_findings(), "findings"),
        ROOT / "manifests" / "install.yaml": static(rendered({"engine": "webhook"}, tests=False)),
        ROOT / "manifests" / "policy.yaml": static_policy(rendered({"engine": "policy"}, tests=False)),
        readme: with_table(readme.read_text(encoding="utf-8"), table(values)),
    }


def rendered(
    values: Mapping[str, Any] | None = None,
    release: str = RELEASE,
    namespace: str = DEFAULT_NAMESPACE,
    api_versions: str = "",
    *,
    tests: bool = True,
) -> str:
    """Return what helm renders of the chart, for TENANT where the values name no tenant.

    The cluster serves `api_versions` too, "group/version/kind" separated by commas. `tests` are what only
    `helm test` installs.

    Raises:
        BinariesMissing: There is no helm.
        ProcessFailed: The chart refuses the values; the message has its reason.
    """
    helm = provide(["helm"])["helm"].path
    given = json.dumps({"azureTenantID": TENANT} | dict(values or {}))
    where = [f"--namespace={namespace}", f"--api-versions={api_versions}"]
    where += [] if tests else ["--skip-tests"]
    return output_of([helm, "template", release, CHART, *where, "--values=-"], given=given)


def static(rendering: str) -> str:
    """Return a rendering as a manifest for kubectl, with its namespace and two variables for envsubst.

    Raises:
        ValueError: It has no longer what is to be replaced.
    """
    for found, instead in STATIC.items():
        rendering, times = re.subn(found, lambda _, text=instead: text, rendering)  # type: ignore[misc]
        if not times:
            raise ValueError(f"the rendered chart has no {found!r} to replace by {instead!r}")
    return "\n---\n\n".join([HEADER, *_documents(rendering)])


def conditions() -> dict[str, str]:
    """Return the expression by which the webhook is asked beside a policy, without and with a token endpoint.

    Audiences and the annotation that asks for the endpoint are named as what they are.
    """
    endpoint = {
        "annotationSuffix": "annotation",
        "audience": "ENDPOINT",
        "azureKubernetesTokenProxy": "https://example.com",
    }
    found = {}
    for name, more in (("plain", {}), ("endpoint", {"customTokenEndpoint": endpoint})):
        text = rendered({"engine": "policy", "audience": "AUDIENCE", **more}, tests=False)
        documents = (one for one in yaml.safe_load_all(text) if one)
        (webhook,) = (one for one in documents if one["kind"] == "MutatingWebhookConfiguration")
        (found[name],) = (one["expression"] for one in webhook["webhooks"][0]["matchConditions"])
    return found


def rules_of(rendering: str) -> str:
    """Return what the validating policies of a rendering say whatever the values, as JSON by their names.

    With them, as `unwired`, `conditions`.
    """
    found: dict[str, Any] = {
        one["metadata"]["name"]: {
            **{key: value for key, value in one["spec"].items() if key != "matchConstraints"},
            "matchConstraints": {"resourceRules": one["spec"]["matchConstraints"]["resourceRules"]},
        }
        for one in yaml.safe_load_all(rendering)
        if one and one["kind"] == "ValidatingAdmissionPolicy"
    }
    return json.dumps(found | {"unwired": conditions()}, indent=2, sort_keys=True) + "\n"


def static_policy(rendering: str) -> str:
    """Return the mutating policy of a rendering, its binding and what keeps them, as a manifest."""
    rendering = re.sub(r"# Source: .*\n", "", rendering)
    rendering = re.sub(r'(managed-by"?: "?)Helm', r"\1kubectl", rendering)
    rendering = re.sub(r"  annotations:\n    #.*\n    .*/settings-checksum: [0-9a-f]{64}\n", "", rendering)
    kept = re.compile(rf"^(kind: MutatingAdmissionPolicy|  name: {RELEASE}-declared$)", re.MULTILINE)
    documents = [found for found in _documents(rendering) if kept.search(found)]
    return "\n---\n\n".join([POLICY_HEADER + "\n" + documents[0], *documents[1:]])


def _documents(rendering: str) -> list[str]:
    found = [document.strip() for document in re.split(r"^---$", rendering, flags=re.MULTILINE)]
    return [f"{document}\n" for document in found if document]


def read_values(text: str) -> list[Value]:
    """Return the values of a values.yaml in its order.

    A comment directly above a key that begins "(type, unit)" makes it a value; a key without such a
    comment is an object whose keys are looked at.

    Raises:
        ValueError: A value has no such comment.
    """
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, within: str, defaults: Mapping[str, Any]) -> Iterator[Value]:
        for key, value in node.value:
            name = f"{within}{key.value}"
            comment = _comment_above(lines, key.start_mark.line)
            if told := re.fullmatch(r"\(([^)]+)\) (.+)", comment):
                default = json.dumps(defaults[key.value], ensure_ascii=False)
                yield Value(name, told[1], default, told[2])
            elif isinstance(value, yaml.MappingNode) and value.value:
                yield from walk(value, f"{name}.", defaults[key.value])
            else:
                raise ValueError(f"values.yaml: {name} needs a comment above it, such as `# (string) …`")

    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise ValueError("values.yaml: wanted an object at the top")  # noqa: TRY004 - the file's fault
    return list(walk(root, "", yaml.safe_load(text)))


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    while line and (text := lines[line - 1].strip()).startswith("#"):
        comment.insert(0, text.lstrip("# "))
        line -= 1
    return " ".join(comment)


def table(values: list[Value]) -> str:
    """Return the values as a table in Markdown."""

    def row(*cells: str) -> str:
        return "".join(["| ", " | ".join(cell.replace("|", r"\|") for cell in cells), " |\n"])

    rows = (row(f"`{value.name}`", value.type, f"`{value.default}`", value.effect) for value in values)
    return "".join([row("Value", "Type", "Default", "Effect"), row(*["---"] * 4), *rows])


def table_of_findings() -> str:
    """Return what `check` can find as a table in Markdown."""
    rows = [
        f"| `{name}` | {code.severity} | {code.meaning} | {code.cure} |\n" for name, code in CODES.items()
    ]
    return "".join(["| code | severity | meaning | cure |\n", "| --- | --- | --- | --- |\n", *rows])


def with_table(readme: str, markdown: str, name: str = "values") -> str:
    """Return a page with the table between the two marks of its name.

    Raises:
        ValueError: It has no such marks.
    """
    marked = re.compile(TABLE.format(name), re.DOTALL)
    written, times = marked.subn(lambda _: f"\n{markdown}\n", readme)
    if times != 1:
        raise ValueError(f"the page needs the lines <!-- {name} --> and <!-- /{name} -->")
    return written


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; end with 1 when a file is not what it should be.")
def main(*, check: bool) -> None:
    """Render manifests/ from the chart, and the table of values in its README.md."""
    try:
        files = made_files()
    except (BinariesMissing, ProcessFailed, ValueError) as failure:
        print(failure, file=sys.stderr)
        sys.exit(1)
    stale = [path for path, wanted in files.items() if not path.exists() or path.read_text("utf-8") != wanted]
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"Not what the chart gives: {names}. Run `make manifests` and commit.", file=sys.stderr)
        sys.exit(1)
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
        print(f"Written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
