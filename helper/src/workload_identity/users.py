"""Credentials of a user: a person signs in, and then their tokens are renewed without them.

Sources: azure-identity 1.27.0, `DeviceCodeCredential`, `InteractiveBrowserCredential`,
`UsernamePasswordCredential`.
"""

from __future__ import annotations

import os

from workload_identity.authority import AzureAuthorityHosts, normal_authority, valid_tenant
from workload_identity.awaiting import Awaiting
from workload_identity.awaiting import obtain as obtain_awaiting
from workload_identity.blocking import Blocking, obtain
from workload_identity.cache import TokenCache
from workload_identity.credentials import (
    Credential,
    Order,
    allowed_tenant,
    allowed_tenants,
    guarded,
    named_scopes,
    seconds_of,
)
from workload_identity.errors import AuthenticationRequiredError, CredentialUnavailableError
from workload_identity.options import Identical, options_of
from workload_identity.persistence import persistence_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from datetime import datetime
    from typing import Any, Unpack

    from workload_identity.authentication_record import AuthenticationRecord
    from workload_identity.cache import Held
    from workload_identity.msal_applications import Keyring, SignedIn, Visit
    from workload_identity.options import Options, SendingOptions
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Flow

DEVELOPER_SIGN_ON = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
"""The application that users sign in to where none is named: Microsoft's own for developers."""
ANY_ORGANIZATION = "organizations"
_PERSON_TAKES = 300.0
"""Seconds to sign in with a browser."""
_CODE_LIFE = 1800.0
"""Seconds; a device code is good for 900."""
_MANAGEMENT = {
    AzureAuthorityHosts.AZURE_PUBLIC_CLOUD: "https://management.core.windows.net//.default",
    AzureAuthorityHosts.AZURE_GOVERNMENT: "https://management.core.usgovcloudapi.net//.default",
    AzureAuthorityHosts.AZURE_CHINA: "https://management.core.chinacloudapi.cn//.default",
}
"""What `authenticate` asks for unless told, by the token service's host."""
_COMMON = (
    "client_id",
    "tenant_id",
    "authority",
    "authentication_record",
    "disable_automatic_authentication",
    "cache_persistence_options",
    "disable_instance_discovery",
    "additionally_allowed_tenants",
    "timeout",
)


