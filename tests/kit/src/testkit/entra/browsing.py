"""A browser with a person before it: opens a page of the stand-in and brings its answer back."""

import ssl
import threading
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx


class Person(webbrowser.BaseBrowser):
    """A browser for Python's `webbrowser`; it does what it does in the background, as browsers do.

    Attributes:
        pages: The addresses it was to open.
        answers: What the program's own page said, status and text.
        gets: It brings answers in the query instead of a form.
    """

    def __init__(self, ca_file: Path) -> None:
        super().__init__()
        self._trusted = ssl.create_default_context(cafile=str(ca_file))
        self._threads: list[threading.Thread] = []
        self.pages: list[str] = []
        self.answers: list[tuple[int, str]] = []
        self.gets = False

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:  # noqa: ARG002 - webbrowser's signature
        """Open a page."""
        thread = threading.Thread(target=self._browse, args=(url,))
        thread.start()
        self._threads.append(thread)
        self.pages.append(url)
        return True

    def _browse(self, url: str) -> None:
        with httpx.Client(verify=self._trusted) as client:
            url = url.replace("response_mode=form_post", "response_mode=query") if self.gets else url
            shown = client.get(url)
            form = _Form()
            form.feed(shown.text)
            if shown.has_redirect_location:
                back = client.get(shown.headers["Location"])
            elif form.action:
                back = client.post(form.action, data=form.members)
            else:
                return
            self.answers.append((back.status_code, back.text))

    def leave(self) -> None:
        """Wait for what is still going on."""
        for thread in self._threads:
            thread.join()


class _Form(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.members: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        """Read the form and its members."""
        found = dict(attrs)
        if tag == "form":
            self.action = found["action"]
        elif tag == "input":
            self.members[found["name"]] = found["value"]
