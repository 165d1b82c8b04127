"""MSAL, which signs users in: the only module that imports it, and only inside its functions.

MSAL does I/O by itself and blocks, so none of this is a flow: each function is lent a way to have steps
performed (see `steps.Lend`), and what MSAL sends goes out as any request of ours, over the family's own edge.
Nothing that MSAL raises gets out, and nothing of it is replayed: a refusal that somebody has put right since
is not a refusal any more.

Sources: msal 1.39.0, `PublicClientApplication`; azure-identity 1.27.0, `InteractiveCredential`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urlencode, urlsplit

from workload_identity.assertions import claims_of, json_object
from workload_identity.authentication_record import AuthenticationRecord, record_of
from workload_identity.cache import Held
from workload_identity.drive import drive
from workload_identity.entra import Grant, Granted, judged, refused, seconds, token_url
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.options import Options
from workload_identity.refusals import NOT_JSON, Refusal, refusal_of
from workload_identity.retry import persistently
from workload_identity.steps import NewId, Now, Response, Send
from workload_identity.values import Value, hidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workload_identity.clock import Instant
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Perform

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
_DOCUMENT_LIFE = 86_400
"""Seconds for which a discovery document is good."""
_LONGEST_CODE = 86_400
"""Seconds that a device code is good for at most."""
_PENDING = frozenset({"authorization_pending", "slow_down"})
_GOOD_FOR = 300
"""Seconds that a stored token must be good for yet."""
_CLOCKS_DIFFER = 300
"""Seconds by which the clock of who stored a token may be ahead of ours."""
_OK = 200
_REFUSED = 400
_NOT_LOGGED = frozenset({"assertion", "code", "code_verifier", "device_code", "password", "refresh_token"})
"""Members of a request that MSAL would log, should anyone have its debug records written."""
_RAW = frozenset({"access_token", "client_info", "device_code", "id_token", "refresh_token"})
"""Members of an answer that MSAL needs as they are, and does not log where it expects them."""
_TAKEN_IN = frozenset(
    {"access_token", "client_info", "expires_in", "expires_on", "ext_expires_in", "foci", "id_token"}
    | {"id_token_claims", "refresh_in", "refresh_token", "scope", "token_type"}
)
"""Members of an answer that MSAL's caches read; they would log any other, whatever token came as that."""


class Keyring:
    """What one credential's sign-ins share: MSAL's token caches, with refresh tokens, and documents.

    Attributes:
        options: Where they are stored; None: in memory.
        documents: Discovery documents by address, with the end of their life by the monotonic clock.
    """

    def __init__(self, options: TokenCachePersistenceOptions | None) -> None:
        self.options = options
        self.documents: dict[str, tuple[float, Response]] = {}
        self._caches: dict[bool, Any] = {}

    def cache(self, *, cae: bool) -> Any:
        """Return the cache for tokens with, or without, continuous access evaluation; blocks.

        Raises:
            ClientAuthenticationError: Its store cannot be opened.
        """
        # One dictionary operation decides which of two that came at the same time is used.
        return self._caches.get(cae) or self._caches.setdefault(cae, self._made(cae=cae))

    def _made(self, *, cae: bool) -> Any:
        if self.options is None:
            import msal  # noqa: PLC0415 - see above

            return discreet(msal.TokenCache())
        from workload_identity.persistence import opened  # noqa: PLC0415 - few store tokens

        return discreet(opened(self.options, cae=cae))


def discreet(cache: Any) -> Any:
    """Have a cache of MSAL's log no secret when it takes a token in, and return it."""
    add = cache.add

    def added(event: Mapping[str, Any], **given: Any) -> Any:
        sent = {name: value for name, value in event.get("data", {}).items() if name not in _NOT_LOGGED}
        answer = {name: value for name, value in event.get("response", {}).items() if name in _TAKEN_IN}
        return add({**event, "data": sent, "response": answer}, **given)

    cache.add = added
    return cache


