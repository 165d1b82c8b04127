"""Make text fit to be shown: in an error, a log record, a `repr`.

Secrets are found by the name they stand under (JSON, a form, a header) and by their shape (a JWT), also when
the text was cut in the middle of one.
"""

from __future__ import annotations

import re

MASK = "***"
_SHOWN = 200
"""Letters of a foreign document that a message quotes."""
_LOOKED_AT = 20_000
"""Letters among which those are looked for."""

_NAMES = (
    "access_token|accessToken|refresh_token|id_token|token|client_secret|client_assertion|assertion|password|code"
    "|device_code|oidcToken|Authorization|secret|X-IDENTITY-HEADER"
)
_NESTED = r"[\[{][^\]}]*[\]}]?"
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
_ESCAPED = r"\\+\"(?:[^\"\\]|\\+[^\"\\])*(?:\\+\")?"
_IN_JSON = re.compile(
    rf"(((?<!\\)\\+\"|[\"'])(?:{_NAMES})(?:\\+\"|[\"'])\s*:\s*)(?:{_ESCAPED}|{_QUOTED}|{_NESTED}|[^\s,}}\]]+)",
    re.IGNORECASE,
)
_IN_FORM = re.compile(rf"\b((?:{_NAMES})=)[^\s&\"'<>]+", re.IGNORECASE)
_IN_HEADER = re.compile(
    r"\b((?:Authorization|Secret|X-IDENTITY-HEADER):[ \t]*)\S+(?:[ \t]+\S+)?", re.IGNORECASE
)
# A claims challenge in Base64 begins like a token; it is no secret, and a person must have it to sign in.
_CHALLENGE = "hY2Nlc3NfdG9rZW4iOns|hY2Nlc3NfdG9rZW4iOiB7"
_JWT = re.compile(rf"eyJ(?!{_CHALLENGE})[A-Za-z0-9_-]{{8,}}(?:\.[A-Za-z0-9_-]*)*")
_UNSHOWABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z0-9._~-]*")
"""Letters that all notations write alike."""
_SHORT = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
"""What JSON writes behind a backslash for letters that a file with a secret may end with."""
_ENTITIES = {"<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_MARKUP = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL
)


def redacted(text: str, *secrets: str) -> str:
    """Return the text with a mask for each secret, and without letters that no terminal or log should get.

    Args:
        text: Anything that may hold a secret.
        secrets: Secrets known to the caller, whatever their shape and the notation the text has them in.
    """
    # Who answers may leave out a line end that a file with a secret ends with.
    for secret in (secret.strip() for secret in secrets):
        if not _PLAIN.fullmatch(secret):
            text = re.sub(_notations(secret), MASK, text)
        elif secret:
            text = text.replace(secret, MASK)
    # Quoted as the name is: JSON in a text of JSON stays one.
    text = _IN_JSON.sub(rf"\1\2{MASK}\2", text)
    text = _IN_FORM.sub(rf"\1{MASK}", text)
    text = _IN_HEADER.sub(rf"\1{MASK}", text)
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", _JWT.sub(MASK, text))


def _notations(secret: str) -> str:
    """Return a pattern for a secret as it is, and as URLs, forms, JSON (in JSON, too) and HTML write it.

    No more than one repetition in it can take the same backslashes: a text of nothing else would keep us for
    the square of its length.
    """
    pattern, before = "", r"(?<!\\)\\*"
    for piece in re.findall(r"\\+|[^\\]", secret):
        if _PLAIN.fullmatch(piece):
            pattern += re.escape(piece)
            before = r"\\*"
        elif piece.startswith("\\"):
            pattern += ("" if pattern else r"(?<!\\)") + f"{_unescaped(piece[0])}+"
            before = ""  # they are taken
        else:
            pattern += before + _unescaped(piece)
            before = r"\\*"
    return pattern


def _unescaped(letter: str) -> str:
    """Return such a pattern for one letter, without the backslashes that may escape it."""
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    code = r"\\+".join(f"u{units[at : at + 4]}" for at in range(0, len(units), 4))
    octets = "".join(f"%(?:25)*{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
    number = ord(letter)
    short = rf"(?<=\\){_SHORT[letter]}" if letter in _SHORT else ""
    entity = f"&(?:#0*{number}|#x0*{number:x}|{_ENTITIES.get(letter, 'amp')});"
    several = [re.escape(letter), code, octets, entity, *([r"\+"] if letter == " " else [])]
    several += [short] if short else []
    return f"(?i:{'|'.join(several)})"


def excerpt(document: str, *secrets: str) -> str:
    """Return the beginning of a foreign document, at most 200 letters, without markup and without secrets."""
    plain = " ".join(_MARKUP.sub(" ", redacted(document[:_LOOKED_AT], *secrets)).split())
    plain = redacted(plain, *secrets)  # what markup held apart
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"
