"""Edge: a browser of this machine, and the server to which it brings what the sign-in page says.

Sources: RFC 8252, sections 7.3 and 8.3 (loopback redirects); azure-identity 1.27.0,
`InteractiveBrowserCredential` (ports, the way out of WSL).
"""

from __future__ import annotations

import os
import sys
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from workload_identity.errors import CredentialUnavailableError

_PORTS = range(8400, 9000)
_LONGEST_ANSWER = 1 << 16
"""Bytes; a code is a few thousand."""
_SILENCE = 10
"""Seconds after which a connection that says nothing is dropped: browsers open some ahead of need."""
_LOOK_UP = 0.05
"""Seconds that closing takes at most."""
_FAVICON = "/favicon.ico"
_NO_CONTENT = 204
_ELSEWHERE = "Where no browser can be used, use DeviceCodeCredential."


class Redirects:
    """Takes the browser's answer, on an address of this machine, until it is closed.

    Args:
        place: Host and port; None: the first port of localhost from 8400 on that is free.

    Attributes:
        state: Only an answer with this is ours; set before the page is shown.
    """

    def __init__(self, place: tuple[str, int] | None) -> None:
        self._place = place
        self._server: _Server | None = None
        self._came = Event()
        self._answer: dict[str, str] | None = None
        self._closed = False
        self.state = ""

    def open(self) -> str:
        """Listen, and return the redirect URI: `http://host:port`.

        Raises:
            CredentialUnavailableError: No such address is to be had.
        """
        host, ports = ("localhost", _PORTS) if self._place is None else (self._place[0], (self._place[1],))
        # Whoever else is in this network must not reach what is for this machine alone.
        address = "127.0.0.1" if host == "localhost" else host
        failure: OSError | None = None
        for port in ports:
            try:
                self._server = _Server((address, port), self)
                break
            except OSError as found:
                failure = found
        if self._server is None:
            tried = f"{host}:{ports[0]}" if len(ports) == 1 else f"any port of {host} from 8400 to 8999"
            raise CredentialUnavailableError(
                f"the browser's answer cannot be taken at {tried}: {failure}. Give a redirect_uri whose port"
                f" is free. {_ELSEWHERE}"
            ) from failure
        name = "workload-identity redirects"
        Thread(target=self._server.serve_forever, args=(_LOOK_UP,), name=name, daemon=True).start()
        if self._closed:  # while the address was looked for
            self.close()
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_address[1]}"

    def wait(self, seconds: float) -> dict[str, str] | None:
        """Return the answer's parameters; None: none came, or it is closed."""
        self._came.wait(seconds)
        return self._answer

    def waits_for(self, answer: dict[str, str]) -> bool:
        """Tell whether this is an answer to the page that was shown."""
        ours = bool(self.state) and compare_digest(answer.get("state", "").encode(), self.state.encode())
        return ours and bool(answer.keys() & {"code", "error"})

    def take(self, answer: dict[str, str]) -> None:
        """Take an answer; the first one counts."""
        if self._answer is None:
            self._answer = answer
            self._came.set()

    def close(self) -> None:
        """Stop listening, and wake who waits."""
        self._closed = True
        self._came.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = sys.platform != "win32"  # where that would share a port with another program

    def __init__(self, address: tuple[str, int], redirects: Redirects) -> None:
        self.redirects = redirects
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the network for a name of the address."""
        import socketserver  # noqa: PLC0415 - the base of the base

        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke off: a browser has its reasons."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE

    def do_GET(self) -> None:
        """Take an answer in the query."""
        parts = urlsplit(self.path)
        if parts.path == _FAVICON:
            self._say(_NO_CONTENT, "")
        else:
            self._take(parts.query)

    def do_POST(self) -> None:
        """Take an answer in a form."""
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= _LONGEST_ANSWER:
            self.close_connection = True
            self._say(400, "A sign-in page's answer was wanted here.")
            return
        self._take(self.rfile.read(length).decode("utf-8", "replace"))

    def _take(self, parameters: str) -> None:
        try:
            answer = {name: values[-1] for name, values in parse_qs(parameters, max_num_fields=50).items()}
        except ValueError:
            answer = {}
        if not self.server.redirects.waits_for(answer):
            self._say(400, "This is no answer to the sign-in that is waited for here; it goes on waiting.")
            return
        try:
            if "error" in answer:
                self._say(200, "Sign-in did not succeed; the program says why. You may close this window.")
            else:
                self._say(200, "The program has the answer of the sign-in page. You may close this window.")
        finally:
            # Last, as the program may end then; even if the browser did not stay to read.
            self.server.redirects.take(answer)

    def _say(self, status: int, words: str) -> None:
        body = words.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if status != _NO_CONTENT:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Write nothing: what is asked for has the code in it."""


def check() -> None:
    """Check that there may be a browser.

    Raises:
        CredentialUnavailableError: This is a pod without a display or a terminal.
    """
    shown = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if os.environ.get("KUBERNETES_SERVICE_HOST") and not shown and not _at_terminal():
        raise CredentialUnavailableError(f"a pod has no browser to sign in with. {_ELSEWHERE}")


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def show(page: str) -> None:
    """Show a page in the browser that `webbrowser` finds, or Windows' from within its Linux.

    Raises:
        CredentialUnavailableError: None is found.
    """
    import webbrowser  # noqa: PLC0415 - not to be imported before one is needed

    if not webbrowser.open(page) and not _shown_by_windows(page):
        raise CredentialUnavailableError(f"no browser could be opened on this machine. {_ELSEWHERE}")


def _shown_by_windows(page: str) -> bool:
    import platform  # noqa: PLC0415 - as above
    import subprocess  # noqa: PLC0415

    if sys.platform != "linux" or "microsoft" not in platform.uname().release.lower():
        return False
    command = ["powershell.exe", "-NoProfile", "-Command", f'Start-Process "{page}"']
    try:
        return subprocess.run(command, timeout=5, check=False).returncode == 0  # noqa: S603 - Windows' own program
    except (OSError, subprocess.SubprocessError):
        return False
