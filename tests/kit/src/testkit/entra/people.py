"""People who can sign in: who they are, what they do when they are asked to, and the codes they are given.

A test says who sits before the browser, and who enters a device's code where; nobody else ever signs in.
"""

import base64
import hashlib
import secrets
import threading
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import unescape

from testkit.entra.errors import RequestRefused
from testkit.entra.users import User

DEVELOPER_SIGN_ON = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
"""Microsoft's application for developers; it has refresh tokens for its whole family."""
FAMILY = "1"
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ23456789"


@dataclass(frozen=True, slots=True)
class Account:
    """A user who can sign in.

    Attributes:
        second_factor: The password alone will not do.
        federated: Another service checks the password, see `pages`.
    """

    user: User
    password: str
    second_factor: bool = False
    federated: bool = False


@dataclass(slots=True)
class DeviceSignIn:
    """A sign-in that was begun on a device.

    Attributes:
        until: When its code ends, in seconds since the epoch.
        user: Who entered the code; None: nobody yet.
        declined: Somebody entered it and said no.
    """

    client_id: str
    scope: str
    user_code: str
    until: float
    user: User | None = None
    declined: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sign-in page was asked with, as far as the code's redemption has to fit it."""

    challenge: str
    nonce: str


class People:
    """Accounts, and the sign-ins that are going on.

    Attributes:
        present: Who sits before the browser, by name; None: nobody. Whoever it is says yes.
        refuses: They say no.
        device_code_life: Seconds that a device's code is good.
        interval: Seconds between two questions of a device.
        forgets: It does not remember what its page was asked with, as somebody else's would not.
    """

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._devices: dict[str, DeviceSignIn] = {}
        self._every_device_code: list[str] = []
        self._pages: dict[str, Asked] = {}
        self.present: str | None = None
        self.refuses = False
        self.forgets = False
        self.device_code_life = 900
        self.interval = 1

    def add(self, account: Account) -> None:
        """Add a user, or change one."""
        self._accounts[account.user.name.lower()] = account

    def account(self, name: str) -> Account | None:
        """Return the account of that name."""
        return self._accounts.get(name.lower())

    def signed_in(self, username: str, password: str) -> User:
        """Return the user of this name and password; RequestRefused tells why there is none."""
        account = self.account(username)
        if account is None:
            raise RequestRefused(50034, username=username)
        if not secrets.compare_digest(account.password.encode(), password.encode()):
            raise RequestRefused(50126)
        if account.second_factor:
            raise RequestRefused(50076)
        return account.user

    def begin_device(self, client_id: str, scope: str, now: float) -> tuple[str, DeviceSignIn]:
        """Return a new device code, and the sign-in that it stands for."""
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(9))
        device_code = f"D{secrets.token_urlsafe(40)}"
        begun = DeviceSignIn(client_id.lower(), scope, user_code, now + self.device_code_life)
        with self._changing:
            self._devices[device_code] = begun
            self._every_device_code.append(device_code)
        return device_code, begun

    def enter(self, user_code: str, name: str, *, decline: bool = False) -> None:
        """Let a user enter a device's code.

        Raises:
            LookupError: There is no such code, or no such user.
        """
        account = self._accounts[name.lower()]
        with self._changing:
            for begun in self._devices.values():
                if begun.user_code == user_code:
                    begun.user, begun.declined = account.user, decline
                    return
        raise LookupError(f"no device shows the code {user_code}")

    def device(self, device_code: str, client_id: str, now: float) -> tuple[str, User]:
        """Return what a device's code is for and who entered it, once; RequestRefused: why nobody did."""
        with self._changing:
            user = self._entered(device_code, client_id, now)
            return self._devices.pop(device_code).scope, user

    def waiting(self, device_code: str, client_id: str, now: float) -> User:
        """Return who entered a device's code; RequestRefused tells why nobody did."""
        with self._changing:
            return self._entered(device_code, client_id, now)

    def _entered(self, device_code: str, client_id: str, now: float) -> User:
        begun = self._devices.get(device_code)
        if begun is None or begun.client_id != client_id.lower():
            raise RequestRefused(70000, name="device_code")
        if begun.declined:
            raise RequestRefused(65004)
        if now >= begun.until:
            raise RequestRefused(70019)
        if begun.user is None:
            raise RequestRefused(70016)
        return begun.user

    def shown(self, code: str, asked: Asked) -> None:
        """Remember what the page was asked with that gave a code."""
        if not self.forgets:
            self._pages[code] = asked

    def check_redemption(self, code: str, verifier: str) -> dict[str, Any]:
        """Check that who redeems a page's code is who asked for it, and return claims for the id token."""
        asked = self._pages.get(code)
        if asked is None:
            return {}  # a test made the code, without a page
        digest = hashlib.sha256(verifier.encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked.challenge:
            raise RequestRefused(501481)
        return {"nonce": asked.nonce} if asked.nonce else {}


def saml_user(assertion: str) -> str:
    """Return the name that a federation's assertion states; "" for anything else."""
    try:
        text = base64.urlsafe_b64decode(assertion + "=" * (-len(assertion) % 4)).decode()
    except ValueError:
        return ""
    return unescape(text.partition("NameIdentifier>")[2].partition("<")[0])
