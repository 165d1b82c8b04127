"""Service principals: an application proves with a secret, a certificate or an assertion who it is."""

from __future__ import annotations

import os

from workload_identity.authority import AzureAuthorityHosts, normal_authority, region_of, valid_tenant
from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.credentials import Credential, allowed_tenant, allowed_tenants, declared_claims
from workload_identity.errors import CredentialUnavailableError
from workload_identity.options import Identical, options_of
from workload_identity.persistence import persistence_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable
    from typing import Unpack

    from workload_identity.cache import Held
    from workload_identity.clients import Client, Proof
    from workload_identity.credentials import Order
    from workload_identity.msal_applications import Keyring
    from workload_identity.options import Options, TransportOptions
    from workload_identity.persistence import TokenCachePersistenceOptions
    from workload_identity.steps import Flow
    from workload_identity.stores import Store

COMMON = ("tenant_id", "client_id", "authority", "additionally_allowed_tenants", "shared_cache")
"""Keywords of all of them."""
STORED = (*COMMON, "cache_persistence_options")
"""Likewise, of those whose tokens can be stored."""


class Principal(Credential):
    """What all clients share that prove themselves: which application of which tenant asks whom.

    A kind of client says what it proves itself with (`_proof`) and what tells its proof from others
    (`_fingerprint`).
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        options: Options,
        *,
        authority: str | None,
        additionally_allowed_tenants: Iterable[str] | None,
        shared_cache: bool,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
    ) -> None:
        self._persistence = persistence_options(cache_persistence_options)
        super().__init__(options, shared_cache=shared_cache)
        self._required(client_id=client_id)
        self._tenant_id = valid_tenant(tenant_id)
        self._client_id = client_id
        host = authority or os.environ.get("AZURE_AUTHORITY_HOST") or AzureAuthorityHosts.AZURE_PUBLIC_CLOUD
        self._authority = normal_authority(host)
        self._region = region_of(os.environ)
        self._allowed_tenants = allowed_tenants(additionally_allowed_tenants)

    def __repr__(self) -> str:
        return (
            f"<{self._name()} client_id={self._client_id!r} tenant_id={self._tenant_id!r}"
            f" authority={self._authority!r}>"
        )

    def _required(self, **given: object) -> None:
        """Check that texts are given, none of them empty.

        Raises:
            ValueError: One is missing; its value is not quoted.
        """
        for name, value in given.items():
            if not isinstance(value, str) or not value:
                found = "an empty text" if value == "" else type(value).__name__
                raise ValueError(f"{self._name()} lacks {name}: wanted a text, found {found}")
            try:
                value.encode()
            except UnicodeEncodeError:
                # Not chained: that error holds the text.
                raise ValueError(f"{name}: wanted a text, found letters that cannot be sent") from None

    def _identity(self) -> tuple[Hashable, ...]:
        return (
            self._name(),
            self._authority.lower(),
            self._region,
            self._client_id.lower(),
            self._fingerprint(),
        )

    def _tenant(self, requested: str | None) -> str:
        return allowed_tenant(self._tenant_id, requested, self._allowed_tenants)

    def _fingerprint(self) -> Hashable:
        raise NotImplementedError

    def _proof(self) -> Proof:
        raise NotImplementedError

    def _open(self) -> None:
        super()._open()
        self._keyring: Keyring | None = None

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy in another process needs: no token goes there."""
        return {name: value for name, value in super().__getstate__().items() if name != "_keyring"}

    def _store(
        self, scopes: tuple[str, ...], tenant: str, claims: str | None, cae: bool, client_id: str | None
    ) -> Store | None:
        if self._persistence is None:
            return None
        from workload_identity.msal_applications import Keyring  # noqa: PLC0415 - few store tokens
        from workload_identity.stores import Store  # noqa: PLC0415 - likewise

        if self._keyring is None:
            self._keyring = Keyring(self._persistence)
        return Store(
            self._keyring,
            self._authority,
            tenant,
            client_id or self._client_id,
            scopes,
            cae=cae,
            # With a challenge only a new token will do.
            reads=claims == declared_claims(None, cae=cae),
            of_users=client_id is not None,
        )

    def _client(
        self,
        scopes: tuple[str, ...],
        tenant: str,
        claims: str | None,
        background: bool,
        *,
        cae: bool,
        region: str = "",
        stored_as: str | None = None,
    ) -> Client:
        """Return who asks.

        Args:
            scopes: What for.
            tenant: Of which tenant.
            claims: To be sent.
            background: Nobody waits for this, a good token is held.
            cae: What is of continuous access evaluation is stored apart.
            region: Whose endpoint is asked.
            stored_as: Whose tokens they are in a store, if not the client's own.
        """
        from workload_identity.clients import Client  # noqa: PLC0415 - what a token request needs

        return Client(
            authority=self._authority,
            tenant_id=tenant,
            client_id=self._client_id,
            scopes=scopes,
            claims=claims,
            proof=self._proof(),
            options=self._options,
            background=background,
            region=region,
            store=self._store(scopes, tenant, claims, cae, stored_as),
        )

    def _flow_of(
        self,
        scopes: tuple[str, ...],
        tenant: str,
        claims: str | None,
        background: bool,
        cae: bool,
    ) -> Flow[Held]:
        from workload_identity.clients import client_credentials  # noqa: PLC0415 - what a token request needs

        client = self._client(scopes, tenant, claims, background, cae=cae, region=self._region)
        return client_credentials(client)


