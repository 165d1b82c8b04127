"""Tokens that outlive the process: where they are stored, as azure-identity and Microsoft's tools do it too.

The store is msal-extensions', encrypted by the system where that can be; its content is MSAL's. Only
functions that block open it or look into it: a lock file keeps processes apart, and who holds it is waited
for. Nothing is imported for it before.

Sources: azure-identity 1.27.0, `TokenCachePersistenceOptions` (names and places); msal 1.39.0, `TokenCache`
(the schema of the content).
"""

from __future__ import annotations

import os
import sys
import time

from workload_identity.errors import ClientAuthenticationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_DEFAULT_NAME = "msal.cache"
_SERVICE = "Microsoft.Developer.IdentityService"
_LABEL = "MSALCache"
_ABANDONED = 60.0
"""Seconds; who writes has a store locked for some thousandths of one."""
_KINDS = ("AccessToken", "RefreshToken", "IdToken", "Account", "AppMetadata")
"""What MSAL's schema has entries of."""
_SUFFIXES = {False: ".nocae", True: ".cae"}


class TokenCachePersistenceOptions:
    """Where tokens are stored beyond the life of the process.

    With the default name they are shared with Microsoft's developer tools and with all who use that name.

    Args:
        allow_unencrypted_storage: Whether a plain file will do where the system cannot encrypt, as on a
            Linux without a keyring. Who can read that file has the tokens.
        name: Which store; others by another name are kept apart.

    Raises:
        ValueError: The name is none that a file can have.

    Source: azure-identity 1.27.0.
    """

    __slots__ = ("allow_unencrypted_storage", "name")

    def __init__(self, *, allow_unencrypted_storage: bool = False, name: str = _DEFAULT_NAME) -> None:
        if not name or any(letter in "/\\" or letter < " " for letter in name):
            raise ValueError(f"name: wanted the name of a file, without a folder, found {name!r}")
        self.allow_unencrypted_storage = bool(allow_unencrypted_storage)
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenCachePersistenceOptions) and self._all() == other._all()

    def __hash__(self) -> int:
        return hash(self._all())

    def _all(self) -> tuple[bool, str]:
        return self.allow_unencrypted_storage, self.name

    def __repr__(self) -> str:
        return (
            f"TokenCachePersistenceOptions(allow_unencrypted_storage={self.allow_unencrypted_storage},"
            f" name={self.name!r})"
        )


def persistence_options(given: Any) -> TokenCachePersistenceOptions | None:
    """Return the options as ours; azure-identity's have the same attributes.

    Raises:
        ValueError: They are something else, or the name is none that a file can have.
    """
    if given is None or isinstance(given, TokenCachePersistenceOptions):
        return given
    try:
        return TokenCachePersistenceOptions(
            allow_unencrypted_storage=given.allow_unencrypted_storage, name=given.name
        )
    except AttributeError as failure:
        raise ValueError(
            f"cache_persistence_options: wanted TokenCachePersistenceOptions, found {type(given).__name__}"
        ) from failure


def opened(options: TokenCachePersistenceOptions, *, cae: bool) -> Any:
    """Return an MSAL token cache whose content is in the store; blocks.

    Args:
        options: Which store.
        cae: The half for tokens of continuous access evaluation, which are kept apart.

    Raises:
        ClientAuthenticationError: It cannot be opened; the message says what to change.
    """
    try:
        import msal_extensions  # noqa: PLC0415 - only who stores tokens needs it
    except ImportError as failure:
        raise ClientAuthenticationError(
            "cache_persistence_options: to store tokens takes msal-extensions, which is not installed here:"
            " pip install 'workload-identity[persistent-cache]'"
        ) from failure
    try:
        place = _persistence(msal_extensions, options, options.name + _SUFFIXES[cae])
        lock = f"{place.get_location()}.lockfile"
        place.load = _legible(place.load)
        return _Explaining.around(msal_extensions.PersistedTokenCache(place, lock), options, lock)
    except ClientAuthenticationError:
        raise
    except Exception as failure:
        raise _unusable(options, failure) from failure


class _DamagedError(ValueError):
    """What is in a store is none of MSAL's: it was written half, as on a full disk, or by something else."""


def _legible(load: Callable[[], str]) -> Callable[[], str]:
    """Have what is no text at all count as text that is damaged."""

    def loaded() -> str:
        try:
            return load()
        except UnicodeDecodeError:
            return "no text"

    return loaded


