"""Chains: several credentials that are one, which asks them in turn.

What a walk needs is loaded when a token is asked for.
"""

from __future__ import annotations

from collections import namedtuple

from workload_identity.awaiting import Awaiting
from workload_identity.blocking import Blocking
from workload_identity.clock import SYSTEM
from workload_identity.credentials import named_scopes
from workload_identity.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Any, ClassVar, NamedTuple, Self

    from workload_identity.protocols import TokenRequestOptions
    from workload_identity.steps import Flow
    from workload_identity.tokens import AccessToken, AccessTokenInfo

    class Wish(NamedTuple):
        """What a call asks for.

        Attributes:
            method: The method that was called.
            scopes: What the token is for.
            options: What else was given, but nothing that is empty.
        """

        method: str
        scopes: tuple[str, ...]
        options: Mapping[str, Any]
else:
    Wish = namedtuple("Wish", ("method", "scopes", "options"))  # noqa: PYI024 - importing typing costs more

_STRANGER: dict[str, str] = {"blocking": "awaiting", "awaiting": "blocking"}


class Chain:
    """What chains of both families share: their members, and what a call asks of them.

    Attributes:
        credentials: The members, in the order in which they are asked.
    """

    _family: ClassVar[str]
    _chosen: Any = None
    """The member that is asked alone, in a chain that keeps to the first which gave a token."""

    def __init__(self, *credentials: Any) -> None:
        if not credentials:
            raise ValueError(f"{self._name()} needs at least one credential; found none")
        for credential in credentials:
            if not hasattr(credential, "get_token") and not hasattr(credential, "get_token_info"):
                raise ValueError(
                    f"{self._name()}: wanted credentials, with get_token or get_token_info, found"
                    f" {type(credential).__name__}"
                )
            if _family_of(credential) == _STRANGER[self._family]:
                module = "workload_identity" if self._family == "blocking" else "workload_identity.aio"
                raise ValueError(
                    f"{self._name()}: this one is {self._family}, but found a member that is"
                    f" {_STRANGER[self._family]}; import all of them from {module}"
                )
        self.credentials = credentials
        self._closed = False

    def __repr__(self) -> str:
        from workload_identity.walking import name_of  # noqa: PLC0415 - for who looks

        return f"<{self._name()} of {', '.join(map(name_of, self.credentials))}>"

    def _name(self) -> str:
        # Both families have one name for users.
        return type(self).__name__.removeprefix("Async")

    def _wish(self, method: str, scopes: tuple[object, ...], options: Mapping[str, Any]) -> Wish:
        if self._closed:
            raise ValueError(f"this {self._name()} is closed; make another one to get tokens")
        return Wish(method, named_scopes(scopes), {name: value for name, value in options.items() if value})

    def _flow(self, wish: Wish) -> Flow[Any]:
        from workload_identity.walking import walk  # noqa: PLC0415 - what a token request needs

        won = yield from walk(self._name(), self.credentials, wish)
        return won.answer


class BlockingChain(Chain):
    """The methods of a blocking chain."""

    _family = "blocking"

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """Return the token of the first member that gives one.

        Args:
            scopes: What the token is for, such as "https://vault.azure.net/.default".
            claims: A claims challenge, JSON text, as a resource sent it.
            tenant_id: Another tenant than that of the members.
            enable_cae: Ask for a token of continuous access evaluation.
            kwargs: Passed on to the members.

        Raises:
            ClientAuthenticationError: No member gave a token; `attempts` has what each of them said.
            ValueError: No scope, or the chain is closed.
        """
        options = {"claims": claims, "tenant_id": tenant_id, "enable_cae": enable_cae, **kwargs}
        token: AccessToken
        member = self._chosen
        if member is not None and not self._closed:
            token = member.get_token(*scopes, **options)
        else:
            token = self._get(self._wish("get_token", scopes, options))
        return token

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return the token of the first member that gives one, with its type and when to ask again.

        Args:
            scopes: What the token is for.
            options: `claims`, `tenant_id`, `enable_cae`; other keys are passed on to the members.

        Raises:
            ClientAuthenticationError: No member gave a token; `attempts` has what each of them said.
            ValueError: As with `get_token`.
        """
        info: AccessTokenInfo = self._get(self._wish("get_token_info", scopes, options or {}))
        return info

    def close(self) -> None:
        """Close the members that can be closed; again does no harm."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        from contextlib import ExitStack  # noqa: PLC0415 - for who uses it

        with ExitStack() as stack:
            for credential in self.credentials:
                if hasattr(credential, "__enter__"):
                    stack.enter_context(credential)
            stack.pop_all()  # all of them are entered: `__exit__` leaves them
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        from contextlib import ExitStack  # noqa: PLC0415 - for who uses it

        self._closed = True
        with ExitStack() as stack:  # which goes on to the next when closing one fails
            for credential in reversed(self.credentials):
                if hasattr(credential, "__exit__"):
                    stack.callback(credential.__exit__, exc_type, exc_value, traceback)
                elif hasattr(credential, "close"):
                    stack.callback(credential.close)

    def _get(self, wish: Wish) -> Any:
        from workload_identity.drive import drive  # noqa: PLC0415 - what a token request needs
        from workload_identity.edge_blocking import Performer  # noqa: PLC0415

        with Performer(Options({}), SYSTEM, None) as perform:
            return drive(self._flow(wish), perform)