def digest(*secrets: str | bytes) -> str:
    """Return what tells secrets from others and does not tell them: SHA-256, of each and of where it ends."""
    from hashlib import sha256  # noqa: PLC0415 - for a token request only

    whole = sha256()
    for secret in secrets:
        data = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
        whole.update(b"%d:" % len(data))
        whole.update(data)
    return whole.hexdigest()


class ClientSecret(Principal):
    """Proves with a client secret that it is an application.

    Args:
        tenant_id: The application's tenant.
        client_id: Its client id.
        client_secret: One of its secrets: the value, not the id.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud. With AZURE_REGIONAL_AUTHORITY_NAME its endpoint in that region is asked.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same secret in this process.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work; the message names it.

    Source: azure-identity 1.27.0, `ClientSecretCredential`.
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        client_secret: str,
        *,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, (*STORED, "client_secret")),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=shared_cache,
            cache_persistence_options=cache_persistence_options,
        )
        self._required(client_secret=client_secret)
        self._client_secret = client_secret

    def _fingerprint(self) -> Hashable:
        return digest(self._client_secret)

    def _proof(self) -> Proof:
        from workload_identity.clients import secret  # noqa: PLC0415 - what a token request needs

        return secret(self._client_secret)


class Certificate(Principal):
    """Proves with a certificate's private key that it is an application.

    Args:
        tenant_id: The application's tenant.
        client_id: Its client id.
        certificate_path: A file with an RSA private key and its certificate, PEM or PKCS#12. It may be
            replaced: it is read anew for each token request.
        certificate_data: Instead of it, the content of such a file.
        password: What the private key is encrypted with.
        send_certificate_chain: Send the certificates of the file too: an application that trusts by subject
            and issuer needs them.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud. With AZURE_REGIONAL_AUTHORITY_NAME its endpoint in that region is asked.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same key in this process.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work; the message names it.

    Source: azure-identity 1.27.0, `CertificateCredential`.
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        certificate_path: str | os.PathLike[str] | None = None,
        *,
        certificate_data: bytes | None = None,
        password: str | bytes | None = None,
        send_certificate_chain: bool = False,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        own = ("certificate_path", "certificate_data", "password", "send_certificate_chain")
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, STORED + own),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=shared_cache,
            cache_persistence_options=cache_persistence_options,
        )
        from workload_identity.certificates import certificate_source  # noqa: PLC0415 - needs cryptography

        self._source = certificate_source(
            certificate_path, certificate_data, password, names=("certificate_path", "certificate_data")
        )
        self._chain = bool(send_certificate_chain)

    def _fingerprint(self) -> Hashable:
        return digest(self._source.data), self._source.path, self._chain

    def _proof(self) -> Proof:
        from workload_identity.clients import certificate  # noqa: PLC0415 - what a token request needs

        return certificate(self._source, chain=self._chain)


class ClientAssertion(Principal):
    """Proves with assertions that a function returns that it is an application.

    Args:
        tenant_id: The application's tenant.
        client_id: Its client id.
        func: Returns a signed JWT that a federated credential or a certificate of the application lets in.
            Called once for each token request, from any thread; in `aio` it may be a coroutine function.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud. With AZURE_REGIONAL_AUTHORITY_NAME its endpoint in that region is asked.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same function in this process.
        cache_persistence_options: Where tokens are stored beyond the life of the process; by default nowhere.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work; the message names it.

    Source: azure-identity 1.27.0, `ClientAssertionCredential`.
    """

    def __init__(
        self,
        tenant_id: str,
        client_id: str,
        func: Callable[[], str | Awaitable[str]],
        *,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        cache_persistence_options: TokenCachePersistenceOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, (*STORED, "func")),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=shared_cache,
            cache_persistence_options=cache_persistence_options,
        )
        if not callable(func):
            raise ValueError(f"func: a function was wanted, found {type(func).__name__}")  # noqa: TRY004 - misuse
        self._func = func

    def _fingerprint(self) -> Hashable:
        return Identical(self._func)

    def _proof(self) -> Proof:
        from workload_identity.clients import assertion  # noqa: PLC0415 - what a token request needs

        return assertion(self._func)


