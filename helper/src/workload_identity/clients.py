"""Confidential clients at the token endpoint: how they prove who they are, and the grants they use.

A proof is a flow that ends in members of the form; each grant is a flow that begins with a proof.

Sources: RFC 6749, sections 4.1, 4.4 and 6; RFC 7521 and 7523;
learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow;
learn.microsoft.com/azure/devops/pipelines/release/configure-workload-identity (OIDC requests).
"""

from __future__ import annotations

import json
import os
from _thread import allocate_lock
from collections.abc import Callable, Mapping
from functools import partial

from workload_identity.assertions import claims_of
from workload_identity.cache import FRESH
from workload_identity.entra import Grant, Granted, ask, by_assertion, refused, token_url
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError, is_unavailable
from workload_identity.retry import persistently
from workload_identity.steps import Block, Call, NewId, Read, Send, Wait, now
from workload_identity.values import NOTHING, Value, hidden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable
    from typing import Any, TypeAlias

    from workload_identity.cache import Held, TokenCache
    from workload_identity.certificates import CertificateSource
    from workload_identity.options import Options
    from workload_identity.refusals import Refusal
    from workload_identity.steps import Flow
    from workload_identity.stores import Store

_BACKDATED = 300
"""Seconds by which an assertion is good before now: Entra's clock may be behind this machine's."""
_LIFETIME = 600
"""Seconds from now to an assertion's end."""
_OK = 200
_IDENTITY_SCOPES = ("offline_access", "openid", "profile")
_LOST_REFRESH = "invalid_grant"


class Proved(Value):
    """How a client proves who it is.

    Attributes:
        form: Members of the form; secrets.
        kind: As `cures.Case.proof`.
        stated: As `cures.Case.claims`.
    """

    form: Mapping[str, str] = hidden()
    kind: str
    stated: Mapping[str, Any] = NOTHING


class Client(Value):
    """A client that asks for a token.

    Attributes:
        authority: The token service, as `normal_authority` returns it.
        region: The region whose endpoint is asked, "" for the global one.
        store: Where tokens outlive the process, if they do.
        scopes: What for.
        claims: To be sent, as `declared_claims` returns them.
        proof: Proves who it is.
        options: How requests are sent.
        background: Nobody waits for this, a good token is held.
    """

    authority: str
    tenant_id: str
    client_id: str
    scopes: tuple[str, ...]
    claims: str | None
    proof: Proof
    options: Options
    background: bool
    region: str = ""
    store: Store | None = None

    def ask(
        self, form: Mapping[str, str], deadline: float, **stated: object
    ) -> Flow[tuple[Granted | Refusal, Grant]]:
        """Ask with a new proof.

        Args:
            form: The grant.
            deadline: When nobody waits any more, by the monotonic clock.
            stated: What else an error should know.
        """
        proved = yield from self.proof(self, deadline)
        grant = Grant(
            self.authority,
            self.tenant_id,
            self.client_id,
            self.scopes,
            {**form, **proved.form},
            self.claims,
            proof=proved.kind,
            stated={**proved.stated, **stated},
            region=self.region,
        )
        answer = yield from ask(grant, self.options, deadline=deadline, background=self.background)
        if self.store is not None and isinstance(answer, Granted):
            yield Block(partial(self.store.keep, answer.payload))
        return answer, grant


Proof: TypeAlias = Callable[[Client, float], "Flow[Proved]"]


def nothing(_client: Client, _deadline: float) -> Flow[Proved]:
    """Prove nothing: a public client."""
    yield from ()
    return Proved({}, "")


def secret(value: str) -> Proof:
    """Prove by a secret that Entra and the client share."""

    def proved(_client: Client, _deadline: float) -> Flow[Proved]:
        yield from ()
        return Proved({"client_secret": value}, "secret")

    return proved


def certificate(source: CertificateSource, *, chain: bool) -> Proof:
    """Prove by an assertion that is signed with a certificate's key, a new one for each request.

    A file is read anew each time: certificates that are mounted in pods are replaced. While what is there is
    no certificate, as in the middle of a replacement, the one from before serves.
    """

    def proved(client: Client, _deadline: float) -> Flow[Proved]:
        note = ""
        if source.path:
            try:
                content = yield Read(source.path)
                if content.steady:
                    source.replaced(content.data)
            except (OSError, ValueError) as failure:
                note = str(failure)
        moment = yield from now()
        jti: str = yield NewId()
        claims = {
            # The global endpoint's, in a region too.
            "aud": token_url(client.authority, client.tenant_id),
            "iss": client.client_id,
            "sub": client.client_id,
            "jti": jti,
            "nbf": int(moment.epoch) - _BACKDATED,
            "iat": int(moment.epoch),
            "exp": int(moment.epoch) + _LIFETIME,
        }
        current = source.current
        text = current.signed(claims, adfs=client.tenant_id == "adfs", chain=chain)
        stated = {"thumbprint": current.thumbprint, "until": current.until, "note": note}
        return Proved(by_assertion(text), "certificate", stated)

    return proved


