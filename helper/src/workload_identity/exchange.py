"""HTTP/1.1 for one plain request: its bytes, and how its answer is read. No I/O.

A token is asked for about once an hour, in many programs once. Importing httpx costs several times what all
the rest of that takes, so a request that needs nothing of it goes over a bare connection of its own.

Source: RFC 9112, sections 3 to 7.
"""

from __future__ import annotations

from workload_identity.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from typing import TypeAlias, TypeVar

    T = TypeVar("T")

Reading: TypeAlias = "Generator[None, bytes, T]"
"""Is sent what a connection brings, piece by piece, and nothing at its end; returns what was read."""

_PORTS = {"http": 80, "https": 443}
_LONGEST_HEAD = 1 << 16
"""Bytes of one line, and of all headers."""
_LONGEST_SIZE = 16
"""Digits of a length."""
_LAST_INTERIM = 199
_WITHOUT_BODY = frozenset({204, 304})
_SWITCHING = 101
_GZIP_OR_ZLIB = 47
_BARE_DEFLATE = -15


class Broken(Exception):  # noqa: N818 - what it says about an answer
    """What came is no answer; the message says what is wrong with it."""


class TooLong(Broken):
    """The answer is longer than it may be."""


class Address(Value):
    """Where a request goes.

    Attributes:
        secure: Over TLS.
        place: The host and, unless it is the scheme's own, the port, as in the URL.
        host: Without brackets.
        port: TCP's.
        target: The path and the query.
    """

    secure: bool
    place: str
    host: str
    port: int
    target: str