class AzurePipelines(Principal):
    """Proves with tokens of Azure Pipelines that it is the application of a service connection.

    Args:
        tenant_id: The application's tenant.
        client_id: Its client id.
        service_connection_id: The service connection's id, as its page's address has it.
        system_access_token: The job's System.AccessToken.
        authority: The token service, a host or an https URL; from AZURE_AUTHORITY_HOST, else the public
            cloud. With AZURE_REGIONAL_AUTHORITY_NAME its endpoint in that region is asked.
        additionally_allowed_tenants: Other tenants that `tenant_id` of a call may name; "*" allows all.
        shared_cache: Whether tokens are shared with other credentials of the same job in this process.
        options: See `workload_identity.options.Options`.

    Raises:
        ValueError: A value is missing or cannot work; the message names it.

    Source: azure-identity 1.27.0, `AzurePipelinesCredential`.
    """

    def __init__(
        self,
        *,
        tenant_id: str,
        client_id: str,
        service_connection_id: str,
        system_access_token: str,
        authority: str | None = None,
        additionally_allowed_tenants: Iterable[str] | None = None,
        shared_cache: bool = True,
        **options: Unpack[TransportOptions],
    ) -> None:
        super().__init__(
            tenant_id,
            client_id,
            options_of(options, (*COMMON, "service_connection_id", "system_access_token")),
            authority=authority,
            additionally_allowed_tenants=additionally_allowed_tenants,
            shared_cache=shared_cache,
        )
        self._required(service_connection_id=service_connection_id, system_access_token=system_access_token)
        if not system_access_token.isascii() or not system_access_token.isprintable():
            raise ValueError("system_access_token: a token was wanted, found letters that no header can have")
        self._connection = service_connection_id
        self._access_token = system_access_token

    def _at_hand(self, asked: tuple[object, ...], enable_cae: bool) -> Held | None:
        # Outside a job there is no token, held or not.
        return super()._at_hand(asked, enable_cae) if os.environ.get(_OIDC_URL) else None

    def _order(
        self, asked: tuple[object, ...], claims: str | None, tenant_id: str | None, enable_cae: bool
    ) -> Order:
        order = super()._order(asked, claims, tenant_id, enable_cae)
        if not os.environ.get(_OIDC_URL):
            raise CredentialUnavailableError(
                f"{self._name()} is for a running job of Azure Pipelines, where {_OIDC_URL} is set; it is not"
                " set here. In a job, a step gets it that has the service connection, such as AzureCLI@2."
            )
        return order

    def _fingerprint(self) -> Hashable:
        return self._connection, digest(self._access_token)

    def _proof(self) -> Proof:
        from workload_identity.clients import pipeline  # noqa: PLC0415 - what a token request needs

        return pipeline(os.environ.get(_OIDC_URL, ""), self._connection, self._access_token)


_OIDC_URL = "SYSTEM_OIDCREQUESTURI"


class ClientSecretCredential(ClientSecret, Blocking):  # noqa: D101 - it has, see below
    # The same words for both families, here and below.
    __doc__ = ClientSecret.__doc__


class AsyncClientSecretCredential(ClientSecret, Awaiting):  # noqa: D101 - likewise
    __doc__ = ClientSecret.__doc__


class CertificateCredential(Certificate, Blocking):  # noqa: D101 - likewise
    __doc__ = Certificate.__doc__


class AsyncCertificateCredential(Certificate, Awaiting):  # noqa: D101 - likewise
    __doc__ = Certificate.__doc__


class ClientAssertionCredential(ClientAssertion, Blocking):  # noqa: D101 - likewise
    __doc__ = ClientAssertion.__doc__


class AsyncClientAssertionCredential(ClientAssertion, Awaiting):  # noqa: D101 - likewise
    __doc__ = ClientAssertion.__doc__


class AzurePipelinesCredential(AzurePipelines, Blocking):  # noqa: D101 - likewise
    __doc__ = AzurePipelines.__doc__


class AsyncAzurePipelinesCredential(AzurePipelines, Awaiting):  # noqa: D101 - likewise
    __doc__ = AzurePipelines.__doc__
