"""The peer's own program beside ours, on the same reviews: the same pods, but for the listed differences.

Needs the peer's webhook: PEER_WEBHOOK names its binary, and the port 9443, which it insists on, must be free.
"""

import copy
import json
import os
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from fnmatch import fnmatch
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import trustme
import yaml

from testkit.control_plane import ControlPlane
from testkit.installation import free_port, operator_running
from testkit.processes import running
from testkit.workloads import fresh_namespace

Json = dict[str, Any]

PEER = os.environ.get("PEER_WEBHOOK", "")
PEER_PORT = 9443
FOLDER = Path(__file__).parents[1] / "wiring" / "cases"
DIFFERENCES: Mapping[str, str] = yaml.safe_load(
    (Path(__file__).parent / "differences.yaml").read_text(encoding="utf-8")
)
ENVIRON = {"AZURE_TENANT_ID": "22222222-2222-2222-2222-222222222222"}
CASES = {
    str(path.relative_to(FOLDER).with_suffix("")): json.loads(
        json.dumps(yaml.safe_load(path.read_text("utf-8")))
    )
    for path in sorted(FOLDER.rglob("*.yaml"))
}
ENDPOINT = {"endpoint/config-map": CASES["endpoint/config-map"]["settings"]}

pytestmark = pytest.mark.skipif(not PEER, reason="PEER_WEBHOOK names no binary of the peer")

Answer = Callable[[Json, str], Json]


@contextmanager
def both(plane: ControlPlane, settings: Mapping[str, str]) -> Iterator[tuple[Answer, Answer]]:
    """Run the peer and ours with the same settings; yield what answers a review, of each."""
    flags = [f"{name}={value}" for name, value in settings.items() if name.startswith("--")]
    environ = ENVIRON | {name: value for name, value in settings.items() if not name.startswith("--")}
    certificates = plane.folder / "webhook-certificates"
    certificates.mkdir(exist_ok=True)
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(certificates / "tls.key")
    issued.cert_chain_pems[0].write_to_path(certificates / "tls.crt")
    kept = ["--disable-cert-rotation", f"--webhook-cert-dir={certificates}", *flags]
    theirs = [PEER, f"--kubeconfig={plane.kubeconfig}", *kept, f"--health-addr=127.0.0.1:{free_port()}"]
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(operator_running(plane, port, environ=environ, flags=kept))
        peer = stack.enter_context(
            running(
                [*theirs, f"--metrics-addr=127.0.0.1:{free_port()}"],
                log=plane.folder / "peer.log",
                env=environ | {"POD_NAMESPACE": "default", "PATH": os.defpath},
            )
        )
        review = {"metadata": {"name": "probe"}, "spec": {"containers": []}}
        peer.wait_until(lambda: bool(_answered(PEER_PORT, review)), within=30)
        yield (lambda pod, of: _post(PEER_PORT, pod, of)), (lambda pod, of: _post(port, pod, of))


def _answered(port: int, pod: Json) -> Json | None:
    try:
        return _post(port, pod, "default")
    except (OSError, ValueError):
        return None


def _post(port: int, pod: Json, namespace: str) -> Json:
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    request = {"uid": "u", "kind": kind, "namespace": namespace, "operation": "CREATE", "object": pod}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    trust = ssl._create_unverified_context()  # noqa: S323 - the peer's certificate is ours, on loopback
    with closing(HTTPSConnection("127.0.0.1", port, context=trust, timeout=15)) as connection:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/mutate-v1-pod", body=json.dumps(review), headers=headers)
        response: Json = json.loads(connection.getresponse().read())["response"]
        return response


def outcome(pod: Json, response: Json) -> object:
    """Return the pod that a response makes, as the API server would default it, or the refusal's code."""
    if not response["allowed"]:
        return response["status"]["code"]
    patch = json.loads(b64decode(response["patch"])) if response.get("patch") else []
    wired = jsonpatch.apply_patch(copy.deepcopy(pod), patch)
    wired.pop("status", None)
    for noise in ("creationTimestamp", "namespace"):
        (wired.get("metadata") or {}).pop(noise, None)
    return _defaulted(wired)


def _defaulted(value: Any) -> Any:
    """Leave out what is the same as not being there, and the mode that the API server fills in."""
    if isinstance(value, dict):
        kept = {key: _defaulted(inner) for key, inner in value.items() if key != "defaultMode"}
        return {key: inner for key, inner in kept.items() if inner not in (None, {}, [], "", False)}
    return [_defaulted(inner) for inner in value] if isinstance(value, list) else value


def listed(case: str) -> bool:
    """Whether the case is among the known differences."""
    return any(fnmatch(case, pattern) for pattern in DIFFERENCES)


def compared(plane: ControlPlane, cases: Mapping[str, Json], settings: Mapping[str, str]) -> dict[str, bool]:
    """Return for each case whether both give the same."""
    same = {}
    with both(plane, settings) as (theirs, ours):
        for name, case in cases.items():
            with fresh_namespace(plane) as inside:
                spec = case["pod"].get("spec")
                account = spec.get("serviceAccountName") if isinstance(spec, dict) else None
                if case["account"] is not None:
                    account = account if isinstance(account, str) and account else "default"
                    plane.kubectl(
                        "delete",
                        "serviceaccount",
                        account,
                        f"--namespace={inside.name}",
                        "--ignore-not-found",
                    )
                    inside.account(account, case["account"])
                outcomes = [
                    outcome(case["pod"], answer(case["pod"], inside.name)) for answer in (theirs, ours)
                ]
                same[name] = outcomes[0] == outcomes[1]
    return same


@pytest.mark.parametrize("settings", [{}, *ENDPOINT.values()], ids=["usual", *ENDPOINT])
def test_same_pod_but_for_the_listed_differences(settings: Mapping[str, str]) -> None:
    """Cases whose settings these are; what differs must be listed, what is listed must differ somewhere."""
    cases = {name: case for name, case in CASES.items() if case.get("settings", {}) == settings}
    with ControlPlane() as plane:
        same = compared(plane, cases, settings)

    unlisted = [name for name, is_same in same.items() if not is_same and not listed(name)]
    print(f"{sum(same.values())} of {len(same)} cases give the same pod")
    assert unlisted == []
    assert any(same.values())
