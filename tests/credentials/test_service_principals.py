"""Service principals: secrets, certificates and assertions, with Entra checking each."""

import base64
import inspect
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import PrivateFormat

from testkit.client_certificates import Issued
from testkit.entra import EntraStandIn
from testkit.entra.faults import Altered, Failing, Html, Reset, Throttled
from testkit.entra.fixtures import CLIENT_ID, TENANT_ID
from testkit.issuer import Issuer
from workload_identity import ClientAuthenticationError, CredentialUnavailableError

SCOPE = "https://vault.azure.net/.default"
OTHER = "11111111-2222-4333-8444-555555555555"
SECRET = "planted secret/with+odd%20letters"
pytestmark = pytest.mark.usefixtures("pod")
Family = Any


def claims(token: str, part: int = 1) -> dict[str, Any]:
    """Return what a token states; part 0 is its header."""
    text = token.split(".")[part]
    stated: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=="))
    return stated


@pytest.fixture(scope="module")
def issued() -> Issued:
    """A certificate that vouches for itself."""
    return Issued.of("client")


def with_secret(family: Family, **given: Any) -> Any:
    """Make a credential with the secret."""
    return family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, SECRET, **given)


@pytest.fixture
def secret(entra: EntraStandIn) -> str:
    """A secret that the application has."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    return SECRET


def assertion_credential(family: Family, issuer: Issuer) -> Any:
    """Make a credential with the issuer's assertions."""
    return family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, issuer.mint)


@pytest.fixture(params=["secret", "certificate", "assertion"])
def credential(
    request: pytest.FixtureRequest, family: Family, entra: EntraStandIn, issuer: Issuer, issued: Issued
) -> Callable[..., Any]:
    """Make a credential of each kind."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID)
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    kinds = {
        "secret": (family.module.ClientSecretCredential, (SECRET,), {}),
        "certificate": (family.module.CertificateCredential, (), {"certificate_data": issued.pem()}),
        "assertion": (family.module.ClientAssertionCredential, (issuer.mint,), {}),
    }
    made, more, named = kinds[request.param]
    return lambda **given: made(TENANT_ID, CLIENT_ID, *more, **named, **given)


# --- all of them


def test_token_is_the_applications(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn
) -> None:
    """Entra believes the proof; one request serves both methods and every instance of the same identity."""
    one, other = credential(), credential()

    token = family.do(one.get_token, SCOPE)

    stated = claims(token.token)
    assert (stated["tid"], stated["appid"], stated["idtyp"]) == (TENANT_ID, CLIENT_ID, "app")
    assert family.do(other.get_token_info, SCOPE).token == token.token
    assert [(request.grant, request.scope) for request in entra.requests] == [("client_credentials", SCOPE)]


def test_many_callers_make_one_request(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn
) -> None:
    """Whoever comes while the request is in the air waits for its answer."""
    one = credential()

    tokens = family.together([lambda: one.get_token(SCOPE)] * 20)

    assert len(set(tokens)) == 1
    assert len(entra.requests) == 1


def test_another_tenant_must_be_allowed(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn
) -> None:
    """Without the option nothing is sent; with it the tenant of the call is asked."""
    with pytest.raises(ClientAuthenticationError, match="additionally_allowed_tenants"):
        family.do(credential().get_token, SCOPE, tenant_id=OTHER)
    assert entra.requests == []

    with pytest.raises(ClientAuthenticationError, match=OTHER):
        family.do(credential(additionally_allowed_tenants=[OTHER]).get_token, SCOPE, tenant_id=OTHER)
    assert [request.tenant for request in entra.requests] == [OTHER]


def test_evaluated_tokens_are_apart(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn
) -> None:
    """With enable_cae the capability is declared, and a challenge brings a new token."""
    one = credential()

    plain = family.do(one.get_token, SCOPE)
    evaluated = family.do(one.get_token, SCOPE, enable_cae=True)
    challenged = family.do(one.get_token, SCOPE, enable_cae=True, claims='{"access_token": {"nbf": {}}}')

    assert "xms_cc" not in claims(plain.token)
    assert claims(evaluated.token)["xms_cc"] == ["CP1"] == claims(challenged.token)["xms_cc"]
    assert family.do(one.get_token, SCOPE, enable_cae=True) == challenged
    assert family.do(one.get_token, SCOPE) == plain
    assert len(entra.requests) == 3


@pytest.mark.parametrize("fault", [Failing(503), Throttled(1), Reset()])
def test_passing_faults_are_overcome(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn, fault: Any
) -> None:
    """The same request is sent again."""
    with entra.fault(fault, times=1):
        assert family.do(credential().get_token, SCOPE)

    assert len(entra.requests) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Html(200), "proxy or portal"),
        (Altered({"access_token": None}), "access_token was wanted"),
        (Altered({"expires_in": "soon"}), "number of seconds"),
    ],
)
def test_lasting_faults_are_told(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn, fault: Any, words: str
) -> None:
    """An answer that is no token becomes one of our errors, with the response."""
    with entra.fault(fault), pytest.raises(ClientAuthenticationError, match=words) as raised:
        family.do(credential().get_token, SCOPE)

    assert raised.value.response.status_code == 200


def test_unknown_client_is_told_what_to_correct(
    family: Family, credential: Callable[..., Any], entra: EntraStandIn
) -> None:
    """A pod's annotations have no place in it: this client was named by the caller."""
    one = credential()
    entra.remove_application(CLIENT_ID, tenant_id=TENANT_ID)

    with pytest.raises(ClientAuthenticationError, match="does not know client") as raised:
        family.do(one.get_token, SCOPE)

    assert "Correct client_id" in str(raised.value)
    assert "annotation" not in str(raised.value)
    assert raised.value.error_codes == [700016]