def assertion(function: Callable[[], object]) -> Proof:
    """Prove by what a function of the user's returns, called for each request."""

    def proved(_client: Client, _deadline: float) -> Flow[Proved]:
        try:
            text = yield Call(function)
        except CredentialUnavailableError:
            raise
        except Exception as failure:
            if is_unavailable(failure):  # as azure-identity says it
                raise CredentialUnavailableError(str(failure)) from failure
            raise ClientAuthenticationError(
                "the function that was to return a client assertion raised"
                f" {type(failure).__name__}: {failure}"
            ) from failure
        if not isinstance(text, str) or not text.strip():
            found = type(text).__name__ if not isinstance(text, str) else "an empty text"
            raise ClientAuthenticationError(
                f"the function that was to return a client assertion, a signed JWT as text, returned {found}"
            )
        return _by(text.strip())

    return proved


def pipeline(url: str, connection: str, access_token: str) -> Proof:
    """Prove by a token that Azure Pipelines gives a running job, asked for each time.

    Args:
        url: SYSTEM_OIDCREQUESTURI.
        connection: The service connection's id.
        access_token: The job's own; a secret.
    """

    def proved(client: Client, deadline: float) -> Flow[Proved]:
        from urllib.parse import quote  # noqa: PLC0415 - httpx has it loaded

        request = Send(
            f"{url.rstrip('/')}?api-version=7.1&serviceConnectionId={quote(connection, safe='')}",
            None,
            {
                "Content-Type": "application/json",
                "Authorization": f"Bearer {access_token}",
                # Without it a token that is no good gets a sign-in page.
                "X-TFS-FedAuthRedirect": "Suppress",
            },
            deadline,
        )
        response = yield from persistently(request, client.options, service="Azure Pipelines")
        payload: object = None
        if response.status == _OK:
            try:
                payload = json.loads(response.body)
            except (ValueError, RecursionError):
                payload = None
        text = payload.get("oidcToken") if isinstance(payload, dict) else None
        if not isinstance(text, str) or not text.strip():
            from workload_identity import refusals  # noqa: PLC0415 - hardly ever

            raise refusals.no_oidc_token(response, connection, access_token)
        return _by(text)

    return proved


def _by(text: str) -> Proved:
    return Proved(by_assertion(text), "assertion", claims_of(text))


def client_credentials(client: Client) -> Flow[Held]:
    """Ask for a token of the client's own.

    Raises:
        ClientAuthenticationError: There is no token to be had.
    """
    return (yield from _unless_stored(client, _of_its_own(client)))


def _of_its_own(client: Client) -> Flow[Held]:
    deadline = yield from _deadline(client)
    answer, grant = yield from client.ask({"grant_type": "client_credentials"}, deadline)
    return (yield from _or_refused(answer, grant)).held


def on_behalf_of(client: Client, user_assertion: str, cache: TokenCache, place: Hashable) -> Flow[Held]:
    """Ask for a token of a user whose token the client was called with.

    A refresh token from before is used first. If Entra does not take it, the user's token is exchanged again.

    Args:
        client: The middle tier.
        user_assertion: The user's token.
        cache: Holds refresh tokens.
        place: Under what name there; nobody else's.

    Raises:
        ClientAuthenticationError: There is no token to be had; `claims` is what the caller should be told.
    """
    return (yield from _unless_stored(client, _of_the_user(client, user_assertion, cache, place)))


def _of_the_user(client: Client, user_assertion: str, cache: TokenCache, place: Hashable) -> Flow[Held]:
    deadline = yield from _deadline(client)
    common = {
        "scope": " ".join(dict.fromkeys((*client.scopes, *_IDENTITY_SCOPES))),
        "client_info": "1",
    }
    known = cache.refresh_token(place)
    if known is not None:
        form = {**common, "grant_type": "refresh_token", "refresh_token": known}
        answer, grant = yield from client.ask(form, deadline)
        if isinstance(answer, Granted):
            cache.keep(place, answer.refresh_token, instead_of=known)
            return answer.held
        if answer.fields.get("error") == _LOST_REFRESH:
            cache.drop(place, known)
    form = {
        **common,
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "requested_token_use": "on_behalf_of",
        "assertion": user_assertion,
    }
    answer, grant = yield from client.ask(form, deadline, user=claims_of(user_assertion))
    exchanged = yield from _or_refused(answer, grant)
    cache.keep(place, exchanged.refresh_token)
    return exchanged.held