class User(Credential):
    """What all credentials of users share.

    Its tokens are never shared between credentials: each is of the person who signed in to it.
    """

    _attended = True
    """Whether a person must be there to sign in."""

    def __init__(
        self,
        options: Options,
        *,
        client_id: str,
        tenant_id: str | None,
        authority: str | None,
        authentication_record: AuthenticationRecord | None,
        disable_automatic_authentication: bool,
        cache_persistence_options: TokenCachePersistenceOptions | None,
        disable_instance_discovery: bool,
        additionally_allowed_tenants: Iterable[str] | None,
    ) -> None:
        self._record = record = authentication_record
        host = record.authority if record is not None else authority
        host = host or os.environ.get("AZURE_AUTHORITY_HOST") or AzureAuthorityHosts.AZURE_PUBLIC_CLOUD
        self._authority = normal_authority(host)
        home = record.tenant_id if record is not None else ANY_ORGANIZATION
        self._tenant_id = valid_tenant(tenant_id or home)
        self._client_id = record.client_id if record is not None else client_id
        self._automatic = not disable_automatic_authentication
        self._persistence = persistence_options(cache_persistence_options)
        self._discovery = not disable_instance_discovery
        self._allowed_tenants = allowed_tenants(additionally_allowed_tenants)
        super().__init__(options, shared_cache=False)

    def __repr__(self) -> str:
        return (
            f"<{self._name()} client_id={self._client_id!r} tenant_id={self._tenant_id!r}"
            f" authority={self._authority!r}>"
        )

    def _open(self) -> None:
        super()._open()
        self._keyring: Keyring | None = None

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy in another process needs: no token goes there."""
        return {name: value for name, value in super().__getstate__().items() if name != "_keyring"}

    def _identity(self) -> tuple[Hashable, ...]:
        return "user", self._name(), self._authority.lower(), self._client_id.lower()

    def _tenant(self, requested: str | None) -> str:
        return allowed_tenant(self._tenant_id, requested, self._allowed_tenants)

    def _person_takes(self) -> float:
        """Return for how many seconds a person is waited for at most."""
        return 0

    def _patience(self) -> float:
        # Documents are read, a sign-in begun and ended, each within a call's time.
        return self._person_takes() + 3 * self._options.timeout

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        order = super()._order(asked, claims, tenant_id, enable_cae)
        scopes, tenant = named_scopes(asked), self._tenant(tenant_id or None)
        order.flow = lambda background: guarded(
            self._token(scopes, tenant, claims or None, enable_cae, background)
        )
        return order

    def _sign_in_order(
        self,
        scopes: Iterable[str] | None,
        claims: str | None,
        tenant_id: str | None,
        enable_cae: bool,
        signed_in: list[AuthenticationRecord],
    ) -> Order:
        """Return an order whose fulfilment is a sign-in; its record is added to the list.

        Raises:
            ValueError: As `_order` does.
            CredentialUnavailableError: No scopes are given and none are known for this cloud.
        """
        asked = tuple(scopes or ())
        if not asked:
            usual = _MANAGEMENT.get(self._authority.partition("://")[2])
            if usual is None:
                raise CredentialUnavailableError(
                    f"authenticate: scopes are wanted, as none are known for {self._authority}"
                )
            asked = (usual,)
        order = self._order(asked, claims, tenant_id, enable_cae)
        named, tenant = named_scopes(asked), self._tenant(tenant_id or None)

        def flow(_background: bool) -> Flow[Held]:
            visit = self._visit(named, tenant, claims or None, enable_cae)
            return (yield from self._with_person(visit, signed_in))

        order.flow = lambda background: guarded(flow(background))
        order.must, order.wide = True, None
        order.way = Identical(signed_in)
        return order

    def _token(
        self, scopes: tuple[str, ...], tenant: str, claims: str | None, cae: bool, background: bool
    ) -> Flow[Held]:
        from workload_identity import sign_in  # noqa: PLC0415 - what a token request needs

        visit = self._visit(scopes, tenant, claims, cae)
        try:
            found = yield from sign_in.silently(visit, self._record, renew=background)
            return found.held
        except AuthenticationRequiredError:
            # Nobody is asked to sign in for a token that nobody waits for.
            if self._attended and (background or not self._automatic):
                raise
        return (yield from self._with_person(visit, []))

    def _with_person(self, visit: Visit, signed_in: list[AuthenticationRecord]) -> Flow[Held]:
        found = yield from self._interaction(visit)
        record = found.record
        if record is not None:
            before, self._record = self._record, record
            if before is not None and before.home_account_id != record.home_account_id:
                # Another person: what is held for the one before is not for them.
                self._plain, self._cae = {}, {}
                self._cache = TokenCache()
            signed_in.append(record)
        return found.held

    def _visit(self, scopes: tuple[str, ...], tenant: str, claims: str | None, cae: bool) -> Visit:
        from workload_identity.msal_applications import Keyring, Visit  # noqa: PLC0415 - not before a token is asked for

        if self._keyring is None:
            self._keyring = Keyring(self._persistence)
        return Visit(
            self._authority,
            tenant,
            self._client_id,
            scopes,
            claims,
            cae,
            self._discovery,
            self._keyring,
            self._options,
        )

    def _interaction(self, visit: Visit) -> Flow[SignedIn]:
        raise NotImplementedError


class BlockingUser(User, Blocking):
    """The methods of a user's blocking credential."""

    def authenticate(
        self,
        *,
        scopes: Iterable[str] | None = None,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,  # noqa: ARG002 - newer callers may pass what we do not know yet
    ) -> AuthenticationRecord:
        """Have a person sign in, whoever has before, and return the record of it.

        Args:
            scopes: What the first token is for; by default to manage Azure. An AuthenticationRequiredError
                has those that were asked for.
            claims: A claims challenge, JSON text; as above.
            tenant_id: Another tenant than the credential's own; see `additionally_allowed_tenants`.
            enable_cae: Ask for a token of continuous access evaluation.
            kwargs: Ignored.

        Raises:
            ClientAuthenticationError: They did not sign in; CredentialUnavailableError when they cannot here.
            ValueError: Arguments that can never work, or the credential is closed.
        """
        signed_in: list[AuthenticationRecord] = []
        obtain(self._sign_in_order(scopes, claims, tenant_id, enable_cae, signed_in))
        return signed_in[-1]