def test_repr_names_the_client_alone(credential: Callable[..., Any]) -> None:
    """Neither secret nor key."""
    text = repr(credential())

    assert CLIENT_ID in text
    assert TENANT_ID in text
    assert "planted" not in text
    assert "PRIVATE" not in text


@pytest.mark.parametrize(
    "name", ["ClientSecretCredential", "CertificateCredential", "ClientAssertionCredential"]
)
@pytest.mark.parametrize(
    ("ids", "words"),
    [(("", CLIENT_ID), "tenant id"), (("../x", CLIENT_ID), "tenant id"), ((TENANT_ID, ""), "client_id")],
)
def test_ids_are_checked(family: Family, name: str, ids: tuple[str, str], words: str) -> None:
    """At construction, by name."""
    with pytest.raises(ValueError, match=words):
        getattr(family.module, name)(*ids, "something")


def test_region_is_asked(
    family: Family, credential: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, entra: EntraStandIn
) -> None:
    """An explicit region has a host of its own; certificates' assertions are for the global one as ever."""
    monkeypatch.setenv("AZURE_REGIONAL_AUTHORITY_NAME", "westeurope")
    with _Hosts(family, entra) as transport:
        assert family.do(credential(transport=transport, shared_cache=False).get_token, SCOPE)
        monkeypatch.setenv("AZURE_REGIONAL_AUTHORITY_NAME", "TryAutoDetect")
        assert family.do(credential(transport=transport, shared_cache=False).get_token, SCOPE)

    host = entra.authority.removeprefix("https://").partition(":")[0]
    assert transport.asked == [f"westeurope.{host}", host]


class _Hosts:
    """A transport of either family that notes hosts and asks the stand-in, whatever the host."""

    def __init__(self, family: Family, entra: EntraStandIn) -> None:
        import ssl

        trusted = ssl.create_default_context(cafile=str(entra.ca_file))
        self.asked: list[str] = []
        self._entra = httpx.URL(entra.authority)
        self._blocking = httpx.HTTPTransport(verify=trusted)
        self._awaiting = httpx.AsyncHTTPTransport(verify=trusted)
        self._family = family

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._blocking.close()
        if inspect.iscoroutinefunction(self._family.module.ClientSecretCredential.get_token):
            self._family.do(self._awaiting.aclose)

    def _noted(self, request: httpx.Request) -> httpx.Request:
        self.asked.append(request.url.host)
        request.url = request.url.copy_with(host=self._entra.host)
        return request

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, blocking."""
        return self._blocking.handle_request(self._noted(request))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask, awaiting."""
        return await self._awaiting.handle_async_request(self._noted(request))

    def close(self) -> None:
        """Nothing: the test closes it."""

    async def aclose(self) -> None:
        """Nothing: the test closes it."""


