"""ServiceAccounts: a table of those that carry our annotations, and a live look-up for the rest.

kopf's watch fills the table. A pod may come an instant after its ServiceAccount was annotated,
before the watch has told; so whoever is not in the table is asked for, once for all pods that
ask at the same moment. An unknown ServiceAccount is remembered for a second, so that a burst of
pods naming it costs one request; the watch clears that at once.
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping
from typing import Final, TypeAlias

from workload_identity_operator import contract
from workload_identity_operator.errors import AccountLookupFailed

Annotations: TypeAlias = Mapping[str, str]
Name: TypeAlias = tuple[str, str]
"""Namespace and name."""

MISSING_FOR: Final = 1.0
"""Seconds that a ServiceAccount which was not there is taken to be still missing."""
LOOKUP_TIMEOUT: Final = 2.0
"""Seconds; the API server gives up a review after 5 to 10."""


def ours(annotations: Mapping[str, str] | None) -> dict[str, str]:
    """Return the annotations under our prefix; the rest is dropped here, for memory's sake."""
    return {k: v for k, v in (annotations or {}).items() if k.startswith(contract.PREFIX)}


class Accounts:
    """Answers what a ServiceAccount is annotated with.

    Attributes:
        on_lookup: Told "table", "live", "missing" or "failed" for each answer.
        on_change: Told the namespace when what the table has of it changes.
    """

    def __init__(
        self,
        fetch: Callable[[str, str], Awaitable[Annotations | None]],
        on_lookup: Callable[[str], None] = lambda _: None,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start with an empty table.

        Args:
            fetch: Asks the API server for (namespace, name); None when there is none, an error of
                any kind when it could not tell.
            on_lookup: See the class.
            on_change: See the class.
        """
        self.on_lookup = on_lookup
        self.on_change = on_change
        self._fetch = fetch
        self._table: dict[str, dict[str, Annotations]] = {}
        self._flights: dict[Name, asyncio.Task[Annotations | None]] = {}
        self._missing: set[Name] = set()
        self._filling = False
        self._told: set[Name] = set()

    def __len__(self) -> int:
        """Return how many ServiceAccounts carry our annotations."""
        return sum(map(len, self._table.values()))

    def namespaces(self) -> Collection[str]:
        """Return the namespaces with a ServiceAccount that carries our annotations."""
        return self._table.keys()

    def namespaces_with_identities(self) -> list[str]:
        """Return the namespaces with a ServiceAccount that names an identity, sorted."""
        return sorted(
            namespace
            for namespace, inside in self._table.items()
            if any(annotations.get(contract.CLIENT_ID) for annotations in inside.values())
        )

    def identities(self, namespace: str) -> Mapping[str, Annotations]:
        """Return the ServiceAccounts of a namespace that carry our annotations, by name."""
        return self._table.get(namespace, {})

    def put(self, namespace: str, name: str, annotations: Mapping[str, str] | None) -> None:
        """Take what the watch told of a ServiceAccount that exists."""
        key = (namespace, name)
        if self._filling:
            self._told.add(key)
        self._missing.discard(key)
        self._keep(namespace, name, ours(annotations))

    def drop(self, namespace: str, name: str) -> None:
        """Take that the watch told of a ServiceAccount that is gone."""
        key = (namespace, name)
        if self._filling:
            self._told.add(key)
        self._keep(namespace, name, {})

    def _keep(self, namespace: str, name: str, kept: Annotations) -> None:
        inside = self._table.get(namespace, {})
        if kept == inside.get(name, {}):
            return
        if kept:
            self._table.setdefault(namespace, inside)[name] = kept
        else:
            del inside[name]
            if not inside:
                del self._table[namespace]
        self.on_change(namespace)

    async def fill(self, listing: AsyncIterable[tuple[str, str, Annotations]]) -> None:
        """Take a listing of all ServiceAccounts, which may be older than what the watch tells meanwhile.

        Whoever is not in it is gone: a watch that was away is never told of deletions it missed. Not so
        when the listing breaks off, which leaves the rest as it was.
        """
        self._filling = True
        absent = {(namespace, name) for namespace, inside in self._table.items() for name in inside}
        try:
            async for namespace, name, annotations in listing:
                absent.discard((namespace, name))
                if (namespace, name) not in self._told:
                    self._keep(namespace, name, ours(annotations))
            for namespace, name in absent - self._told:
                self._keep(namespace, name, {})
        finally:
            self._filling = False
            self._told.clear()

    async def of(self, namespace: str, name: str) -> Annotations | None:
        """Return the annotations under our prefix; None when there is no such ServiceAccount.

        Raises:
            AccountLookupFailed: It is not in the table and the API server did not tell in time.
        """
        key = (namespace, name)
        known = self.identities(namespace).get(name)
        if known is not None:
            self.on_lookup("table")
            return known
        if key in self._missing:
            self.on_lookup("missing")
            return None
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._look_up(key))
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        try:
            # Shielded: one caller's client hanging up must not fail the others.
            found = await asyncio.shield(flight)
        except AccountLookupFailed:
            self.on_lookup("failed")
            raise
        self.on_lookup("missing" if found is None else "live")
        return found

    async def _look_up(self, key: Name) -> Annotations | None:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                found = await self._fetch(*key)
        except TimeoutError as error:
            raise AccountLookupFailed(f"no answer within {LOOKUP_TIMEOUT:g} s") from error
        except Exception as error:  # whatever the edge raises, it did not tell
            raise AccountLookupFailed(str(error) or type(error).__name__) from error
        if found is not None:
            return ours(found)
        self._missing.add(key)
        asyncio.get_running_loop().call_later(MISSING_FOR, self._missing.discard, key)
        return None
