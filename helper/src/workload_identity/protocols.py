"""The shapes of credentials, for annotations and `isinstance`: azure-core's protocols without azure-core.

Source: azure-core 1.41.0, `azure.core.credentials` and `azure.core.credentials_async`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict, runtime_checkable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    # What others give will do as well: the tokens of azure-core, where it is installed.
    from azure.core.credentials import AccessToken as TokenLike
    from azure.core.credentials import AccessTokenInfo as InfoLike


class TokenRequestOptions(TypedDict, total=False):
    """What `get_token_info` takes beside scopes; every key may be missing.

    Attributes:
        claims: A claims challenge, JSON text, as a resource sent it.
        tenant_id: Another tenant to ask than the credential's own.
        enable_cae: Ask for a token of continuous access evaluation.
    """

    claims: str
    tenant_id: str
    enable_cae: bool


@runtime_checkable
class TokenCredential(Protocol):
    """Gives tokens."""

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> TokenLike:
        """Return a token for the scopes."""
        ...


@runtime_checkable
class SupportsTokenInfo(Protocol):
    """Gives tokens and says when to ask again; a context manager."""

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> InfoLike:
        """Return a token for the scopes."""
        ...

    def close(self) -> None:
        """Release what the credential holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> bool | None: ...


@runtime_checkable
class AsyncTokenCredential(Protocol):
    """Gives tokens to who awaits; an asynchronous context manager."""

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> TokenLike:
        """Return a token for the scopes."""
        ...

    async def close(self) -> None:
        """Release what the credential holds."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> bool | None: ...


@runtime_checkable
class AsyncSupportsTokenInfo(Protocol):
    """Gives tokens to who awaits and says when to ask again; an asynchronous context manager."""

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> InfoLike:
        """Return a token for the scopes."""
        ...

    async def close(self) -> None:
        """Release what the credential holds."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> bool | None: ...