def test_region_that_is_none_is_misuse(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would become part of a host's name."""
    monkeypatch.setenv("AZURE_REGIONAL_AUTHORITY_NAME", "evil.example/")

    with pytest.raises(ValueError, match="AZURE_REGIONAL_AUTHORITY_NAME"):
        with_secret(family)


# --- secrets


@pytest.mark.usefixtures("secret")
def test_secret_is_sent_and_nothing_else(family: Family, endpoint: Any) -> None:
    """The form has what the grant needs."""
    family.do(with_secret(family).get_token, SCOPE)

    assert endpoint.forms == [
        {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": SECRET,
            "scope": SCOPE,
        }
    ]


def test_wrong_secret_is_told(family: Family) -> None:
    """The error says how to make one, and the secret is nowhere in it."""
    with pytest.raises(ClientAuthenticationError, match="is none of the secrets of client") as raised:
        family.do(with_secret(family).get_token, SCOPE)

    assert raised.value.error_codes == [7000215]
    assert raised.value.error == "invalid_client"
    assert "planted" not in repr(vars(raised.value)) + raised.value.response.text()


def test_old_secret_is_told(family: Family, entra: EntraStandIn) -> None:
    """Entra has a code of its own for a secret that has run out."""
    entra.add_secret(CLIENT_ID, SECRET, tenant_id=TENANT_ID, lifetime=-1)

    with pytest.raises(ClientAuthenticationError, match="has run out"):
        family.do(with_secret(family).get_token, SCOPE)


@pytest.mark.parametrize("quoted", [SECRET, "planted+secret%2Fwith%2Bodd%2520letters"])
def test_secret_that_an_answer_repeats_is_masked(family: Family, entra: EntraStandIn, quoted: str) -> None:
    """However it is written there."""
    described = {"error": "invalid_client", "error_description": f"Request was: {quoted}"}
    with entra.fault(Altered(described)), pytest.raises(ClientAuthenticationError) as raised:
        family.do(with_secret(family).get_token, SCOPE)

    assert "planted" not in repr(vars(raised.value)) + raised.value.response.text()
    assert "***" in str(raised.value)


@pytest.mark.usefixtures("secret")
def test_two_secrets_do_not_share(family: Family, entra: EntraStandIn) -> None:
    """Who does not know the secret gets no token that it got, held or not."""
    family.do(with_secret(family).get_token, SCOPE)

    wrong = family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, "wrong")
    with pytest.raises(ClientAuthenticationError):
        family.do(wrong.get_token, SCOPE)
    assert len(entra.requests) == 2


def test_missing_secret_is_misuse(family: Family) -> None:
    """At construction."""
    with pytest.raises(ValueError, match="client_secret"):
        family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, "")
    with pytest.raises(ValueError, match="client_secret"):
        family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, None)
    with pytest.raises(ValueError, match="cannot be sent") as raised:
        family.module.ClientSecretCredential(TENANT_ID, CLIENT_ID, "planted\ud800")
    assert raised.value.__cause__ is None


@pytest.mark.usefixtures("secret")
def test_pickled_credentials_work_elsewhere(family: Family) -> None:
    """A copy has the secret and no token."""
    one = with_secret(family)
    token = family.do(one.get_token, SCOPE)

    sent = pickle.dumps(one)

    assert token.token.encode() not in sent
    assert family.do(pickle.loads(sent).get_token, SCOPE)  # noqa: S301 - our own


def test_misspelt_option_warns(family: Family) -> None:
    """With what it may have been meant to be, at the caller's line."""
    with pytest.warns(UserWarning, match="additionally_allowed_tenants") as caught:
        with_secret(family, additionally_allowed_tenant=["*"])

    assert caught[0].filename == __file__


# --- certificates


def certified(family: Family, data: bytes, **given: Any) -> Any:
    """Make a credential with a file's content."""
    return family.module.CertificateCredential(TENANT_ID, CLIENT_ID, certificate_data=data, **given)