class SignIn:
    """What a user's sign-in left: a code that works once, taken by one request at a time."""

    def __init__(self, code: str, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri
        self._code: str | None = code
        # By which process: a child of it has no request in the air.
        self._taken_by = 0
        self._lock = allocate_lock()

    def __reduce__(self) -> tuple[object, ...]:
        return SignIn, (self._code or "", self.redirect_uri)

    def take(self) -> str | None:
        """Return the code, for nobody else meanwhile; None when it is taken or used."""
        with self._lock:
            if self.taken or not self._code:
                return None
            self._taken_by = os.getpid()
            return self._code

    def put_back(self, *, used: bool) -> None:
        """Say what became of the code that was taken."""
        with self._lock:
            self._taken_by = 0
            if used:
                self._code = None

    @property
    def taken(self) -> bool:
        """Whether a request with it is in the air."""
        return self._taken_by == os.getpid()


def authorization_code(client: Client, sign_in: SignIn, cache: TokenCache, place: Hashable) -> Flow[Held]:
    """Redeem a code, once; later ask with the refresh token that came with it.

    Args:
        client: Who the user signed in to.
        sign_in: The code.
        cache: Holds refresh tokens.
        place: Under what name there.

    Raises:
        ClientAuthenticationError: There is no token to be had; a code that was refused is kept.
    """
    deadline = yield from _deadline(client)
    if client.store is not None:
        # What is stored may be another user's; a store that cannot be opened is told before the code is used.
        yield Block(client.store.open)
    while True:
        code = sign_in.take()
        if code is not None:
            return (yield from _redeemed(client, sign_in, code, cache, place, deadline))
        known = cache.refresh_token(place)
        if known is not None:
            return (yield from _refreshed(client, known, cache, place, deadline))
        moment = yield from now()
        if not sign_in.taken or moment.monotonic >= deadline:
            raise ClientAuthenticationError(
                f"client {client.client_id} has no authorization code, cached token or refresh token for"
                f" {' '.join(client.scopes)}: the code was used for another request. To get refresh tokens"
                " ask for the scope offline_access too, with and without enable_cae apart; or sign in again."
            )
        # Another request has the code: what it leaves will do.
        yield Wait(0.02, 0.1)


def _redeemed(
    client: Client, sign_in: SignIn, code: str, cache: TokenCache, place: Hashable, deadline: float
) -> Flow[Held]:
    used = False
    try:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": sign_in.redirect_uri,
            "client_info": "1",
        }
        answer, grant = yield from client.ask(form, deadline)
        redeemed = yield from _or_refused(answer, grant)
        cache.keep(place, redeemed.refresh_token)
        used = True
        return redeemed.held
    finally:
        sign_in.put_back(used=used)


def _refreshed(client: Client, known: str, cache: TokenCache, place: Hashable, deadline: float) -> Flow[Held]:
    form = {"grant_type": "refresh_token", "refresh_token": known, "client_info": "1"}
    answer, grant = yield from client.ask(form, deadline)
    if isinstance(answer, Granted):
        cache.keep(place, answer.refresh_token, instead_of=known)
        return answer.held
    if answer.fields.get("error") == _LOST_REFRESH:
        cache.drop(place, known)
    return (yield from _or_refused(answer, grant)).held


def _unless_stored(client: Client, asking: Flow[Held]) -> Flow[Held]:
    """Get a token from the store, if there is a good one, else by asking.

    One that is due is asked anew, and serves when that fails.
    """
    if client.store is None:
        return (yield from asking)
    moment = yield from now()
    stored: Held | None = yield Block(partial(client.store.find, moment))
    if stored is not None and stored.freshness(moment) is FRESH:
        return stored
    try:
        return (yield from asking)
    except ClientAuthenticationError:
        if stored is None or client.background:
            raise
        return stored


def _deadline(client: Client) -> Flow[float]:
    start = yield from now()
    return start.monotonic + client.options.timeout


def _or_refused(answer: Granted | Refusal, grant: Grant) -> Flow[Granted]:
    if isinstance(answer, Granted):
        return answer
    moment = yield from now()
    raise refused(answer, grant, moment.epoch)
