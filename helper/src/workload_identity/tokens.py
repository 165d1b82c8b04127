"""What a credential hands out.

Field names, order and meaning are azure-core's, so that an Azure SDK client takes these for its own; no
dependency on azure-core follows from that. Unlike there, `repr` never shows a token.

Source: azure-core 1.41.0, `azure.core.credentials`.
"""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Type checkers see subclasses of azure-core's classes, where it is installed; nothing is imported to run.
    from azure.core.credentials import AccessToken as TokenLike
    from azure.core.credentials import AccessTokenInfo as InfoLike
else:
    # `typing.NamedTuple` would be the most expensive import of this package.
    TokenLike = namedtuple("AccessToken", ("token", "expires_on"))  # noqa: PYI024
    InfoLike = object

MASK = "***"


class AccessToken(TokenLike):
    """A token and its end: a tuple.

    Attributes:
        token: What goes behind `Bearer ` in an Authorization header.
        expires_on: When it ends, in seconds since the epoch.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # For who has no azure-core, whose classes are unknown then.
        @property
        def token(self) -> str:
            """The token's text."""
            ...

        @property
        def expires_on(self) -> int:
            """When it ends."""
            ...

    def __repr__(self) -> str:
        return f"AccessToken(token='{MASK}', expires_on={self.expires_on})"


class AccessTokenInfo(InfoLike):
    """A token, its end, its type, and when it is time for another. Shared by all who ask, hence immutable.

    Attributes:
        token: What goes behind the type in an Authorization header.
        expires_on: When it ends, in seconds since the epoch.
        token_type: `Bearer`, unless the token service said otherwise.
        refresh_on: When a newer one should be asked for, in seconds since the epoch; None when nobody said.
    """

    __slots__ = ("expires_on", "refresh_on", "token", "token_type")

    token: str
    expires_on: int
    token_type: str
    refresh_on: int | None

    def __init__(
        self,
        token: str,
        expires_on: int,
        *,
        token_type: str = "Bearer",  # noqa: S107 - a kind of token, not one
        refresh_on: int | None = None,
    ) -> None:
        put = super().__setattr__
        put("token", token)
        put("expires_on", expires_on)
        put("token_type", token_type)
        put("refresh_on", refresh_on)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"{name}: an AccessTokenInfo is shared by all who asked for it; make another instead"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(
            f"{name}: an AccessTokenInfo is shared by all who asked for it; make another instead"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _info, (self.token, self.expires_on, self.token_type, self.refresh_on)

    def __repr__(self) -> str:
        return (
            f"AccessTokenInfo(token='{MASK}', expires_on={self.expires_on}, token_type={self.token_type!r},"
            f" refresh_on={self.refresh_on})"
        )


def _info(token: str, expires_on: int, token_type: str, refresh_on: int | None) -> AccessTokenInfo:
    return AccessTokenInfo(token, expires_on, token_type=token_type, refresh_on=refresh_on)