FILES: dict[str, Callable[[Issued], tuple[bytes, Any]]] = {
    "pem": lambda issued: (issued.pem(), None),
    "certificate first": lambda issued: (issued.certificate_pem() + issued.key_pem(), None),
    "key of the old form": lambda issued: (
        issued.key_pem(form=PrivateFormat.TraditionalOpenSSL) + issued.certificate_pem(),
        None,
    ),
    "encrypted": lambda issued: (issued.pem(b"open"), "open"),
    "encrypted, old form": lambda issued: (
        issued.key_pem(b"open", PrivateFormat.TraditionalOpenSSL) + issued.certificate_pem(),
        b"open",
    ),
    "with text around": lambda issued: (b"Bag Attributes\n x\n" + issued.pem() + b"the end\n", None),
    "pkcs12": lambda issued: (issued.pkcs12(), None),
    "pkcs12, encrypted": lambda issued: (issued.pkcs12(b"\xc3\xa9"), "\u00e9"),
}


@pytest.mark.parametrize("kind", FILES)
def test_certificate_files_of_all_kinds(
    family: Family, entra: EntraStandIn, issued: Issued, kind: str, tmp_path: Path
) -> None:
    """By path and by content; Entra verifies what is signed with the key."""
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    data, password = FILES[kind](issued)
    (tmp_path / "certificate").write_bytes(data)

    one = certified(family, data, password=password)
    other = family.module.CertificateCredential(
        TENANT_ID, CLIENT_ID, tmp_path / "certificate", password=password
    )

    assert family.do(one.get_token, SCOPE)
    assert family.do(other.get_token, SCOPE)


@pytest.mark.usefixtures("pod")
def test_assertion_is_what_entra_asks_for(family: Family, endpoint: Any, issued: Issued) -> None:
    """PS256 and SHA-256, no padding, ten minutes, a new one for each request."""
    one = certified(family, issued.pem())
    family.do(one.get_token, SCOPE)
    family.do(one.get_token, SCOPE, claims="{}")

    form, second = endpoint.forms
    text = form["client_assertion"]
    header, stated = claims(text, 0), claims(text)
    assert "=" not in text
    assert (header["alg"], header["typ"]) == ("PS256", "JWT")
    assert header.keys() == {"alg", "typ", "x5t#S256"}
    assert stated["aud"] == f"{endpoint.address}/{TENANT_ID}/oauth2/v2.0/token"
    assert stated["iss"] == stated["sub"] == CLIENT_ID
    assert (stated["exp"] - stated["iat"], stated["iat"] - stated["nbf"]) == (600, 300)
    assert claims(second["client_assertion"])["jti"] != stated["jti"]
    assert "client_secret" not in form


def test_adfs_gets_what_it_knows(family: Family, endpoint: Any, issued: Issued) -> None:
    """RS256 and SHA-1, at ADFS' own path; another tenant of a call is not asked."""
    paths = []
    grant = endpoint.answers[0]

    def answer(request: Any) -> Any:
        paths.append(request.path)
        return grant(request)

    endpoint.answers[0] = answer
    one = family.module.CertificateCredential("adfs", CLIENT_ID, certificate_data=issued.pem())
    family.do(one.get_token, SCOPE, tenant_id=OTHER)

    text = endpoint.forms[0]["client_assertion"]
    assert claims(text, 0)["alg"] == "RS256"
    assert claims(text, 0).keys() == {"alg", "typ", "x5t"}
    assert claims(text)["aud"] == f"{endpoint.address}/adfs/oauth2/v2.0/token"
    assert paths == ["/adfs/oauth2/v2.0/token"]


def test_chain_is_trusted_by_name(family: Family, entra: EntraStandIn) -> None:
    """Trust by subject and issuer needs the chain, leaf first; without it the error names the option."""
    root = Issued.of("root")
    leaf = Issued.of("client.example", issuer=Issued.of("between", issuer=root))
    entra.trust_name(CLIENT_ID, "client.example", root.certificate, tenant_id=TENANT_ID)
    mixed = leaf.chain_pem() + leaf.key_pem() + leaf.certificate_pem()

    for data in (leaf.pem(), mixed, leaf.pkcs12()):
        assert family.do(certified(family, data, send_certificate_chain=True).get_token, SCOPE)
    with pytest.raises(ClientAuthenticationError, match="send_certificate_chain"):
        family.do(certified(family, leaf.pem()).get_token, SCOPE)


