"""The flows of user credentials: silently while that can be, else with the person.

MSAL does the protocol (see `msal_applications`); here is what happens in which order, and when a person is
waited for no longer. While a person is waited for no thread is kept that could not be woken: a flow that is
cancelled ends.

Sources: azure-identity 1.27.0, `InteractiveCredential`, `DeviceCodeCredential`,
`InteractiveBrowserCredential`; RFC 8628, section 3.5; RFC 8252, section 7.3.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from workload_identity.context import IN_DEFAULT_CHAIN
from workload_identity.errors import (
    AuthenticationRequiredError,
    ClientAuthenticationError,
    CredentialUnavailableError,
)
from workload_identity.steps import Block, Call, Lend, Wait, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeAlias

    from workload_identity.authentication_record import AuthenticationRecord
    from workload_identity.browser import Redirects
    from workload_identity.msal_applications import Begun, SignedIn, Visit
    from workload_identity.steps import Flow, Perform

    Prompt: TypeAlias = Callable[[str, str, datetime], object]

    class Browser(Protocol):
        """What is asked of a browser."""

        def check(self) -> None:
            """Check that there may be one."""

        def show(self, page: str) -> None:
            """Show a page."""


def silently(visit: Visit, record: AuthenticationRecord | None, *, renew: bool) -> Flow[SignedIn]:
    """Get a token without the person.

    Args:
        visit: What is wanted.
        record: Whose; None: nobody has signed in yet.
        renew: Whether only a new token will do.

    Raises:
        AuthenticationRequiredError: A person must sign in.
        ClientAuthenticationError: The service cannot answer now.
    """
    refusal: ClientAuthenticationError | None = None
    if record is not None:
        found: Any = yield in_msal("silently", visit, record, renew=renew)
        if found is not None and not isinstance(found, ClientAuthenticationError):
            signed_in: SignedIn = found
            return signed_in
        refusal = found
    raise required(visit, refusal)


def required(visit: Visit, refusal: ClientAuthenticationError | None) -> AuthenticationRequiredError:
    """Return what says that a person must sign in, and why."""
    why = f" What an earlier sign-in left will not do: {refusal}" if refusal is not None else ""
    fields = {name: getattr(refusal, name) for name in _CARRIED} if refusal is not None else {}
    return AuthenticationRequiredError(
        visit.scopes,
        "A person must sign in to get this token: call `authenticate` with this error's scopes and claims."
        f"{why}",
        claims=visit.claims or (refusal.claims if refusal is not None else None),
        **fields,
    )


_CARRIED = (
    "response",
    "error",
    "error_codes",
    "error_description",
    "suberror",
    "correlation_id",
    "trace_id",
)


def by_device_code(visit: Visit, prompt: Prompt | None, patience: float | None) -> Flow[SignedIn]:
    """Have a person enter a code on another device.

    Args:
        visit: What is wanted.
        prompt: Told the page's address, the code and when it ends, in UTC; None: the service's own words are
            printed.
        patience: The longest that the person is waited for, in seconds; None: as long as the code is good.

    Raises:
        ClientAuthenticationError: They did not sign in, or there is no code to be had.
    """
    begun: Begun = yield in_msal("begin_device_code", visit)
    flow = begun.flow
    start = yield from now()
    wait = min(flow["expires_in"], patience if patience is not None else flow["expires_in"])
    page, code = flow["verification_uri"], flow["user_code"]
    if prompt is not None:
        ends = datetime.fromtimestamp(start.epoch + flow["expires_in"], UTC)
        yield Call(partial(prompt, page, code, ends))
    else:
        words = flow.get("message") or f"To sign in, open {page} in a browser and enter the code {code}."
        yield Call(partial(print, words, flush=True))
    failure: ClientAuthenticationError | None = None
    while True:
        try:
            signed_in: SignedIn | None = yield in_msal("poll_device_code", visit, begun)
            if signed_in is not None:
                return signed_in
            failure = None
        except ClientAuthenticationError as refusal:
            # The person may be typing while the service is down for a moment.
            if not refusal.retryable:
                raise
            failure = refusal
        pause = max(flow["interval"], (failure and failure.retry_after) or 0)
        moment = yield from now()
        left = start.monotonic + wait - moment.monotonic
        if left <= 0 or pause > left:
            # What could come within the last moments could not be asked for any more.
            yield Wait(max(0, left), max(0, left))
            raise failure or ClientAuthenticationError(
                f"nobody entered the code {code} at {page} within {wait:g} s. Ask for a token again to get"
                " another code."
            )
        yield Wait(pause, pause)


def by_browser(
    visit: Visit, browser: Browser, redirects: Redirects, login_hint: str | None, patience: float
) -> Flow[SignedIn]:
    """Have a person sign in on a page in a browser of this machine.

    Args:
        visit: What is wanted.
        browser: The module `browser`: tells whether there is one, and shows a page in it.
        redirects: Takes what the browser brings back; closed at the end.
        login_hint: Who is going to sign in, as far as the page should know.
        patience: The longest that the person is waited for, in seconds.

    Raises:
        CredentialUnavailableError: No browser here, or nowhere to bring the answer.
        ClientAuthenticationError: They did not sign in.
    """
    yield Block(browser.check)
    try:
        redirect_uri = yield Block(redirects.open)
        begun: Begun = yield in_msal("begin_in_browser", visit, redirect_uri, login_hint)
        redirects.state = begun.flow["state"]
        yield Block(partial(browser.show, begun.flow["auth_uri"]))
        answer: dict[str, str] | None = yield Block(partial(redirects.wait, patience))
        yield Block(redirects.close)
    finally:
        # Wakes who waits there, when this ends early.
        redirects.close()
    if answer is None:
        kind = CredentialUnavailableError if IN_DEFAULT_CHAIN.get() else ClientAuthenticationError
        raise kind(
            f"nobody signed in within {patience:g} s on the page that was opened in the browser. Where no"
            " browser can be used, use DeviceCodeCredential; timeout sets how long to wait."
        )
    redeemed: SignedIn = yield in_msal("redeem_code", visit, begun, answer)
    return redeemed


def by_password(visit: Visit, username: str, password: str) -> Flow[SignedIn]:
    """Sign a user in by name and password.

    Raises:
        ClientAuthenticationError: They are refused.
    """
    signed_in: SignedIn = yield in_msal("by_password", visit, username, password)
    return signed_in


def in_msal(name: str, *given: object, **named: object) -> Lend:
    """Have a function of `msal_applications` called where it may block, its import included."""

    def called(perform: Perform) -> object:
        from workload_identity import msal_applications  # noqa: PLC0415 - see there

        return getattr(msal_applications, name)(perform, *given, **named)

    return Lend(called)