class AwaitingChain(Chain):
    """The methods of an awaiting chain."""

    _family = "awaiting"

    async def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """Return the token of the first member that gives one.

        Args:
            scopes: What the token is for, such as "https://vault.azure.net/.default".
            claims: A claims challenge, JSON text, as a resource sent it.
            tenant_id: Another tenant than that of the members.
            enable_cae: Ask for a token of continuous access evaluation.
            kwargs: Passed on to the members.

        Raises:
            ClientAuthenticationError: No member gave a token; `attempts` has what each of them said.
            ValueError: No scope, or the chain is closed.
        """
        options = {"claims": claims, "tenant_id": tenant_id, "enable_cae": enable_cae, **kwargs}
        token: AccessToken
        member = self._chosen
        if member is not None and not self._closed:
            token = await member.get_token(*scopes, **options)
        else:
            token = await self._get(self._wish("get_token", scopes, options))
        return token

    async def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        """Return the token of the first member that gives one, with its type and when to ask again.

        Args:
            scopes: What the token is for.
            options: `claims`, `tenant_id`, `enable_cae`; other keys are passed on to the members.

        Raises:
            ClientAuthenticationError: No member gave a token; `attempts` has what each of them said.
            ValueError: As with `get_token`.
        """
        info: AccessTokenInfo = await self._get(self._wish("get_token_info", scopes, options or {}))
        return info

    async def close(self) -> None:
        """Close the members that can be closed; again does no harm."""
        await self.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        from contextlib import AsyncExitStack  # noqa: PLC0415 - for who uses it

        async with AsyncExitStack() as stack:
            for credential in self.credentials:
                if hasattr(credential, "__aenter__"):
                    await stack.enter_async_context(credential)
            stack.pop_all()  # all of them are entered: `__aexit__` leaves them
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        from contextlib import AsyncExitStack  # noqa: PLC0415 - for who uses it

        self._closed = True
        async with AsyncExitStack() as stack:  # which goes on to the next when closing one fails
            for credential in reversed(self.credentials):
                if hasattr(credential, "__aexit__"):
                    stack.push_async_callback(credential.__aexit__, exc_type, exc_value, traceback)
                elif hasattr(credential, "close"):
                    stack.push_async_callback(_closed, credential)

    async def _get(self, wish: Wish) -> Any:
        from workload_identity.drive import drive_async  # noqa: PLC0415 - what a token request needs
        from workload_identity.edge_awaiting import Performer  # noqa: PLC0415

        async with Performer(Options({}), SYSTEM, None) as perform:
            return await drive_async(self._flow(wish), perform)


_WORDS = """Several credentials that are one: each call asks them in their order.

    A member that cannot even try here, and says so by a CredentialUnavailableError (this package's or
    azure-identity's) or by giving None, is passed over; the first token is returned; any other failure ends
    the call, so that the next member does not hide it. Nothing is held here: the members hold their tokens.

    Args:
        credentials: Anything with `get_token` or `get_token_info`.

    Raises:
        ValueError: No credential is given, or something else than one of this family.

    Source: azure-identity 1.27.0, `ChainedTokenCredential`.
    """


class ChainedTokenCredential(BlockingChain):  # noqa: D101 - it has, see above
    __doc__ = _WORDS


class AsyncChainedTokenCredential(AwaitingChain):  # noqa: D101 - likewise
    __doc__ = _WORDS


def _family_of(credential: object) -> str | None:
    """Return the family of a credential of this package."""
    if isinstance(credential, Blocking | BlockingChain):
        return "blocking"
    return "awaiting" if isinstance(credential, Awaiting | AwaitingChain) else None


async def _closed(credential: Any) -> None:
    closing = credential.close()
    if hasattr(closing, "__await__"):
        await closing