def test_unregistered_certificate_is_told(family: Family, issued: Issued) -> None:
    """By the thumbprint that the portal shows."""
    from cryptography.hazmat.primitives.hashes import SHA1

    with pytest.raises(ClientAuthenticationError, match="is not registered with client") as raised:
        family.do(certified(family, issued.pem()).get_token, SCOPE)

    assert issued.certificate.fingerprint(SHA1()).hex().upper() in str(raised.value)  # noqa: S303 - a name
    assert raised.value.error_codes == [700027]


def test_replaced_file_is_used(family: Family, entra: EntraStandIn, issued: Issued, tmp_path: Path) -> None:
    """A certificate that is mounted in a pod is replaced: the next request is signed with the new one."""
    file = tmp_path / "certificate.pem"
    file.write_bytes(issued.pem())
    one = family.module.CertificateCredential(TENANT_ID, CLIENT_ID, file)
    newer = Issued.of("newer")
    entra.add_certificate(CLIENT_ID, newer.certificate, tenant_id=TENANT_ID)
    with pytest.raises(ClientAuthenticationError):
        family.do(one.get_token, SCOPE)

    file.write_bytes(newer.pem())

    assert family.do(one.get_token, SCOPE)


@pytest.mark.parametrize("content", [None, b"", b"half a file"])
def test_half_replaced_file_leaves_the_old_one(
    family: Family, entra: EntraStandIn, issued: Issued, tmp_path: Path, content: bytes | None
) -> None:
    """While the file is missing or broken the one from before serves; a refusal then tells of the file."""
    file = tmp_path / "certificate.pem"
    file.write_bytes(issued.pem())
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    one = family.module.CertificateCredential(TENANT_ID, CLIENT_ID, file, shared_cache=False)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)

    assert family.do(one.get_token, SCOPE)
    entra.remove_application(CLIENT_ID, tenant_id=TENANT_ID)
    entra.add_application(CLIENT_ID, tenant_id=TENANT_ID)
    with pytest.raises(ClientAuthenticationError, match=r"certificate\.pem"):
        family.do(one.get_token, SCOPE, claims="{}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda _: {}, "neither"),
        (lambda one: {"certificate_path": "x", "certificate_data": one.pem()}, "both"),
        (lambda _: {"certificate_path": "/nowhere/certificate.pem"}, "/nowhere/certificate.pem"),
        (lambda _: {"certificate_data": b"noise"}, "PEM or PKCS#12"),
        (lambda one: {"certificate_data": one.key_pem()}, "PEM or PKCS#12"),
        (lambda one: {"certificate_data": one.certificate_pem()}, "no private key"),
        (lambda one: {"certificate_data": one.key_pem()}, "no certificate"),
        (lambda one: {"certificate_data": one.pem(b"open")}, "no password is given"),
        (lambda one: {"certificate_data": one.pem(b"open"), "password": "shut"}, "another password"),
        (lambda one: {"certificate_data": one.pem(), "password": "open"}, "not encrypted"),
        (lambda one: {"certificate_data": one.pkcs12(b"open")}, "password may be needed"),
        (lambda one: {"certificate_data": one.pkcs12(b"open"), "password": "shut"}, "another password"),
        (lambda one: {"certificate_data": one.key_pem() + Issued.of("x").certificate_pem()}, "other keys"),
        (lambda _: {"certificate_data": Issued.of("e", key=_curve()).pem()}, "of kind EC"),
        (lambda _: {"certificate_data": "text"}, "bytes were wanted"),
    ],
)
def test_unusable_certificates_are_misuse(
    family: Family, issued: Issued, given: Callable[[Issued], dict[str, Any]], words: str
) -> None:
    """At construction, with what was wanted and what was found."""
    with pytest.raises(ValueError, match=words) as raised:
        family.module.CertificateCredential(TENANT_ID, CLIENT_ID, **given(issued))

    assert "BEGIN" not in str(raised.value)


