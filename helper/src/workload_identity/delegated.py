"""Applications that act for a user: with the user's token that came with a call, or with a sign-in's code."""

from __future__ import annotations

from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.options import Identical, options_of
from workload_identity.principals import STORED, Principal, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Hashable, Iterable
    from typing import Unpack

    from workload_identity.cache import Held
    from workload_identity.certificates import CertificateSource
    from workload_identity.clients import Proof
    from workload_identity.options import TransportOptions
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Flow


class OnBehalfOf(Principal):
    """Exchanges a user's token, which an API was called with, for one that the API calls another with.

    Tokens of two user assertions are never mixed, be they of the same user.

    Args:
        tenant_id: The application's tenant.
        client_id: The API's client id.
        user_assertion: The user's access token, as the API was called with it.
        client_secret: One of the application's secrets; or
        client_certificate: the content of a file with its private key and certificate, PEM or PKCS#12; or
        certificate_path: such a file, read anew for each token request; or
        client_assertion_func: returns a signed JWT; in `aio` it may be a coroutine function. One of the four.
        password: What the private key is encrypted with.
        send_certificate_chain: Send the certificates of the file too.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same user assertion and
            application in this process.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work, or proofs are given twice; the message names it.
        TypeError: No user assertion, or nothing that proves who the application is.

    Source: azure-identity 1.27.0, `OnBehalfOfCredential`.
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        *,
        user_assertion: str,
        client_secret: str | None = None,
        client_certificate: bytes | None = None,
        certificate_path: str | os.PathLike[str] | None = None,
        client_assertion_func: Callable[[], str | Awaitable[str]] | None = None,
        password: str | bytes | None = None,
        send_certificate_chain: bool = False,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        proofs = {
            "client_secret": client_secret,
            "client_certificate": client_certificate,
            "certificate_path": certificate_path,
            "client_assertion_func": client_assertion_func,
        }
        own = ("user_assertion", "password", "send_certificate_chain", *proofs)
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, STORED + own),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=shared_cache,
            cache_persistence_options=cache_persistence_options,
        )
        if not user_assertion:
            raise TypeError("user_assertion: the token that the API was called with was wanted, found none")
        self._required(user_assertion=user_assertion)
        given = [name for name, value in proofs.items() if value]
        if not given:
            raise TypeError(f"one of {', '.join(proofs)} was wanted, found none")
        if len(given) > 1:
            raise ValueError(f"one of {', '.join(proofs)} was wanted, found {' and '.join(given)}")
        if client_assertion_func and not callable(client_assertion_func):
            raise ValueError("client_assertion_func: a function was wanted")
        if client_secret:
            self._required(client_secret=client_secret)
        self._user_assertion = user_assertion
        self._secret = client_secret or None
        self._func = client_assertion_func or None
        self._chain = bool(send_certificate_chain)
        self._source: CertificateSource | None = None
        if client_certificate or certificate_path:
            from workload_identity.certificates import certificate_source  # noqa: PLC0415 - needs cryptography

            self._source = certificate_source(
                certificate_path,
                client_certificate,
                password,
                names=("certificate_path", "client_certificate"),
            )

    def _fingerprint(self) -> Hashable:
        user = digest(self._user_assertion)
        if self._source is not None:
            return user, "certificate", digest(self._source.data), self._source.path, self._chain
        if self._secret is not None:
            return user, "secret", digest(self._secret)
        return user, "assertion", Identical(self._func)

    def _proof(self) -> Proof:
        from workload_identity import clients  # noqa: PLC0415 - what a token request needs

        if self._source is not None:
            return clients.certificate(self._source, chain=self._chain)
        if self._func is not None:
            return clients.assertion(self._func)
        return clients.secret(self._secret or "")

    def _flow_of(
        self,
        scopes: tuple[str, ...],
        tenant: str,
        claims: str | None,
        background: bool,
        cae: bool,
    ) -> Flow[Held]:
        from workload_identity.clients import on_behalf_of  # noqa: PLC0415 - what a token request needs

        # As azure-identity names them: another user's are not to be found.
        user = f"{self._client_id}:obo:{_sha256(self._user_assertion)}:{self._authority}:{tenant}"
        client = self._client(scopes, tenant, claims, background, cae=cae, stored_as=user)
        place = (*self._identity(), tenant.lower(), cae, Identical(self._options.transport))
        return on_behalf_of(client, self._user_assertion, self._cache, place)


class AuthorizationCode(Principal):
    """Redeems the code that a user's sign-in left, and asks with its refresh tokens from then on.

    Its tokens are the user's, so they are never shared with another credential. A refresh token comes when
    the scope offline_access is asked for too; it serves any scope.

    Args:
        tenant_id: The application's tenant.
        client_id: Its client id.
        authorization_code: The code; it works once.
        redirect_uri: The one that the sign-in was begun with.
        client_secret: One of the application's secrets, unless it is a public client.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work; the message names it.

    Source: azure-identity 1.27.0, `AuthorizationCodeCredential`.
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        authorization_code: str,
        redirect_uri: str,
        *,
        client_secret: str | None = None,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, (*STORED, "authorization_code", "redirect_uri", "client_secret")),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=False,
            cache_persistence_options=cache_persistence_options,
        )
        self._required(authorization_code=authorization_code, redirect_uri=redirect_uri)
        from workload_identity.clients import SignIn  # noqa: PLC0415 - not for who only imports the class

        self._sign_in = SignIn(authorization_code, redirect_uri)
        self._secret = client_secret or None

    def _fingerprint(self) -> Hashable:
        return Identical(self._sign_in)  # nobody else's

    def _proof(self) -> Proof:
        from workload_identity import clients  # noqa: PLC0415 - what a token request needs

        return clients.nothing if self._secret is None else clients.secret(self._secret)

    def _flow_of(
        self,
        scopes: tuple[str, ...],
        tenant: str,
        claims: str | None,
        background: bool,
        cae: bool,
    ) -> Flow[Held]:
        from workload_identity.clients import authorization_code  # noqa: PLC0415 - what a token request needs

        client = self._client(scopes, tenant, claims, background, cae=cae, stored_as=self._client_id)
        # Any tenant's: it is the user's.
        return authorization_code(client, self._sign_in, self._cache, ("refresh", cae))


def _sha256(text: str) -> str:
    from hashlib import sha256  # noqa: PLC0415 - for a token request only

    return sha256(text.encode()).hexdigest()


class OnBehalfOfCredential(OnBehalfOf, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families, here and below.
    __doc__ = OnBehalfOf.__doc__


class AsyncOnBehalfOfCredential(OnBehalfOf, Awaiting):  # noqa: D101 - likewise
    __doc__ = OnBehalfOf.__doc__


class AuthorizationCodeCredential(AuthorizationCode, Blocking):  # noqa: D101 - likewise
    __doc__ = AuthorizationCode.__doc__


class AsyncAuthorizationCodeCredential(AuthorizationCode, Awaiting):  # noqa: D101 - likewise
    __doc__ = AuthorizationCode.__doc__