class Answer(Value):
    """What was read.

    Attributes:
        headers: Names in lower case; several of one name are joined by commas.
        body: Decompressed.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def address_of(url: str) -> Address | None:
    """Return where a URL leads; None for one that takes more than this to read."""
    scheme, _, rest = url.partition("#")[0].partition("://")
    if not url.isascii() or not url.isprintable() or " " in url or scheme not in _PORTS:
        return None
    place, slash, target = rest.partition("/")
    place, mark, query = place.partition("?")
    target = f"/?{query}" if mark else f"/{target}"
    if mark and slash:  # a slash within the query
        target = "/?" + rest.partition("?")[2]
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, port = place, str(_PORTS[scheme])
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not host or "@" in host or "\\" in host or not port.isdecimal() or int(port) > 0xFFFF:  # noqa: PLR2004 - TCP's last
        return None
    if int(port) == _PORTS[scheme]:
        place = place.removesuffix(f":{port}") if colon and not place.endswith("]") else place
    return Address(scheme == "https", place, host, int(port), target)


def request_bytes(
    method: str, address: Address, headers: Mapping[str, str], form: Mapping[str, str] | str | None
) -> bytes | None:
    """Return a request, the only one of its connection; None if it has a header that takes more than this."""
    body = b""
    fields = {"Host": address.place, "Accept": "*/*", "Accept-Encoding": "identity", "Connection": "close"}
    if isinstance(form, str):
        body = form.encode()
    elif form is not None:
        from urllib.parse import urlencode  # noqa: PLC0415 - not every request has a form

        body = urlencode(form).encode("ascii")
        fields["Content-Type"] = "application/x-www-form-urlencoded"
    if form is not None or method not in {"GET", "HEAD"}:
        fields["Content-Length"] = str(len(body))
    known = {name.lower(): name for name in fields}
    for name, value in headers.items():
        fields.pop(known.get(name.lower(), name), None)
        fields[name] = value
    head = f"{method} {address.target} HTTP/1.1\r\n"
    for name, value in fields.items():
        line = f"{name}: {value}"
        if (
            not line.isascii()
            or not line.isprintable()
            or not name.replace("-", "").replace("_", "").isalnum()
        ):
            return None
        head += f"{line}\r\n"
    return f"{head}\r\n".encode("ascii") + body


def answer(method: str, largest: int) -> Reading[Answer]:
    """Read an answer.

    Args:
        method: Of the request.
        largest: Bytes that a body may have.

    Raises:
        Broken: What comes is no answer, or ends too early.
    """
    incoming = _Incoming()
    while True:
        status, reason, headers = yield from incoming.head()
        if status > _LAST_INTERIM:
            break
        if status == _SWITCHING:
            raise Broken("it answers in another protocol, which nobody asked for")
    body = b""
    if method != "HEAD" and status not in _WITHOUT_BODY:
        body = yield from incoming.body(headers, largest)
    return Answer(status, reason, headers, _decompressed(body, headers, largest))


class _Incoming:
    """What has come and was not read yet."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._ended = False

    def head(self) -> Reading[tuple[int, str, dict[str, str]]]:
        """Read a status line and headers."""
        line = yield from self._line()
        version, _, rest = line.partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or len(code) != len("200") or not code.isdecimal():
            raise Broken("the answer is not in HTTP/1.1")
        headers: dict[str, str] = {}
        name, length = "", 0
        while line := (yield from self._line()):
            length += len(line)
            if length > _LONGEST_HEAD:
                raise Broken("its headers do not end")
            if line[0] in " \t" and name:  # a folded line goes on
                headers[name] = f"{headers[name]} {line.strip()}"
                continue
            name, colon, value = line.partition(":")
            name = name.lower()
            if not colon or not name or name.strip() != name:
                raise Broken("a header was wanted, found something else")
            headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
        return int(code), reason.strip(), headers

    def body(self, headers: Mapping[str, str], largest: int) -> Reading[bytes]:
        """Read what the headers announce."""
        coding = headers.get("transfer-encoding", "").lower()
        if coding == "chunked":
            return (yield from self._chunks(largest))
        if coding and coding != "identity":
            raise Broken(f"its transfer encoding is unknown: {coding[:40]}")
        sizes = {size.strip() for size in headers.get("content-length", "").split(",")} - {""}
        if not sizes:
            return (yield from self._rest(largest))
        if len(sizes) > 1:
            raise Broken("it has two lengths")
        return (yield from self._exactly(_size(sizes.pop(), 10), largest))

    def _chunks(self, largest: int) -> Reading[bytes]:
        body = bytearray()
        while size := _size((yield from self._line()).partition(";")[0].strip(), 16):
            body += yield from self._exactly(size, largest - len(body))
            if (yield from self._line()):
                raise Broken("a chunk is longer than it says")
        while (yield from self._line()):  # trailers
            pass
        return bytes(body)

    def _line(self) -> Reading[str]:
        while (end := self._bytes.find(b"\n")) < 0:
            if len(self._bytes) > _LONGEST_HEAD:
                raise Broken("its headers do not end")
            if self._ended:
                raise Broken("the connection was closed before the answer was whole")
            yield from self._more()
        line = bytes(self._bytes[:end])
        del self._bytes[: end + 1]
        return line.removesuffix(b"\r").decode("latin-1")

    def _exactly(self, size: int, largest: int) -> Reading[bytes]:
        if size > largest:
            raise TooLong
        while len(self._bytes) < size:
            if self._ended:
                raise Broken("the connection was closed before the answer was whole")
            yield from self._more()
        piece = bytes(self._bytes[:size])
        del self._bytes[:size]
        return piece

    def _rest(self, largest: int) -> Reading[bytes]:
        while not self._ended:
            if len(self._bytes) > largest:
                raise TooLong
            yield from self._more()
        if len(self._bytes) > largest:
            raise TooLong
        return bytes(self._bytes)

    def _more(self) -> Reading[None]:
        piece = yield
        self._bytes += piece
        self._ended = not piece


def _size(text: str, base: int) -> int:
    if not text.isalnum() or not text.isascii() or len(text) > _LONGEST_SIZE:
        raise Broken("a length was wanted, found something else")
    try:
        return int(text, base)
    except ValueError:
        raise Broken("a length was wanted, found something else") from None


def _decompressed(body: bytes, headers: Mapping[str, str], largest: int) -> bytes:
    """Return a body without what a server compressed unasked; one in an unknown way stays as it is."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in {"gzip", "x-gzip", "deflate"} or not body:
        return body
    import zlib  # noqa: PLC0415 - we do not ask for it

    for window in (_GZIP_OR_ZLIB, _BARE_DEFLATE):
        try:
            plain = zlib.decompressobj(window).decompress(body, largest + 1)
        except zlib.error:
            continue
        if len(plain) > largest:
            raise TooLong
        return plain
    raise Broken(f"it says {coding} and is not")