def _curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def test_pickled_certificates_work_elsewhere(
    family: Family, entra: EntraStandIn, issued: Issued, tmp_path: Path
) -> None:
    """Also where the file is not."""
    entra.add_certificate(CLIENT_ID, issued.certificate, tenant_id=TENANT_ID)
    file = tmp_path / "certificate.pem"
    file.write_bytes(issued.pem(b"open"))
    one = family.module.CertificateCredential(TENANT_ID, CLIENT_ID, file, password="open")

    sent = pickle.dumps(one)
    file.unlink()

    assert family.do(pickle.loads(sent).get_token, SCOPE)  # noqa: S301 - our own


def test_the_other_librarys_name(family: Family) -> None:
    """JavaScript's name is the same class."""
    assert family.module.ClientCertificateCredential is family.module.CertificateCredential


# --- assertions


def test_function_is_called_for_each_request(family: Family, issuer: Issuer, entra: EntraStandIn) -> None:
    """And not when the token is held."""
    calls = []

    def assertion() -> str:
        calls.append(1)
        return issuer.mint()

    one = family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, assertion)
    family.do(one.get_token, SCOPE)
    family.do(one.get_token, SCOPE)
    family.do(one.get_token, SCOPE, claims="{}")

    assert len(calls) == 2 == len(entra.requests)


def test_coroutine_function_is_awaited(family: Family, issuer: Issuer) -> None:
    """In the awaiting family; the blocking one says where to go."""

    async def assertion() -> str:
        return issuer.mint()

    one = family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, assertion)
    if family.module.__name__.endswith("aio"):
        assert family.do(one.get_token, SCOPE)
    else:
        with pytest.raises(ClientAuthenticationError, match=r"workload_identity\.aio"):
            family.do(one.get_token, SCOPE)


def test_failing_function_is_the_cause(family: Family) -> None:
    """Its error is told and chained; one that says "not here" stays what it is."""
    from azure.identity import CredentialUnavailableError as Theirs

    failures = [KeyError("lost"), CredentialUnavailableError("not here"), Theirs(message="not there")]

    def assertion() -> str:
        raise failures[0]

    one = family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, assertion)
    with pytest.raises(ClientAuthenticationError, match="KeyError: 'lost'") as raised:
        family.do(one.get_token, SCOPE)
    assert raised.value.__cause__ is failures[0]
    assert not isinstance(raised.value, CredentialUnavailableError)

    del failures[0]
    with pytest.raises(CredentialUnavailableError, match="not here"):
        family.do(one.get_token, SCOPE)

    del failures[0]
    with pytest.raises(CredentialUnavailableError, match="not there"):
        family.do(one.get_token, SCOPE)


@pytest.mark.parametrize(("returned", "words"), [(None, "NoneType"), ("", "an empty text"), (b"x", "bytes")])
def test_function_must_return_text(family: Family, entra: EntraStandIn, returned: object, words: str) -> None:
    """Nothing else is sent."""
    one = family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, lambda: returned)

    with pytest.raises(ClientAuthenticationError, match=words):
        family.do(one.get_token, SCOPE)
    assert entra.requests == []


def test_assertion_that_nobody_registered_is_told(family: Family, issuer: Issuer) -> None:
    """With its subject and the registered one, and without a word of pods."""
    one = family.module.ClientAssertionCredential(
        TENANT_ID, CLIENT_ID, lambda: issuer.mint(service_account="other")
    )

    with pytest.raises(ClientAuthenticationError, match="The subject differs: the assertion has") as raised:
        family.do(one.get_token, SCOPE)

    assert "system:serviceaccount:default:other" in str(raised.value)
    assert "federated-credential create" in str(raised.value)
    assert "pod" not in str(raised.value)
    assert "annotation" not in str(raised.value)


def test_old_assertion_is_told(family: Family, issuer: Issuer) -> None:
    """With its times."""
    one = family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, lambda: issuer.mint(lifetime=-10))

    with pytest.raises(ClientAuthenticationError, match="Make a new one for each request"):
        family.do(one.get_token, SCOPE)


def test_something_that_is_no_function_is_misuse(family: Family) -> None:
    """At construction."""
    with pytest.raises(ValueError, match="func"):
        family.module.ClientAssertionCredential(TENANT_ID, CLIENT_ID, "an assertion")
