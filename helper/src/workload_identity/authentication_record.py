"""Whose sign-in it was: what a program keeps so that the same person need not sign in again.

The text is azure-identity's, letter for letter, so that either reads what the other wrote.

Source: azure-identity 1.27.0, `AuthenticationRecord`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self

_VERSIONS = ("1.0",)
_MEMBERS = {
    "authority": "authority",
    "clientId": "client_id",
    "homeAccountId": "home_account_id",
    "tenantId": "tenant_id",
    "username": "username",
}
"""What a member of the text is called here."""


class AuthenticationRecord:
    """A person's account, as far as it is no secret; immutable, equal when all of it is.

    Args:
        tenant_id: The tenant that signed the person in.
        client_id: The application that they signed in to.
        authority: The token service's host.
        home_account_id: The account, whichever tenant it signs in to.
        username: The name they sign in with.
    """

    __slots__ = ("_authority", "_client_id", "_home_account_id", "_tenant_id", "_username")

    def __init__(
        self, tenant_id: str, client_id: str, authority: str, home_account_id: str, username: str
    ) -> None:
        self._authority = authority
        self._client_id = client_id
        self._home_account_id = home_account_id
        self._tenant_id = tenant_id
        self._username = username

    @property
    def authority(self) -> str:
        """The token service's host."""
        return self._authority

    @property
    def client_id(self) -> str:
        """The application that the person signed in to."""
        return self._client_id

    @property
    def home_account_id(self) -> str:
        """The account, whichever tenant it signs in to."""
        return self._home_account_id

    @property
    def tenant_id(self) -> str:
        """The tenant that signed the person in."""
        return self._tenant_id

    @property
    def username(self) -> str:
        """The name they sign in with."""
        return self._username

    @classmethod
    def deserialize(cls, data: str) -> Self:
        """Return the record of a text.

        Raises:
            ValueError: It is no such text, of an unknown version, or lacks a member; the message names it.
        """
        import json  # noqa: PLC0415 - for who keeps records

        content = json.loads(data)
        content = content if isinstance(content, dict) else {}
        version = content.get("version")
        if version not in _VERSIONS:
            raise ValueError(
                f"version {version!r} of an authentication record; known are: {', '.join(_VERSIONS)}"
            )
        missing = [member for member in _MEMBERS if not isinstance(content.get(member), str)]
        if missing:
            raise ValueError(f"authentication record: {', '.join(missing)} missing, or no text")
        return cls(**{name: content[member] for member, name in _MEMBERS.items()})

    def serialize(self) -> str:
        """Return the record as a text, which holds no secret."""
        import json  # noqa: PLC0415 - as above

        content = {member: getattr(self, name) for member, name in _MEMBERS.items()}
        return json.dumps({**content, "version": _VERSIONS[-1]})

    def _all(self) -> tuple[str, ...]:
        return tuple(getattr(self, name) for name in _MEMBERS.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AuthenticationRecord) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return (
            f"<AuthenticationRecord username={self.username!r} tenant_id={self.tenant_id!r}"
            f" client_id={self.client_id!r} authority={self.authority!r}>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), tuple(
            getattr(self, name)
            for name in ("tenant_id", "client_id", "authority", "home_account_id", "username")
        )


def record_of(claims: Mapping[str, Any], account: str | None) -> AuthenticationRecord:
    """Return the record of a sign-in.

    Args:
        claims: The id token's.
        account: The home account, "uid.utid"; None: the token's subject stands for it, as with ADFS.

    Raises:
        ValueError: Something is missing; the message names it.
    """
    scheme, _, rest = str(claims.get("iss") or "").partition("://")
    host, _, path = rest.partition("/")
    found = {
        "tenant_id": claims.get("tid") or path.strip("/"),
        "client_id": claims.get("aud"),
        "authority": host if scheme == "https" else "",
        "home_account_id": account or claims.get("sub"),
        "username": claims.get("preferred_username") or claims.get("upn"),
    }
    told = {name: value for name, value in found.items() if value and isinstance(value, str)}
    if told.keys() != found.keys():
        raise ValueError(f"the id token does not tell {', '.join(sorted(found.keys() - told.keys()))}")
    return AuthenticationRecord(**told)