class SharedStore:
    """A token cache of MSAL's as who did not sign in by itself sees it; all of it blocks."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def family_accounts(self, hosts: frozenset[str]) -> list[Mapping[str, str]]:
        """Return the accounts, of these hosts, that have a refresh token good for Microsoft's own tools."""
        tokens = [token for token in self._found("RefreshToken", hosts) if "family_id" in token]
        owners = {token.get("home_account_id") for token in tokens} - {None}
        accounts = self._found("Account", hosts)
        return list(
            {one["home_account_id"]: one for one in accounts if one["home_account_id"] in owners}.values()
        )

    def good_token(
        self, scopes: tuple[str, ...], owner: str, hosts: frozenset[str], realm: str | None, now: Instant
    ) -> Held | None:
        """Return an account's access token that is good for five minutes more, if there is one.

        Args:
            scopes: What for.
            owner: The home account.
            hosts: Whose tokens will do.
            realm: Of which tenant; None: of any.
            now: The moment.
        """
        for entry in self._found("AccessToken", hosts, owner, list(scopes)):
            if realm not in {None, entry.get("realm")}:
                continue
            held = held_of(entry, now)
            if held is not None and held.over_epoch - now.epoch > _GOOD_FOR:
                return held
        return None

    def refresh_tokens(self, owner: str, hosts: frozenset[str]) -> list[Mapping[str, str]]:
        """Return an account's refresh tokens, those for all of Microsoft's tools first."""
        tokens = [token for token in self._found("RefreshToken", hosts, owner) if token.get("secret")]
        return sorted(tokens, key=lambda token: "family_id" not in token)

    def keep(self, visit: Visit, granted: Granted, spent: Mapping[str, str]) -> None:
        """Store an answer, its refresh token in place of the one it was got by."""
        answer = dict(granted.payload)
        renewed = answer.pop("refresh_token", None)
        if isinstance(renewed, str) and renewed:
            self._cache.update_rt(dict(spent), renewed)
        self._cache.add(token_event(visit.authority, visit.tenant_id, visit.client_id, visit.scopes, answer))

    def drop(self, spent: Mapping[str, str]) -> None:
        """Forget a refresh token that is refused for good."""
        self._cache.remove_rt(dict(spent))

    def _found(
        self, kind: str, hosts: frozenset[str], owner: str | None = None, scopes: list[str] | None = None
    ) -> list[Mapping[str, str]]:
        query = {} if owner is None else {"home_account_id": owner}
        try:
            found = self._cache.search(kind, target=scopes, query=query)
        except ClientAuthenticationError as failure:
            raise CredentialUnavailableError(failure.message) from failure
        return [entry for entry in found if entry.get("environment") in hosts]


