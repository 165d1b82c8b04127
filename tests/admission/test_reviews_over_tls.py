"""The webhook's port as anyone can reach it: real TLS, well-formed answers to whatever is sent."""

import json
import ssl
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from testkit.installation import Served, webhook_trust
from testkit.workloads import CLIENT, Namespace, pod
from workload_identity_operator import contract

JSON = {"Content-Type": "application/json"}


@contextmanager
def connection(served: Served) -> Iterator[HTTPSConnection]:
    """Connect as the API server does: trusting the caBundle and nothing else."""
    where = urlsplit(served.operator.webhook)
    trust = webhook_trust(served.plane)
    with closing(HTTPSConnection(where.hostname or "", where.port, context=trust, timeout=10)) as found:
        yield found


def post(
    served: Served,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    path: str = "/mutate-v1-pod?timeout=5s",
) -> tuple[int, Any]:
    """Post a body; return the HTTP status and the answer."""
    with connection(served) as opened:
        opened.request("POST", path, body=body, headers=JSON if headers is None else dict(headers))
        answer = opened.getresponse()
        return answer.status, json.loads(answer.read())


def review(namespace: str, of: object, version: str = "v1", **more: object) -> bytes:
    """Return an admission review of a pod's creation."""
    request = {"uid": "u-1", "namespace": namespace, "operation": "CREATE", "object": of, **more}
    kind = {"apiVersion": f"admission.k8s.io/{version}", "kind": "AdmissionReview"}
    return json.dumps({**kind, "request": request}).encode()


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_answer_repeats_version_and_uid(served: Served, inside: Namespace, version: str) -> None:
    """Both review versions are spoken, and the patch is JSON Patch in base64."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})

    status, answer = post(served, review(inside.name, pod("web", "billing"), version))

    assert status == 200
    assert answer["apiVersion"] == f"admission.k8s.io/{version}"
    assert answer["response"]["uid"] == "u-1"
    assert answer["response"]["allowed"] is True
    assert answer["response"]["patchType"] == "JSONPatch"
    assert {op["op"] for op in json.loads(b64decode(answer["response"]["patch"]))} == {"add"}


def test_missing_account_is_refused(served: Served, inside: Namespace) -> None:
    """Status 400 and the words people search for; HTTP itself succeeds."""
    status, answer = post(served, review(inside.name, pod("web", "nobody")))

    assert status == 200
    assert answer["response"]["allowed"] is False
    assert answer["response"]["status"]["code"] == 400
    assert 'serviceaccounts "nobody" not found' in answer["response"]["status"]["message"]


@pytest.mark.parametrize(
    ("body", "headers", "path", "status"),
    [
        (b"", None, "/mutate-v1-pod", 400),
        (b"{", None, "/mutate-v1-pod", 400),
        (b"[]", None, "/mutate-v1-pod", 400),
        (b"[" * 20_000, None, "/mutate-v1-pod", 400),
        (b'{"x": NaN}', None, "/mutate-v1-pod", 400),
        (b"{}", {"Content-Type": "application/json; charset=utf-8"}, "/mutate-v1-pod", 400),
        (b"{}", {}, "/mutate-v1-pod", 400),
        (b" " * (contract.MAX_REVIEW_BYTES + 1), None, "/mutate-v1-pod", 413),
        (b"{}", None, "/elsewhere", 404),
    ],
)
def test_what_is_no_review_gets_a_review_that_says_why(
    served: Served, body: bytes, headers: Mapping[str, str] | None, path: str, status: int
) -> None:
    """Status of HTTP and of the answer agree; the reason is in the message."""
    found, answer = post(served, body, headers, path)

    assert (found, answer["response"]["status"]["code"]) == (status, status)
    assert answer["kind"] == "AdmissionReview"
    assert answer["response"]["allowed"] is False
    assert "wanted" in answer["response"]["status"]["message"]


def test_hostile_account_name_reaches_no_url(served: Served, inside: Namespace) -> None:
    """A name that is no name is refused before the API server is asked."""
    hostile = pod("web", "../../../secrets/x")

    _, answer = post(served, review(inside.name, hostile))

    assert answer["response"]["status"]["code"] == 400
    assert "is no Kubernetes name" in answer["response"]["status"]["message"]


def test_other_operations_and_subresources_pass(served: Served, inside: Namespace) -> None:
    """A configuration edited by hand may send them: allowed, nothing changed."""
    for more in ({"operation": "DELETE", "object": None}, {"operation": "UPDATE"}, {"subResource": "exec"}):
        _, answer = post(served, review(inside.name, pod("web", "nobody"), **more))

        assert answer["response"]["allowed"] is True
        assert "patch" not in answer["response"]


def test_connection_is_kept_for_many_reviews(served: Served, inside: Namespace) -> None:
    """The API server opens few connections: one that got a bad request goes on serving."""
    inside.account("billing", {contract.CLIENT_ID: CLIENT})
    with connection(served) as opened:
        for body, status in ((review(inside.name, pod("web", "billing")), 200), (b"{", 400)) * 3:
            opened.request("POST", "/mutate-v1-pod", body=body, headers=JSON)
            answer = opened.getresponse()
            answer.read()
            assert answer.status == status


def test_older_tls_than_the_setting_is_refused(served: Served) -> None:
    """The default is TLS 1.3."""
    where = urlsplit(served.operator.webhook)
    trust = webhook_trust(served.plane)
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    opened = HTTPSConnection(where.hostname or "", where.port, context=trust, timeout=10)

    with closing(opened), pytest.raises(ssl.SSLError):
        opened.connect()
