"""AzurePipelinesCredential: a job's tokens, from the job's endpoint to Entra."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from testkit.entra import EntraStandIn
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.issuer import Issuer
from testkit.pipelines import Job, running_job
from workload_identity import ClientAuthenticationError, CredentialUnavailableError

SCOPE = "https://vault.azure.net/.default"
ACCESS = "planted-access-token"
SUBJECT = "sc://organization/project/connection"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any


@pytest.fixture
def job(
    issuer: Issuer, entra: EntraStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Job]:
    """A job whose service connection the application lets in."""
    entra.register(CLIENT_ID, tenant_id=TENANT_ID, issuer=issuer.url, subject=SUBJECT)
    with running_job(tmp_path, ACCESS, connection=lambda: issuer.mint(sub=SUBJECT)) as running:
        monkeypatch.setenv("SYSTEM_OIDCREQUESTURI", f"{running.url}/")
        both = tmp_path / "both.pem"
        both.write_bytes(running.ca_file.read_bytes() + entra.ca_file.read_bytes())
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        yield running


def made(family: Family, **changes: Any) -> Any:
    """Make a credential of the job."""
    given = {
        "tenant_id": TENANT_ID,
        "client_id": CLIENT_ID,
        "service_connection_id": "connection",
        "system_access_token": ACCESS,
    }
    return family.module.AzurePipelinesCredential(**{**given, **changes})


def test_jobs_token_is_traded(family: Family, job: Job, entra: EntraStandIn) -> None:
    """One request to each, and none while the token is held."""
    one = made(family)

    assert family.do(one.get_token, SCOPE) == family.do(one.get_token, SCOPE)
    assert job.requests == [
        "/organization/project/_apis/oidctoken?api-version=7.1&serviceConnectionId=connection"
    ]
    assert [request.outcome for request in entra.requests] == ["granted"]


def test_connections_id_is_encoded(family: Family, job: Job) -> None:
    """It cannot add to the query; the error names it."""
    with pytest.raises(ClientAuthenticationError, match="a&b=c"):
        family.do(made(family, service_connection_id="a&b=c /").get_token, SCOPE)

    assert job.requests[0].endswith("?api-version=7.1&serviceConnectionId=a%26b%3Dc%20%2F")


def test_outside_a_job_nothing_is_asked(
    family: Family, job: Job, monkeypatch: pytest.MonkeyPatch, entra: EntraStandIn
) -> None:
    """A chain goes on then; a token that is held does not count."""
    one = made(family)
    family.do(one.get_token, SCOPE)
    monkeypatch.setenv("SYSTEM_OIDCREQUESTURI", "")

    with pytest.raises(CredentialUnavailableError, match="SYSTEM_OIDCREQUESTURI"):
        family.do(one.get_token, SCOPE)
    assert len(job.requests) == 1 == len(entra.requests)


def test_old_access_token_is_told(family: Family, job: Job, entra: EntraStandIn) -> None:
    """It ends with its job; the error has the response and not the token."""
    with pytest.raises(ClientAuthenticationError, match="status 401") as raised:
        family.do(made(family, system_access_token="planted-old").get_token, SCOPE)

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert raised.value.response.status_code == 401
    assert "planted" not in repr(vars(raised.value)) + raised.value.response.text()
    assert "<html>" not in str(raised.value)
    assert len(job.requests) == 1
    assert entra.requests == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=302, headers={"Location": "https://signin.example"}), "status 302"),
        (lambda: web.json_response({"oidcToken": ""}), "wanted oidcToken, found fields: oidcToken"),
        (lambda: web.json_response({"oidcToken": 7}), "wanted oidcToken"),
        (lambda: web.json_response({}), "found fields: none"),
        (lambda: web.json_response([]), "wanted a JSON object"),
        (lambda: web.Response(text="<html>a page</html>", content_type="text/html"), "wanted a JSON object"),
        (lambda: web.Response(body=b"\xff{"), "wanted a JSON object"),
        (lambda: web.json_response({"message": f"token {ACCESS}"}, status=400), "status 400"),
    ],
)
def test_answers_without_a_token_are_told(
    family: Family, job: Job, entra: EntraStandIn, answer: Any, words: str
) -> None:
    """Entra is not asked then."""
    job.answer = answer

    with pytest.raises(ClientAuthenticationError, match=words) as raised:
        family.do(made(family).get_token, SCOPE)

    assert ACCESS not in str(raised.value)
    assert entra.requests == []


def test_endpoint_that_fails_for_a_moment_is_asked_again(family: Family, job: Job) -> None:
    """As any other."""
    answers = [web.Response(status=503, headers={"Retry-After": "0"})]

    def once() -> web.Response:
        job.answer = None
        return answers[0]

    job.answer = once

    assert family.do(made(family).get_token, SCOPE)
    assert len(job.requests) == 2


def test_endpoint_that_is_gone_is_told(family: Family, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name: it is not Entra that does not answer."""
    del job
    monkeypatch.setenv("SYSTEM_OIDCREQUESTURI", "https://127.0.0.1:1/oidc")

    with pytest.raises(ClientAuthenticationError, match="no answer from Azure Pipelines at 127"):
        family.do(made(family, retry_total=0).get_token, SCOPE)


@pytest.mark.parametrize("name", ["tenant_id", "client_id", "service_connection_id", "system_access_token"])
def test_empty_values_are_misuse(family: Family, name: str) -> None:
    """At construction, by name."""
    with pytest.raises(ValueError, match=name.replace("_id", ".id") if name == "tenant_id" else name):
        made(family, **{name: ""})


@pytest.mark.parametrize("token", ["planted\n", "planted\x00", "plantéd"])
def test_access_token_must_fit_a_header(family: Family, token: str) -> None:
    """It is not quoted."""
    with pytest.raises(ValueError, match="system_access_token") as raised:
        made(family, system_access_token=token)

    assert "plant" not in str(raised.value)


def test_repr_has_no_token(family: Family) -> None:
    """It is a secret."""
    assert "planted" not in repr(made(family))