def held_of(entry: Mapping[str, Any], now: Instant) -> Held | None:
    """Return the access token of a cache's entry with its dates; None for one that cannot be read.

    Nor for one of the future: it was stored while a clock was wrong, so nobody knows when it ends.
    """
    try:
        stored, ends = int(entry["cached_at"]), int(entry["expires_on"])
        if stored > now.epoch + _CLOCKS_DIFFER or not isinstance(entry["secret"], str):
            return None
        refresh_on = entry.get("refresh_on")
        return Held(
            entry["secret"],
            ends,
            started=type(now)(stored, now.monotonic - (now.epoch - stored)),
            lifetime=ends - stored,
            refresh_in=None if refresh_on is None else int(refresh_on) - stored,
            token_type=entry.get("token_type", "Bearer"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def token_event(
    authority: str, tenant_id: str, client_id: str, scopes: tuple[str, ...], answer: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what MSAL's caches take in: a token service's answer, and to what."""
    return {
        "client_id": client_id,
        "scope": list(scopes),
        "token_endpoint": token_url(authority, tenant_id),
        "environment": urlsplit(authority).hostname,
        "response": dict(answer),
    }


class Visit(Value):
    """One wish for a user's token.

    Attributes:
        authority: The token service, as `normal_authority` returns it.
        tenant_id: Whose sign-in page and token endpoint.
        client_id: The application that the user signs in to.
        scopes: What for.
        claims: A claims challenge, as a resource sent it.
        cae: Declare that the caller knows continuous access evaluation.
        discovery: Whether a host that MSAL does not know is asked about at Entra's public address.
        keyring: The credential's.
        options: How requests are sent.
    """

    authority: str
    tenant_id: str
    client_id: str
    scopes: tuple[str, ...]
    claims: str | None
    cae: bool
    discovery: bool
    keyring: Keyring = hidden()
    options: Options


class SignedIn(Value):
    """A token, and who signed in for it.

    Attributes:
        held: The access token.
        record: None when a token of an earlier sign-in served.
    """

    held: Held
    record: AuthenticationRecord | None


class Begun(Value):
    """A sign-in that waits for a person.

    Attributes:
        flow: MSAL's own notes on it, which it changes; secrets.
    """

    flow: dict[str, Any] = hidden()


def silently(
    perform: Perform, visit: Visit, record: AuthenticationRecord, *, renew: bool
) -> SignedIn | ClientAuthenticationError | None:
    """Get a token without the person, from MSAL's cache or by a refresh token.

    Args:
        perform: Performs steps.
        visit: What is wanted.
        record: Whose.
        renew: Whether only a new one will do.

    Returns:
        A token; or the error that says why the person has to sign in again; or None when nothing of theirs
        is cached.

    Raises:
        ClientAuthenticationError: No use in asking the person either.
    """
    with _Sitting(perform, visit) as sitting:
        application = sitting.application()
        refusal = None
        for account in application.get_accounts(username=record.username):
            if account.get("home_account_id") != record.home_account_id:
                continue
            result = application.acquire_token_silent_with_error(
                list(visit.scopes),
                account=account,
                force_refresh=renew,
                claims_challenge=visit.claims,
                # What no answer is told by here; MSAL would import requests to learn its own.
                http_exceptions=(ClientAuthenticationError,),
            )
            if result and "access_token" in result:
                return SignedIn(sitting.held(result), None)
            if result:
                refusal = sitting.refusal(result)
                if refusal.retryable:
                    raise refusal
        return refusal


def begin_device_code(perform: Perform, visit: Visit) -> Begun:
    """Ask for a code that a person enters on another device.

    Raises:
        ClientAuthenticationError: There is none.
    """
    with _Sitting(perform, visit) as sitting:
        flow = sitting.application().initiate_device_flow(list(visit.scopes))
        if "error" in flow:
            raise sitting.refusal(flow)
        wanted = ("device_code", "user_code", "verification_uri")
        missing = [name for name in wanted if not isinstance(flow.get(name), str) or not flow[name]]
        if missing:
            raise ClientAuthenticationError(
                f"sign-in by device code could not begin: the answer of {visit.authority} lacks"
                f" {', '.join(missing)}"
            )
        # MSAL would poll without a pause, or for ever, if the service said so.
        flow["interval"] = max(1, flow["interval"])
        flow["expires_in"] = min(seconds(flow["expires_in"]) or 0, _LONGEST_CODE)
        return Begun(flow)


def poll_device_code(perform: Perform, visit: Visit, begun: Begun) -> SignedIn | None:
    """Ask once whether the person has signed in; None: not yet.

    Raises:
        ClientAuthenticationError: They never will, or there was no answer: that is `retryable` then.
    """
    with _Sitting(perform, visit, once=True) as sitting:
        result = sitting.application().acquire_token_by_device_flow(
            begun.flow, exit_condition=lambda _: True, claims_challenge=visit.claims
        )
        return None if result.get("error") in _PENDING else sitting.signed_in(result)


def begin_in_browser(perform: Perform, visit: Visit, redirect_uri: str, login_hint: str | None) -> Begun:
    """Prepare a sign-in page: its address is `auth_uri`, what comes back must have `state`.

    Raises:
        ClientAuthenticationError: The service's documents cannot be read.
    """
    with _Sitting(perform, visit) as sitting:
        flow = sitting.application().initiate_auth_code_flow(
            list(visit.scopes),
            redirect_uri=redirect_uri,
            prompt="select_account",
            claims_challenge=visit.claims,
            login_hint=login_hint,
            response_mode="form_post",
        )
        return Begun(flow)


def redeem_code(perform: Perform, visit: Visit, begun: Begun, answer: Mapping[str, str]) -> SignedIn:
    """Trade what the sign-in page sent for a token.

    Raises:
        ClientAuthenticationError: It has an error, or its code is refused.
    """
    with _Sitting(perform, visit) as sitting:
        result = sitting.application().acquire_token_by_auth_code_flow(
            begun.flow, dict(answer), scopes=list(visit.scopes), claims_challenge=visit.claims
        )
        return sitting.signed_in(result)


def by_password(perform: Perform, visit: Visit, username: str, password: str) -> SignedIn:
    """Sign a user in by name and password.

    Raises:
        ClientAuthenticationError: They are refused.
    """
    import warnings  # noqa: PLC0415 - hardly anyone should come here

    with _Sitting(perform, visit) as sitting:
        application = sitting.application()
        # Our own class has warned already, where its user made one.
        warnings.filterwarnings("ignore", "This API has been deprecated for public", DeprecationWarning)
        result = application.acquire_token_by_username_password(
            username, password, scopes=list(visit.scopes), claims_challenge=visit.claims
        )
        return sitting.signed_in(result)


class _Forgetful(dict[str, Any]):
    """Where MSAL remembers answers to replay them: nowhere."""

    def __setitem__(self, key: str, value: Any) -> None:
        """Keep nothing."""


class _Sitting:
    """One conversation with the service through MSAL; a context manager that translates what MSAL raises."""

    def __init__(self, perform: Perform, visit: Visit, *, once: bool = False) -> None:
        self._perform = perform
        self._visit = visit
        self._http = _Http(perform, visit, once=once)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, failure: BaseException | None, traceback: object) -> None:
        if isinstance(failure, Exception) and not isinstance(failure, ClientAuthenticationError):
            self._translated(failure)

    def application(self) -> Any:
        """Return MSAL's application for this visit: new each time, so that nothing of it grows stale."""
        import msal  # noqa: PLC0415 - see above

        visit = self._visit
        return msal.PublicClientApplication(
            visit.client_id,
            authority=f"{visit.authority}/{visit.tenant_id}",
            client_capabilities=["CP1"] if visit.cae else None,
            token_cache=visit.keyring.cache(cae=visit.cae),
            http_client=self._http,
            http_cache=_Forgetful(),
            instance_discovery=None if visit.discovery else False,
        )

    def signed_in(self, result: dict[str, Any]) -> SignedIn:
        """Return what a sign-in gave.

        Raises:
            ClientAuthenticationError: It gave no token, or does not tell whose.
        """
        if "access_token" not in result:
            raise self.refusal(result)
        info = json_object(str(result.get("client_info") or "")) or {}
        account = f"{info['uid']}.{info['utid']}" if {"uid", "utid"} <= info.keys() else None
        try:
            record = record_of(result.get("id_token_claims") or {}, account)
        except ValueError as failure:
            raise ClientAuthenticationError(
                f"there is a token, but it cannot be told whose: {failure}. Is"
                f" {self._visit.authority} the right authority?"
            ) from failure
        return SignedIn(self.held(result), record)

    def held(self, result: dict[str, Any]) -> Held:
        """Return the access token of a result with its dates.

        Raises:
            ClientAuthenticationError: It has none that can be read.
        """
        answer = self._http.judged()
        if isinstance(answer, Granted) and answer.held.token.token == result["access_token"]:
            return answer.held
        # Of MSAL's cache.
        started: Instant = self._perform(Now())
        lasts = int(result["expires_in"])
        refresh_on = result.get("refresh_on")
        return Held(
            result["access_token"],
            int(started.epoch) + lasts,
            started=started,
            lifetime=lasts,
            refresh_in=None if refresh_on is None else int(refresh_on) - started.epoch,
            token_type=result.get("token_type", "Bearer"),
        )

    def refusal(self, result: Mapping[str, Any]) -> ClientAuthenticationError:
        """Return the error for what MSAL took for one: the service's own answer, or that of its page."""
        answer = self._http.judged()
        if answer is None or isinstance(answer, Granted):
            # It came with the browser, so there is no response to show.
            moment: Instant = self._perform(Now())
            page = Response(_REFUSED, "", {}, json.dumps(dict(result), default=str).encode(), moment)
            stated = refusal_of(page, {"error": "unknown", **result}, "")
            answer = Refusal(stated.problem, {**stated.fields, "response": None, "retryable": False})
        return self._error(answer)

    def _error(self, answer: Refusal) -> ClientAuthenticationError:
        moment: Instant = self._perform(Now())
        return refused(answer, self._http.grant(), moment.epoch)

    def _translated(self, failure: Exception) -> NoReturn:
        # Not chained where MSAL's words may hold what was answered.
        if "invalid_instance" in str(failure):
            raise ClientAuthenticationError(
                f"{self._visit.authority} is no token service that Entra knows. If it is one that you trust,"
                " as of a private cloud, set disable_instance_discovery=True; if not, correct authority or"
                " AZURE_AUTHORITY_HOST."
            ) from failure
        answer = self._http.judged()
        if answer is not None and not isinstance(answer, Granted):
            raise self._error(answer) from None
        if isinstance(failure, ImportError):
            raise ClientAuthenticationError(
                "signing in takes msal, which cannot be imported here: pip install workload-identity"
            ) from failure
        secrets = self._http.grant().secrets()
        from workload_identity.redaction import excerpt  # noqa: PLC0415 - hardly ever

        raise ClientAuthenticationError(
            f"the sign-in at {self._visit.authority} broke off: {type(failure).__name__}:"
            f" {excerpt(str(failure), *secrets)}"
        ) from None


class _Http:
    """MSAL's HTTP client.

    Args:
        perform: Performs steps.
        visit: Says how requests are sent, and where documents are kept.
        once: Not to repeat a request: who polls asks again anyway.
    """

    def __init__(self, perform: Perform, visit: Visit, *, once: bool) -> None:
        self._perform = perform
        self._visit = visit
        self._options = Options({**vars(visit.options), "retry_total": 0}) if once else visit.options
        self._form: dict[str, str] = {}
        self._last: Response | None = None
        self._wanted = ""

    def get(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, Any] | None = None,
        **_: object,
    ) -> _Answer:
        """Get a document, one got lately from memory."""
        whole = f"{url}{'&' if '?' in url else '?'}{urlencode(params)}" if params else url
        until, known = self._visit.keyring.documents.get(whole, (0.0, None))
        if known is not None and time.monotonic() < until:
            return _Answer(known)
        response = self._sent(whole, None, headers, method="GET")
        # What else MSAL gets is a federation's, in XML.
        self._wanted = "" if "mex" in urlsplit(url).path else "document"
        if response.status == _OK and isinstance(_content(response), dict):
            self._visit.keyring.documents[whole] = time.monotonic() + _DOCUMENT_LIFE, response
        return _Answer(response)

    def post(
        self,
        url: str,
        params: Mapping[str, str] | None = None,
        data: Mapping[str, object] | str | None = None,
        headers: Mapping[str, Any] | None = None,
        **_: object,
    ) -> _Answer:
        """Post a form, or a document."""
        whole = f"{url}?{urlencode(params)}" if params else url
        if isinstance(data, str):
            response = self._sent(whole, data, headers)
            self._wanted = ""
            return _Answer(response)
        self._form = {name: _text(value) for name, value in (data or {}).items() if value is not None}
        response = self._sent(whole, self._form, headers)
        self._wanted = "token" if "grant_type" in self._form else "document"
        content = _content(response)
        if not isinstance(content, dict):
            # MSAL would write it to its log.
            raise _UnreadableError
        if self._wanted == "token":
            # MSAL takes whatever is named access_token for one, and logs what it does not expect.
            unfit = _RAW if isinstance(self.judged(), Refusal) else {"device_code"}
            content = {name: value for name, value in content.items() if name not in unfit}
        return _Answer(response, json.dumps(_fit(content, *self.grant().secrets())))

    def close(self) -> None:
        """Keep all as it is: what is open is the edge's."""

    def grant(self) -> Grant:
        """Return what was asked, as far as an error should know it."""
        visit = self._visit
        return Grant(
            visit.authority, visit.tenant_id, visit.client_id, visit.scopes, self._form, proof="user"
        )

    def judged(self) -> Granted | Refusal | None:
        """Return what the last answer was; None: no answer yet, or a document as it should be."""
        if self._last is None:
            return None
        secrets = self.grant().secrets()
        if self._wanted == "token":
            return judged(self._last, *secrets)
        content = _content(self._last)
        if self._last.status < _REFUSED and (isinstance(content, dict) or not self._wanted):
            return None
        return refusal_of(self._last, content, "another answer was wanted", *secrets)

    def _sent(
        self,
        url: str,
        form: Mapping[str, str] | str | None,
        headers: Mapping[str, Any] | None,
        *,
        method: str = "POST",
    ) -> Response:
        self._last = None
        began: Instant = self._perform(Now())
        request_id = str(self._perform(NewId()))
        ids = ("x-ms-client-request-id", "client-request-id")
        sent = {**dict.fromkeys(ids, request_id), "return-client-request-id": "true"}
        sent |= {name: str(value) for name, value in (headers or {}).items() if value is not None}
        request = Send(
            self._with_port(url), form, sent, began.monotonic + self._options.timeout, method=method
        )
        response = self._last = drive(persistently(request, self._options), self._perform)
        return response

    def _with_port(self, url: str) -> str:
        """Return the URL with the authority's port, which MSAL loses in some of its own."""
        host, port = urlsplit(self._visit.authority).hostname, urlsplit(self._visit.authority).port
        parts = urlsplit(url)
        if port is None or parts.netloc.lower() != host:
            return url
        return parts._replace(netloc=f"{parts.netloc}:{port}").geturl()


class _UnreadableError(ValueError):
    """The answer is no JSON object; who catches it looks at the answer."""


class _Answer:
    """An answer as MSAL reads it."""

    def __init__(self, response: Response, text: str | None = None) -> None:
        self.status_code = response.status
        self.headers = response.headers
        self.text = response.body.decode("utf-8", "replace") if text is None else text

    def raise_for_status(self) -> None:
        """Do as requests does; who catches it looks at the answer."""
        if self.status_code >= _REFUSED:
            raise _UnreadableError


def _fit(content: Mapping[str, object], *secrets: str) -> dict[str, object]:
    """Return the members of an answer that MSAL may have: it logs them, and trips over other types."""
    from workload_identity.redaction import redacted  # noqa: PLC0415 - no light import

    fit: dict[str, object] = {}
    for name, value in content.items():
        if redacted(name, *secrets) != name:
            continue
        if isinstance(value, int | float) or (name == "id_token" and claims_of(str(value))):
            fit[name] = value
        elif isinstance(value, str) and name not in {"id_token", "client_info"}:
            fit[name] = value if name in _RAW else redacted(value, *secrets)
        elif name == "client_info" and isinstance(value, str) and json_object(value) is not None:
            fit[name] = value
    return fit


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _content(response: Response) -> object:
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return NOT_JSON