class AwaitingUser(User, Awaiting):
    """The methods of a user's awaiting credential; MSAL runs on a thread of its own."""

    async def authenticate(
        self,
        *,
        scopes: Iterable[str] | None = None,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,  # noqa: ARG002 - newer callers may pass what we do not know yet
    ) -> AuthenticationRecord:
        """Have a person sign in, whoever has before, and return the record of it.

        Args:
            scopes: What the first token is for; by default to manage Azure. An AuthenticationRequiredError
                has those that were asked for.
            claims: A claims challenge, JSON text; as above.
            tenant_id: Another tenant than the credential's own; see `additionally_allowed_tenants`.
            enable_cae: Ask for a token of continuous access evaluation.
            kwargs: Ignored.

        Raises:
            ClientAuthenticationError: They did not sign in; CredentialUnavailableError when they cannot here.
            ValueError: Arguments that can never work, or the credential is closed.
        """
        signed_in: list[AuthenticationRecord] = []
        order = self._sign_in_order(scopes, claims, tenant_id, enable_cae, signed_in)
        await obtain_awaiting(order, self._renewals)
        return signed_in[-1]


class DeviceCode(User):
    """Has a person enter a code on a page that they open on any device: where there is no browser.

    Args:
        client_id: The application that they sign in to; by default Microsoft's own for developers.
        timeout: Seconds to wait for them; by default as long as the code is good.
        prompt_callback: Told the page's address, the code, and when it ends (a datetime in UTC); it may be a
            coroutine function for the awaiting family. By default the service's message is printed.
        tenant_id: Where they sign in; by default in any organization.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        authentication_record: What `authenticate` returned once: while its sign-in lasts nobody is asked.
            Its client and authority are used, and its tenant unless one is named.
        disable_automatic_authentication: Raise AuthenticationRequiredError where a person would be asked;
            `authenticate` asks.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        disable_instance_discovery: Trust the authority without asking Entra whether it knows it: for private
            clouds.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value cannot work; the message names it.

    Source: azure-identity 1.27.0, `DeviceCodeCredential`.
    """

    def __init__(
        self,
        client_id: str = DEVELOPER_SIGN_ON,
        *,
        timeout: float | None = None,
        prompt_callback: Callable[[str, str, datetime], object] | None = None,
        tenant_id: str | None = None,
        authority: str | None = None,
        authentication_record: AuthenticationRecord | None = None,
        disable_automatic_authentication: bool = False,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        additionally_allowed_tenants: Iterable[str] | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        self._waits = None if timeout is None else seconds_of("timeout", timeout)
        self._prompt = prompt_callback
        super().__init__(
            options_of(options, (*_COMMON, "prompt_callback")),
            client_id=client_id,
            tenant_id=tenant_id,
            authority=authority,
            authentication_record=authentication_record,
            disable_automatic_authentication=disable_automatic_authentication,
            cache_persistence_options=cache_persistence_options,
            disable_instance_discovery=disable_instance_discovery,
            additionally_allowed_tenants=additionally_allowed_tenants,
        )

    def _person_takes(self) -> float:
        return _CODE_LIFE if self._waits is None else self._waits

    def _interaction(self, visit: Visit) -> Flow[SignedIn]:
        from workload_identity.sign_in import by_device_code  # noqa: PLC0415 - what a token request needs

        return by_device_code(visit, self._prompt, self._waits)


class DeviceCodeCredential(DeviceCode, BlockingUser):  # noqa: D101 - it has, see below
    # The same words for both families.
    __doc__ = DeviceCode.__doc__


class AsyncDeviceCodeCredential(DeviceCode, AwaitingUser):  # noqa: D101 - likewise
    __doc__ = DeviceCode.__doc__


class InteractiveBrowser(User):
    """Has a person sign in on a page in a browser of this machine.

    Args:
        redirect_uri: Where the browser brings the answer, such as "http://localhost:8400", as registered with
            the application; only host and port count. By default a free port of localhost.
        login_hint: Who is going to sign in, as far as the page should know.
        timeout: Seconds to wait for them.
        client_id: The application that they sign in to; by default Microsoft's own for developers.
        tenant_id: Where they sign in; by default in any organization.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        authentication_record: What `authenticate` returned once: while its sign-in lasts nobody is asked.
            Its client and authority are used, and its tenant unless one is named.
        disable_automatic_authentication: Raise AuthenticationRequiredError where a person would be asked;
            `authenticate` asks.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        disable_instance_discovery: Trust the authority without asking Entra whether it knows it: for private
            clouds.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value cannot work; the message names it.

    Source: azure-identity 1.27.0, `InteractiveBrowserCredential`.
    """

    def __init__(
        self,
        *,
        redirect_uri: str | None = None,
        login_hint: str | None = None,
        timeout: float | None = _PERSON_TAKES,
        client_id: str = DEVELOPER_SIGN_ON,
        tenant_id: str | None = None,
        authority: str | None = None,
        authentication_record: AuthenticationRecord | None = None,
        disable_automatic_authentication: bool = False,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        additionally_allowed_tenants: Iterable[str] | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        self._place = _place(redirect_uri) if redirect_uri else None
        self._login_hint = login_hint
        self._waits = seconds_of("timeout", timeout, _PERSON_TAKES)
        super().__init__(
            options_of(options, (*_COMMON, "redirect_uri", "login_hint")),
            client_id=client_id,
            tenant_id=tenant_id,
            authority=authority,
            authentication_record=authentication_record,
            disable_automatic_authentication=disable_automatic_authentication,
            cache_persistence_options=cache_persistence_options,
            disable_instance_discovery=disable_instance_discovery,
            additionally_allowed_tenants=additionally_allowed_tenants,
        )

    def _person_takes(self) -> float:
        return self._waits

    def _interaction(self, visit: Visit) -> Flow[SignedIn]:
        from workload_identity import browser  # noqa: PLC0415 - what opens a page and takes the answer
        from workload_identity.sign_in import by_browser  # noqa: PLC0415 - what a token request needs

        redirects = browser.Redirects(self._place)
        return by_browser(visit, browser, redirects, self._login_hint, self._waits)


class InteractiveBrowserCredential(InteractiveBrowser, BlockingUser):  # noqa: D101 - it has, see below
    __doc__ = InteractiveBrowser.__doc__


class AsyncInteractiveBrowserCredential(InteractiveBrowser, AwaitingUser):  # noqa: D101 - likewise
    __doc__ = InteractiveBrowser.__doc__


class UsernamePassword(User):
    """Signs a user in by name and password: only without multi-factor authentication, so use another way.

    Args:
        client_id: The application that they sign in to.
        username: Their name.
        password: Their password.
        tenant_id: Where they sign in; by default in any organization.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        disable_instance_discovery: Trust the authority without asking Entra whether it knows it: for private
            clouds.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        timeout: As in `workload_identity.options.Options`.
        options: See there.

    Raises:
        ValueError: A value cannot work; the message names it.

    Source: azure-identity 1.27.0, `UsernamePasswordCredential`.
    """

    _attended = False

    def __init__(
        self,
        client_id: str,
        username: str,
        password: str,
        *,
        tenant_id: str | None = None,
        authority: str | None = None,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        disable_instance_discovery: bool = False,
        additionally_allowed_tenants: Iterable[str] | None = None,
        timeout: float | None = None,
        **options: Unpack[SendingOptions],
    ) -> None:
        import warnings  # noqa: PLC0415 - hardly anyone should come here

        warnings.warn(
            "UsernamePasswordCredential cannot do multi-factor authentication, which Entra requires more and"
            " more: use another credential.",
            DeprecationWarning,
            stacklevel=2,
        )
        for name, value in (("client_id", client_id), ("username", username), ("password", password)):
            if not value:
                raise ValueError(f"UsernamePasswordCredential lacks {name}")
        self._username = username
        self._password = password
        # An old program's records and prompts mean nothing here: the password is to be checked.
        ignored = {"authentication_record", "disable_automatic_authentication"}
        given = {name: value for name, value in options.items() if name not in ignored}
        super().__init__(
            options_of({**given, "timeout": timeout}, _COMMON),
            client_id=client_id,
            tenant_id=tenant_id,
            authority=authority,
            authentication_record=None,
            disable_automatic_authentication=False,
            cache_persistence_options=cache_persistence_options,
            disable_instance_discovery=disable_instance_discovery,
            additionally_allowed_tenants=additionally_allowed_tenants,
        )

    def _interaction(self, visit: Visit) -> Flow[SignedIn]:
        from workload_identity.sign_in import by_password  # noqa: PLC0415 - what a token request needs

        return by_password(visit, self._username, self._password)


class UsernamePasswordCredential(UsernamePassword, BlockingUser):  # noqa: D101 - it has, see below
    __doc__ = UsernamePassword.__doc__


class AsyncUsernamePasswordCredential(UsernamePassword, AwaitingUser):  # noqa: D101 - likewise
    __doc__ = UsernamePassword.__doc__


def _place(redirect_uri: str) -> tuple[str, int]:
    """Return host and port of a redirect URI.

    Raises:
        ValueError: It has not both.
    """
    from urllib.parse import urlsplit  # noqa: PLC0415 - few name one

    try:
        parts = urlsplit(redirect_uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ValueError(
            f"redirect_uri {redirect_uri!r}: wanted a URL with host and port, such as 'http://localhost:8400'"
        )
    return host, port
