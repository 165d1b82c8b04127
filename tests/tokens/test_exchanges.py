"""HTTP/1.1 of a plain request: what is sent, and how any answer is read, however it comes in pieces."""

import gzip
import zlib
from collections.abc import Iterable

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workload_identity.exchange import (
    Address,
    Answer,
    Broken,
    TooLong,
    address_of,
    answer,
    request_bytes,
)

LARGEST = 1 << 16


def read(pieces: Iterable[bytes], method: str = "POST", largest: int = LARGEST) -> Answer:
    """Read an answer that comes in these pieces, and then the connection's end."""
    reading = answer(method, largest)
    next(reading)
    try:
        for piece in pieces:
            reading.send(piece)
        while True:
            reading.send(b"")
    except StopIteration as done:
        result: Answer = done.value
        return result


def whole(head: str, body: bytes = b"") -> bytes:
    """Return an answer's bytes."""
    return head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a/b?c=d/e", Address(True, "host", "host", 443, "/a/b?c=d/e")),
        ("https://host:443/", Address(True, "host", "host", 443, "/")),
        ("https://host:8443", Address(True, "host:8443", "host", 8443, "/")),
        ("http://169.254.169.254/m", Address(False, "169.254.169.254", "169.254.169.254", 80, "/m")),
        ("http://localhost:80?a=/b", Address(False, "localhost", "localhost", 80, "/?a=/b")),
        ("https://[::1]:8443/x#part", Address(True, "[::1]:8443", "::1", 8443, "/x")),
        ("https://[fe80::1]/x", Address(True, "[fe80::1]", "fe80::1", 443, "/x")),
    ],
)
def test_addresses(url: str, expected: Address) -> None:
    """Host, port and target of a URL."""
    assert address_of(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "https://",
        "https:///path",
        "https://user@host/",
        "https://höst/",
        "https://host/with space",
        "https://host/\r\nX: y",
        "https://host:port/",
        "https://host:99999/",
        "https://a:b:c/",
        "host/path",
    ],
)
def test_addresses_for_httpx(url: str) -> None:
    """What is not plain is not guessed at."""
    assert address_of(url) is None


def test_request() -> None:
    """A request as a server reads it; the caller's headers win, whatever their case."""
    address = Address(True, "host:8443", "host", 8443, "/t?a=b")
    sent = request_bytes(
        "POST", address, {"accept": "application/json", "X-Own": "v"}, {"a b": "c&d", "é": "ö"}
    )

    assert sent is not None
    server = h11.Connection(h11.SERVER)
    server.receive_data(sent)
    request, data = server.next_event(), server.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(data, h11.Data)
    assert request.method == b"POST"
    assert request.target == b"/t?a=b"
    assert dict(request.headers) == {
        b"host": b"host:8443",
        b"accept": b"application/json",
        b"accept-encoding": b"identity",
        b"connection": b"close",
        b"content-type": b"application/x-www-form-urlencoded",
        b"content-length": b"23",
        b"x-own": b"v",
    }
    assert bytes(data.data) == b"a+b=c%26d&%C3%A9=%C3%B6"


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\n", "a"), ("", "a"), ("X", "ö"), ("X Y", "a")])
def test_headers_for_httpx(header: tuple[str, str]) -> None:
    """A header that could become two is not sent from here."""
    assert request_bytes("GET", Address(False, "h", "h", 80, "/"), dict([header]), None) is None


BODY = b'{"access_token": "x"}' * 20
ANSWERS = {
    "length": whole(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}\nA: 1\nA: 2", BODY),
    "to its end": whole("HTTP/1.0 200 OK\nA: 1\nA: 2", BODY),
    "chunked": whole(
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nA: 1\nA: 2",
        b"5;x=y\r\n"
        + BODY[:5]
        + b"\r\n"
        + f"{len(BODY) - 5:X}".encode()
        + b"\r\n"
        + BODY[5:]
        + b"\r\n0\r\nT: u\r\n\r\n",
    ),
    "after interim ones": whole("HTTP/1.1 100 Continue")
    + whole("HTTP/1.1 103 Early Hints\nLink: x")
    + whole(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}\nA: 1,\n 2", BODY),
    "gzip": whole("HTTP/1.1 200 OK\nContent-Encoding: gzip\nA: 1\nA: 2", gzip.compress(BODY)),
    "deflate": whole("HTTP/1.1 200 OK\nContent-Encoding: deflate\nA: 1\nA: 2", zlib.compress(BODY)),
    "bare deflate": whole(
        "HTTP/1.1 200 OK\nContent-Encoding: deflate\nA: 1\nA: 2", zlib.compress(BODY, wbits=-15)
    ),
    "bare line ends": b"HTTP/1.1 200 OK\nA: 1\nA: 2\n\n" + BODY,
}


@pytest.mark.parametrize("name", ANSWERS)
@given(data=st.data())
def test_answers_in_any_pieces(name: str, data: st.DataObject) -> None:
    """Wherever the network cuts it, the answer is the same."""
    content = ANSWERS[name]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=12)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]

    found = read(pieces)

    assert (found.status, found.reason, found.body) == (200, "OK", BODY)
    assert found.headers["a"] == "1, 2"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_body(status: int) -> None:
    """They end with their headers, whatever those announce."""
    assert read([whole(f"HTTP/1.1 {status} x\nContent-Length: 5")]).body == b""
    assert read([whole("HTTP/1.1 200 OK\nContent-Length: 5")], method="HEAD").body == b""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: 1\r\n",
        whole("HTTP/1.1 101 Switching"),
        whole("HTTP/1.1 200 OK\nContent-Length: 5", b"1234"),
        whole("HTTP/1.1 200 OK\nContent-Length: -5", b"1234"),
        whole("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 4", b"12345"),
        whole("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n"),
        whole("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"2\r\nabc\r\n0\r\n\r\n"),
        whole("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"2\r\nab\r\n"),
        whole("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked", b"2\r\nab\r\n0\r\n\r\n"),
        whole("HTTP/1.1 200 OK\nContent-Encoding: gzip", b"no gzip"),
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000,
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 200_000,
    ],
)
def test_broken_answers(content: bytes) -> None:
    """They are told, and end."""
    with pytest.raises(Broken) as raised:
        read([content])

    assert str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        whole("HTTP/1.1 200 OK\nContent-Length: 999999999999"),
        whole("HTTP/1.1 200 OK", b"x" * (LARGEST + 1)),
        whole("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"8000\r\n" + b"x" * 0x8000 + b"\r\n8001\r\n"),
        whole("HTTP/1.1 200 OK\nContent-Encoding: gzip", gzip.compress(b"x" * (LARGEST + 1))),
    ],
)
def test_endless_answers(content: bytes) -> None:
    """No more than the limit is kept, decompressed or not."""
    with pytest.raises(TooLong):
        read([content])


@given(st.binary(max_size=400), st.sampled_from(sorted(ANSWERS)), st.integers(0, 200), st.binary(max_size=6))
def test_any_bytes(rubbish: bytes, name: str, place: int, put: bytes) -> None:
    """Whatever comes, it is an answer or Broken."""
    known = ANSWERS[name]
    for content in (rubbish, known[:place] + put + known[place + len(put) :]):
        try:
            found = read([content])
        except Broken:
            continue
        assert 200 <= found.status <= 999
