"""The flow of workload identity, played by hand."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.federation import Wish, workload_identity
from workload_identity.options import Options
from workload_identity.steps import Content, Read, Response, Send, Unreachable, Wait

WISH = Wish(
    authority="https://login.microsoftonline.com",
    tenant_id="a-tenant",
    client_id="a-client",
    token_file="/the/token-file",
    scopes=("https://vault.azure.net/.default",),
)
OPTIONS = Options({})
Stage = Any
Jwt = Callable[..., str]
Answer = Callable[..., Response]


def wished(**changes: Any) -> Wish:
    """Return the wish, but for some fields."""
    return Wish(**{**vars(WISH), **changes})


def content(token: str) -> Content:
    """Return what a kubelet writes."""
    return Content(token.encode(), steady=True)


def refusal(answer: Answer, code: int, error: str = "invalid_client", status: int = 401) -> Response:
    """Return Entra's refusal with a code."""
    return answer(status, error=error, error_description=f"AADSTS{code}: No.", error_codes=[code])


def test_pod_token_is_traded(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """The file's content goes to the tenant's token endpoint, without the newline at its end."""
    token = jwt(sub="someone")
    stage.files = [content(f" {token}\n")]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    held = stage.play(workload_identity(WISH, OPTIONS))

    (request,) = stage.of(Send)
    assert request.url == "https://login.microsoftonline.com/a-tenant/oauth2/v2.0/token"
    assert request.form == {
        "grant_type": "client_credentials",
        "client_id": "a-client",
        "scope": "https://vault.azure.net/.default",
        "client_assertion": token,
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    assert held.token.token == "secret"
    assert held.token.expires_on == 1_003_600


def test_request_has_an_id_of_its_own(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """Entra is told an id, to find the request in its logs, and asked to repeat it."""
    stage.files = [content(jwt())]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    stage.play(workload_identity(WISH, OPTIONS))

    assert stage.of(Send)[0].headers == {
        "Accept": "application/json",
        "client-request-id": "id-1",
        "return-client-request-id": "true",
        "x-ms-client-request-id": "id-1",
    }


def test_several_scopes_keep_their_order(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """Scopes are sent as they were given, a blank between them."""
    stage.files = [content(jwt())]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    stage.play(workload_identity(wished(scopes=("b", "a")), OPTIONS))

    assert stage.of(Send)[0].form["scope"] == "b a"


def test_claims_are_sent(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """A claims challenge goes to Entra as it is."""
    stage.files = [content(jwt())]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    stage.play(workload_identity(wished(claims='{"access_token": {}}'), OPTIONS))

    assert stage.of(Send)[0].form["claims"] == '{"access_token": {}}'


@pytest.mark.parametrize(
    "failure", [FileNotFoundError(2, "No such file"), NotADirectoryError(20, "No folder")]
)
def test_missing_file_makes_the_credential_unavailable(stage: Stage, failure: OSError) -> None:
    """A chain goes on; the message has the path, the system's words and what pods may lack."""
    stage.files = [failure]

    with pytest.raises(CredentialUnavailableError) as raised:
        stage.play(workload_identity(WISH, OPTIONS))

    assert "/the/token-file" in str(raised.value)
    assert str(failure.strerror) in str(raised.value)
    assert 'azure.workload.identity/use: "true"' in str(raised.value)
    assert stage.of(Send) == []


def test_unreadable_file_is_told_apart(stage: Stage) -> None:
    """Where permission lacks, the hint is about the container's user."""
    stage.files = [PermissionError(13, "Permission denied")]

    with pytest.raises(CredentialUnavailableError, match=r"Permission denied.*runAsUser"):
        stage.play(workload_identity(WISH, OPTIONS))


def test_file_is_waited_for(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """With token_file_timeout a file may come later, or be empty at first."""
    stage.files = [FileNotFoundError(2, "No such file"), content(""), content(jwt())]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    held = stage.play(workload_identity(wished(token_file_timeout=30), OPTIONS))

    assert held.token.token == "secret"


def test_waiting_for_a_file_ends(stage: Stage) -> None:
    """After token_file_timeout the missing file is an error."""
    stage.files = [FileNotFoundError(2, "No such file")]
    begin = stage.monotonic

    with pytest.raises(CredentialUnavailableError):
        stage.play(workload_identity(wished(token_file_timeout=30), OPTIONS))

    assert 30 <= stage.monotonic - begin < 32


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"no token", "found 8 letters in 1 parts, which are no JWT"),
        (b"a.b.c", "in 3 parts, which are no JWT"),
        (b"\xff\xfe\x00", "no JWT"),
        (b"eyJhbGciOiJSUzI1NiJ9.W10.c2ln", "no JWT"),
        (b"eyJhbGciOiJSUzI1NiJ9.e30.", "no JWT"),
    ],
)
def test_what_is_no_token_is_not_sent(stage: Stage, data: bytes, words: str) -> None:
    """The message has the path and what was found, and a chain stops."""
    stage.files = [Content(data, steady=True)]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(workload_identity(WISH, OPTIONS))

    assert not isinstance(raised.value, CredentialUnavailableError)
    assert words in str(raised.value)
    assert "/the/token-file" in str(raised.value)
    assert stage.of(Send) == []


@pytest.mark.parametrize("steady", [True, False])
def test_file_that_is_far_too_large(stage: Stage, steady: bool) -> None:
    """It is told at once that it is no token's: reading it again makes it no smaller."""
    stage.files = [Content(b"x" * (1 << 20), steady=steady)]

    with pytest.raises(ClientAuthenticationError, match="1,048,576 bytes or more"):
        stage.play(workload_identity(WISH, OPTIONS))

    assert len(stage.of(Read)) == 1


@pytest.mark.parametrize("steady", [True, False])
def test_torn_read_is_read_again(stage: Stage, jwt: Jwt, answer: Answer, steady: bool) -> None:
    """A file that is written just now is read until it is whole."""
    whole = jwt(sub="someone")
    torn = Content(whole[: len(whole) // 2].encode(), steady=steady)
    stage.files = [torn, Content(whole.encode(), steady=False), content(whole)]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    stage.play(workload_identity(WISH, OPTIONS))

    assert len(stage.of(Read)) == 3
    assert stage.of(Send)[0].form["client_assertion"] == whole


def test_file_that_never_rests_is_an_error(stage: Stage, jwt: Jwt) -> None:
    """Reading does not go on for ever."""
    stage.files = [Content(jwt().encode(), steady=False)]

    with pytest.raises(ClientAuthenticationError, match="changed each of the 10 times"):
        stage.play(workload_identity(WISH, OPTIONS))


@pytest.mark.parametrize("code", [700024, 700027, 50027, 7000215])
def test_newer_token_is_tried_when_the_first_is_refused(
    stage: Stage, jwt: Jwt, answer: Answer, code: int
) -> None:
    """A token that was rotated meanwhile is read and sent, once."""
    old, new = jwt(jti="old"), jwt(jti="new")
    stage.files = [content(old), content(new)]
    stage.answers = [refusal(answer, code, "invalid_request"), answer(access_token="secret", expires_in=3600)]

    held = stage.play(workload_identity(WISH, OPTIONS))

    assert [request.form["client_assertion"] for request in stage.of(Send)] == [old, new]
    assert held.token.token == "secret"


def test_same_token_is_not_sent_again(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """A file that has not changed is no reason to repeat."""
    stage.files = [content(jwt())]
    stage.answers = [refusal(answer, 700024)]

    with pytest.raises(ClientAuthenticationError, match="AADSTS700024"):
        stage.play(workload_identity(WISH, OPTIONS))

    assert len(stage.of(Send)) == 1


def test_newer_token_is_tried_only_once(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """A file that changes all the time does not keep the flow busy for ever."""
    stage.files = [content(jwt(jti=number)) for number in range(5)]
    stage.answers = [refusal(answer, 700024)]

    with pytest.raises(ClientAuthenticationError):
        stage.play(workload_identity(WISH, OPTIONS))

    assert len(stage.of(Send)) == 2


def test_first_refusal_is_told_when_the_file_is_gone(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """Entra's answer says more than that the file cannot be read any more."""
    stage.files = [content(jwt()), FileNotFoundError(2, "No such file")]
    stage.answers = [refusal(answer, 700024)]

    with pytest.raises(ClientAuthenticationError, match="AADSTS700024") as raised:
        stage.play(workload_identity(WISH, OPTIONS))

    assert not isinstance(raised.value, CredentialUnavailableError)


@pytest.mark.parametrize("code", [70021, 700211, 700212, 700213])
def test_propagation_is_waited_for_when_asked(stage: Stage, jwt: Jwt, answer: Answer, code: int) -> None:
    """With retry_on_propagation a federated credential may become known."""
    stage.files = [content(jwt())]
    stage.answers = [refusal(answer, code)] * 3 + [answer(access_token="secret", expires_in=3600)]

    held = stage.play(workload_identity(wished(retry_on_propagation=180), OPTIONS))

    assert held.token.token == "secret"
    assert [wait.longest for wait in stage.of(Wait)] == [3, 6, 10]


def test_propagation_is_not_waited_for_by_itself(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """By default a wrong registration is told at once."""
    stage.files = [content(jwt())]
    stage.answers = [refusal(answer, 70021)]

    with pytest.raises(ClientAuthenticationError, match="AADSTS70021"):
        stage.play(workload_identity(WISH, OPTIONS))

    assert stage.of(Wait) == []


def test_waiting_for_propagation_ends(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """After retry_on_propagation the refusal is told."""
    stage.files = [content(jwt())]
    stage.answers = [refusal(answer, 70021)]
    begin = stage.monotonic

    with pytest.raises(ClientAuthenticationError, match="AADSTS70021"):
        stage.play(workload_identity(wished(retry_on_propagation=60), OPTIONS))

    assert 50 <= stage.monotonic - begin <= 60


def test_configuration_faults_are_not_waited_for(stage: Stage, jwt: Jwt, answer: Answer) -> None:
    """Propagation has nothing to do with an unknown client."""
    stage.files = [content(jwt())]
    stage.answers = [refusal(answer, 700016, "unauthorized_client", 400)]

    with pytest.raises(ClientAuthenticationError, match="AADSTS700016"):
        stage.play(workload_identity(wished(retry_on_propagation=60), OPTIONS))

    assert len(stage.of(Send)) == 1


def test_no_answer_is_told_with_host_and_cause(stage: Stage, jwt: Jwt) -> None:
    """After its tries a flow says who could not be reached, why, and that later may be different."""
    stage.files = [content(jwt())]
    stage.answers = [Unreachable("connect", "Connection refused")]

    with pytest.raises(ClientAuthenticationError) as raised:
        stage.play(workload_identity(WISH, OPTIONS))

    assert "login.microsoftonline.com (4 tries): Connection refused" in str(raised.value)
    assert raised.value.retryable


def test_call_ends_at_its_deadline(stage: Stage, jwt: Jwt) -> None:
    """Slow failures use up the time of a call, not the number of tries."""
    stage.files = [content(jwt())]
    stage.answers = [Unreachable("read", "it was silent")]
    stage.seconds_per_request = 30
    begin = stage.monotonic

    with pytest.raises(ClientAuthenticationError):
        stage.play(workload_identity(WISH, Options({"timeout": 50})))

    assert [request.deadline for request in stage.of(Send)] == [begin + 50] * len(stage.of(Send))
    assert len(stage.of(Send)) == 2


def test_waiting_for_the_file_does_not_count_against_the_request(
    stage: Stage, jwt: Jwt, answer: Answer
) -> None:
    """The time of the request begins when there is a token to send."""
    missing: Sequence[Content | Exception] = [FileNotFoundError(2, "No such file")] * 40
    stage.files = [*missing, content(jwt())]
    stage.answers = [answer(access_token="secret", expires_in=3600)]

    stage.play(workload_identity(wished(token_file_timeout=300), Options({"timeout": 1})))

    assert stage.of(Send)[0].deadline == stage.monotonic + 1