def check(state: str) -> None:
    """Look whether a store's content is what MSAL reads: entries by their keys, by their kinds.

    Raises:
        ValueError: It is not.
    """
    import json  # noqa: PLC0415 - few store tokens

    content = json.loads(state)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - one kind of error for all that is wrong with it
    for kind in _KINDS:
        entries = content.get(kind, {})
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise ValueError(f"{kind} is no JSON object of JSON objects")
    for entry in content.get("AccessToken", {}).values():
        if not str(entry.get("expires_on")).isdecimal():
            raise ValueError("an access token has no end")


class _Explaining:
    """What is said when a store cannot be read, or written.

    One that is damaged is nobody's: it counts as empty, and what is stored next begins it anew.
    """

    def __init__(self, cache: Any, options: TokenCachePersistenceOptions, lock: str) -> None:
        self._search, self._modify, self._deserialize = cache.search, cache.modify, cache.deserialize
        self._options = options
        self._lock = lock
        self._beginning_anew = False

    @classmethod
    def around(cls, cache: Any, options: TokenCachePersistenceOptions, lock: str) -> Any:
        """Have a cache explain itself, and return it."""
        explaining = cls(cache, options, lock)
        cache.search, cache.modify = explaining.search, explaining.modify
        cache.deserialize = explaining.deserialize
        return cache

    def deserialize(self, state: str | None) -> None:
        """Do as the cache does.

        Raises:
            _DamagedError: It is damaged, and a new one is not to be begun.
        """
        try:
            if state:
                check(state)
        except (ValueError, RecursionError) as failure:
            if not self._beginning_anew:
                raise _DamagedError(str(failure)) from failure
            state = ""
        self._deserialize(state)

    def search(self, *sought: Any, **how: Any) -> Any:
        """Do as the cache does.

        Raises:
            ClientAuthenticationError: The store cannot be read.
        """
        try:
            return iter(list(self._search(*sought, **how)))
        except _DamagedError:
            return iter(())
        except Exception as failure:
            raise _unusable(self._options, failure) from failure

    def modify(self, *change: Any, **how: Any) -> None:
        """Do as the cache does; a store that cannot be written is no reason to have no token."""
        from workload_identity import records  # noqa: PLC0415 - few store tokens

        _unlock(self._lock)
        try:
            try:
                self._modify(*change, **how)
            except _DamagedError:
                # It was read while nobody else writes: nobody will ever have it whole.
                records.begun_anew(self._options.name)
                self._beginning_anew = True
                self._modify(*change, **how)
        except Exception as failure:  # noqa: BLE001 - a file system, or a system's keyring, may do anything here
            records.not_stored(_unusable(self._options, failure))


def _unlock(lock: str) -> None:
    """Remove the lock of a process that was killed as it wrote: all others would wait for it, for ever."""
    try:
        if time.time() - os.path.getmtime(lock) > _ABANDONED:  # noqa: PTH204 - pathlib is no light import
            os.unlink(lock)  # noqa: PTH108 - likewise
    except OSError:  # nobody's, as nearly always, or not ours to remove: then it is waited for
        return


def _unusable(options: TokenCachePersistenceOptions, failure: Exception) -> ClientAuthenticationError:
    return ClientAuthenticationError(
        f"the token store {options.name!r} cannot be used: {str(failure) or type(failure).__name__}. Check"
        " who owns it and that its file system has room, or leave cache_persistence_options out."
    )


def _persistence(extensions: Any, options: TokenCachePersistenceOptions, name: str) -> Any:
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        place = os.path.join(os.environ["LOCALAPPDATA"], ".IdentityService", name)  # noqa: PTH118 - a text is wanted
        return extensions.FilePersistenceWithDataProtection(place)
    place = os.path.join(os.path.expanduser("~"), ".IdentityService", name)  # noqa: PTH111, PTH118 - likewise
    if sys.platform == "darwin":
        account = _LABEL if name == _DEFAULT_NAME + _SUFFIXES[False] else name
        _make_folder(place)
        return extensions.KeychainPersistence(place, _SERVICE, account)
    if sys.platform.startswith("linux"):
        _make_folder(place)
        try:
            return extensions.LibsecretPersistence(place, name, {"MsalClientID": _SERVICE}, label=_LABEL)
        except Exception as failure:
            if options.allow_unencrypted_storage:
                return extensions.FilePersistence(place)
            raise ClientAuthenticationError(
                f"the token store {options.name!r} cannot be encrypted here, as libsecret or a session's"
                " keyring is missing. If a plain file will do:"
                " TokenCachePersistenceOptions(allow_unencrypted_storage=True)."
            ) from failure
    raise ClientAuthenticationError(
        f"cache_persistence_options: no way to store tokens is known on {sys.platform}; leave them out"
    )


def _make_folder(place: str) -> None:
    """Make the store's folder, for its owner alone, where there is none."""
    # msal-extensions would let everyone look into it. It makes files for their owner alone.
    os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120 - pathlib is no light import
