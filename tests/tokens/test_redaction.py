"""What is masked before anybody sees it."""

import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workload_identity.redaction import excerpt, redacted

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJzb21lYm9keSJ9.c2lnbmF0dXJl-_"
NAMES = [
    "access_token",
    "accessToken",
    "refresh_token",
    "id_token",
    "token",
    "client_secret",
    "client_assertion",
    "assertion",
    "password",
    "code",
    "device_code",
    "oidcToken",
    "Authorization",
    "secret",
    "Secret",
    "X-IDENTITY-HEADER",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "form",
    [
        '{{"{name}": "planted"}}',
        '{{"{name}":"planted"}}',
        '{{ "{name}" \n : \t "planted" , "other": 1}}',
        "{{'{name}': 'planted'}}",
        '{{"{name}": "plan\\"planted',
        '{{"{name}": planted}}',
        '{{\\"{name}\\": \\"planted\\"}}',
        "a=b&{name}=planted&c=d",
    ],
)
def test_values_of_secret_names_are_masked(name: str, form: str) -> None:
    """Whatever the notation, and also when it was cut."""
    text = redacted(form.format(name=name))

    assert "planted" not in text
    assert "***" in text


@pytest.mark.parametrize(
    "header", ["Authorization: Bearer planted", "Secret: planted", "X-IDENTITY-HEADER:planted"]
)
def test_headers_are_masked(header: str) -> None:
    """The scheme of a header's value goes with it."""
    assert "planted" not in redacted(f"GET /\n{header}\nHost: x")


@pytest.mark.parametrize(
    "text", [JWT, f"x{JWT}y", f"'{JWT}'", JWT[:40], JWT[:70], f"token_{JWT}", f"<b>{JWT}</b>"]
)
def test_whatever_looks_like_a_jwt_is_masked(text: str) -> None:
    """Also in the middle of a word, and when it was cut."""
    assert "eyJ" not in redacted(text)


def test_known_secrets_are_masked_in_any_place() -> None:
    """A secret without a name or a shape is masked when the caller knows it."""
    assert redacted("a planted b", "planted", "") == "a *** b"


@pytest.mark.parametrize(
    "text",
    [
        "AADSTS70021: No matching record. Trace ID: 1-2-3 Correlation ID: 4-5-6",
        "the token file '/var/run/secrets/azure/tokens/azure-identity-token' cannot be read",
        "Is the code right? The secret is out.",
        '{"error": "invalid_client", "error_codes": [70021]}',
        "two\nlines\tand a tab",
    ],
)
def test_other_text_stays(text: str) -> None:
    """A message keeps its words."""
    assert redacted(text) == text


def test_letters_that_no_terminal_should_get_are_replaced() -> None:
    """Escape sequences, lone surrogates and other controls do not reach a log."""
    assert redacted("a\x1b[31mb\ud800c\x00d\re") == "a�[31mb�c�d�e"


def test_excerpt_of_a_page() -> None:
    """Markup goes, and what markup held apart is looked at once more."""
    assert excerpt("<p>Hello <b>you</b></p><!-- x --><script>var a</script>") == "Hello you"
    assert "eyJ" not in excerpt(f"<p>{JWT}</p>")
    assert excerpt("<p never ends") == ""
    assert len(excerpt("word " * 1000)) == 200


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), st.just("planted-secret"), min_size=1), st.integers(0, 400))
def test_cut_json_never_shows_a_secret(body: dict[str, str], cut: int) -> None:
    """Wherever an answer ends, no secret of it is shown whole."""
    assert "planted-secret" not in redacted(json.dumps(body)[:cut])


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_can_be_shown(text: str) -> None:
    """What comes out can be encoded and printed."""
    excerpt(text).encode()
    redacted(text).encode()


@given(
    st.text("ab\\/\"'<&+ %é\n\r\t\b\f\N{GRINNING FACE}", min_size=1, max_size=6),
    st.sampled_from(["", "\\", "\\\\", "u", "%"]),
    st.sampled_from(["", "\\", "/"]),
)
def test_known_secret_is_masked_in_any_notation(secret: str, before: str, after: str) -> None:
    """As it is, and as JSON, JSON in JSON, URLs, forms and HTML write it, whatever stands beside it."""
    once = json.dumps(secret)[1:-1]
    notations = [
        secret,
        once,
        once.replace("/", "\\/"),
        json.dumps(once)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, safe=""),
        quote(quote(secret, safe="")),
        quote_plus(secret),
        html.escape(secret),
        secret.strip(),
    ]
    for text in notations:
        shown = redacted(f"<{before}{text}{after}>", secret)
        assert ("***" in shown) is bool(secret.strip())
        assert secret not in shown or not secret.strip()


@pytest.mark.parametrize("secret", ["a/b", "/x", "\\/x", r"\\\\\y", r"x\\\y", r"a\/b", "x"])
@pytest.mark.parametrize("before", ["", '"token', '"token": \\"', "x"])
def test_backslashes_without_end(before: str, secret: str) -> None:
    """An answer of a million of them is looked through in one go: the square of that would take hours."""
    text = before + "\\" * 1_000_000

    assert len(redacted(text, secret)) <= len(text) + 10


def test_json_stays_json() -> None:
    """Also where a text in it is JSON with a secret, as a refusal with a claims challenge has it."""
    inner = json.dumps({"access_token": {"a": {"b": "planted"}}, "c": [1]})
    twice = json.dumps({"claims": inner})
    for text in ({"token": "planted"}, {"claims": inner, "password": 7}, {"claims": twice}):
        shown = redacted(json.dumps(text))

        assert json.loads(shown).keys() == text.keys()
        assert "planted" not in shown
