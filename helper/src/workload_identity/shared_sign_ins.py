"""The flows of the shared token store: whose sign-in is meant, and a token by it.

Source: azure-identity 1.27.0, `SharedTokenCacheCredential`.
"""

from __future__ import annotations

from functools import partial

from workload_identity.context import IN_DEFAULT_CHAIN
from workload_identity.credentials import declared_claims
from workload_identity.entra import Grant, Granted, ask, refused
from workload_identity.errors import ClientAuthenticationError, CredentialUnavailableError
from workload_identity.sign_in import in_msal
from workload_identity.steps import Block, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from workload_identity.authentication_record import AuthenticationRecord
    from workload_identity.cache import Held
    from workload_identity.msal_applications import Visit
    from workload_identity.steps import Flow

    Entry = Mapping[str, str]

_SAME_CLOUD = (
    frozenset({"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}),
    frozenset({"login.chinacloudapi.cn", "login.partner.microsoftonline.cn"}),
    frozenset({"login.microsoftonline.us", "login.usgovcloudapi.net"}),
)
_ANYWHERE = "organizations"


def of_record(visit: Visit, record: AuthenticationRecord, *, renew: bool) -> Flow[Held]:
    """Get a token by the sign-in of a record.

    Raises:
        CredentialUnavailableError: The store has no such sign-in, or cannot be opened.
        ClientAuthenticationError: The service refuses it.
    """
    yield Block(partial(_opened, visit))
    found: Any = yield in_msal("silently", visit, record, renew=renew)
    if found is None:
        raise CredentialUnavailableError(
            f"the shared token store has no sign-in of {record.username!r}. Sign in with a tool of"
            " Microsoft's that uses it, or with InteractiveBrowserCredential and cache_persistence_options."
        )
    if isinstance(found, ClientAuthenticationError):
        raise found
    held: Held = found.held
    return held


def of_account(visit: Visit, username: str | None, home: str | None, *, renew: bool) -> Flow[Held]:
    """Get a token by the one sign-in that fits.

    Args:
        visit: What is wanted.
        username: Whose; None: anybody's.
        home: Of which home tenant; None: any.
        renew: Whether only a new token will do.

    Raises:
        CredentialUnavailableError: None fits, or several do, or the store cannot be opened.
        ClientAuthenticationError: The service refuses all that is stored for it.
    """
    store = yield Block(partial(_opened, visit))
    hosts = _same_cloud(visit.authority)
    account = _the_one((yield Block(partial(store.family_accounts, hosts))), username, home)
    owner = account["home_account_id"]
    moment = yield from now()
    if not renew and not visit.claims:
        realm = None if visit.tenant_id == _ANYWHERE else visit.tenant_id
        held: Held | None = yield Block(partial(store.good_token, visit.scopes, owner, hosts, realm, moment))
        if held is not None:
            return held
    refusal: ClientAuthenticationError | None = None
    for entry in (yield Block(partial(store.refresh_tokens, owner, hosts))):
        grant = Grant(
            visit.authority,
            visit.tenant_id,
            visit.client_id,
            visit.scopes,
            {"grant_type": "refresh_token", "refresh_token": entry["secret"], "client_info": "1"},
            declared_claims(visit.claims, cae=visit.cae),
            proof="user",
        )
        answer = yield from ask(grant, visit.options, deadline=moment.monotonic + visit.options.timeout)
        if isinstance(answer, Granted):
            yield Block(partial(store.keep, visit, answer, entry))
            return answer.held
        refusal = refused(answer, grant, (yield from now()).epoch)
        if refusal.error == "invalid_grant":
            yield Block(partial(store.drop, entry))
    if refusal is None:
        raise CredentialUnavailableError(f"the shared token store has no refresh token of {_named(account)}")
    if IN_DEFAULT_CHAIN.get():
        raise CredentialUnavailableError(refusal.message, refusal.response) from refusal
    raise refusal


def _opened(visit: Visit) -> Any:
    from workload_identity.msal_applications import SharedStore  # noqa: PLC0415 - where it may block

    try:
        return SharedStore(visit.keyring.cache(cae=visit.cae))
    except ClientAuthenticationError as failure:
        raise CredentialUnavailableError(failure.message) from failure


def _same_cloud(authority: str) -> frozenset[str]:
    host = authority.partition("://")[2].partition("/")[0]
    alone = frozenset({host, host.rpartition(":")[0] or host})  # MSAL leaves the port out
    return next((hosts for hosts in _SAME_CLOUD if host in hosts), alone)


def _the_one(accounts: list[Entry], username: str | None, home: str | None) -> Entry:
    """Return the account that is meant.

    Raises:
        CredentialUnavailableError: None is, or several are.
    """
    cure = "Sign in with a tool of Microsoft's that uses this store."
    if not accounts:
        raise CredentialUnavailableError(f"the shared token store has no sign-in of anybody. {cure}")
    fitting = [
        account
        for account in accounts
        if (not username or account.get("username", "").lower() == username.lower())
        and (not home or _home(account).lower() == home.lower())
    ]
    if len(fitting) == 1:
        return fitting[0]
    filters = {"username": username, "tenant_id": home}
    named = " and ".join(f"{name} {value!r}" for name, value in filters.items() if value)
    there = ", ".join(_named(account) for account in fitting or accounts)
    if not fitting:
        raise CredentialUnavailableError(
            f"the shared token store has no sign-in with {named}, only of {there}. {cure}"
        )
    if named:
        raise CredentialUnavailableError(
            f"the shared token store has several sign-ins with {named}: {there}. Give both username and"
            " tenant_id."
        )
    raise CredentialUnavailableError(
        f"the shared token store has several sign-ins: {there}. Say which, by username and tenant_id."
    )


def _home(account: Entry) -> str:
    return account["home_account_id"].partition(".")[2]


def _named(account: Entry) -> str:
    return f"{account.get('username') or 'somebody'} (tenant {_home(account) or 'unknown'})"
