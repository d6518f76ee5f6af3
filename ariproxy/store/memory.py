"""The store in the process's own memory: for tests, the demo and small sites."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from zope.interface import implementer

from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.interfaces import IStore

__all__ = ["MemoryStore"]


@implementer(IStore)
class MemoryStore:
    """Entries are bounded by their expiry alone, and lost with the process.

    :param ttl: seconds from the last ``set`` or ``refresh`` to the expiry.
    :param now: a clock in seconds that never goes back.
    """

    name = "memory"

    def __init__(self, ttl: float, now: Callable[[], float]) -> None:
        self._ttl = ttl
        self._now = now
        # key -> value and expiry. All entries live equally long, so the order
        # of writing is the order of expiry and the first is the next to go.
        # (A plain dict would walk over the gaps of its removed first entries.)
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._closed = False

    async def get(self, key: str) -> str | None:
        """See ``IStore``."""
        self._tidy()
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    async def set(self, key: str, value: str) -> None:
        """See ``IStore``."""
        now = self._tidy()
        try:
            (key + value).encode()
        except UnicodeEncodeError as error:
            raise StoreRefused("a key or value that is no valid Unicode") from error
        self._entries[key] = (value, now + self._ttl)
        self._entries.move_to_end(key)

    async def refresh(self, key: str) -> None:
        """See ``IStore``."""
        value = await self.get(key)
        if value is not None:
            await self.set(key, value)

    async def forget(self, key: str) -> None:
        """See ``IStore``."""
        self._tidy()
        self._entries.pop(key, None)

    async def check(self) -> None:
        """See ``IHealthChecked``; all is well until ``close``."""
        self._tidy()

    async def close(self) -> None:
        """See ``IStore``; the entries are gone."""
        self._closed = True
        self._entries.clear()

    def _tidy(self) -> float:
        """Remove what has expired; gives the time. Refused after ``close``."""
        if self._closed:
            raise StoreUnavailable("the memory store is closed")
        now = self._now()
        while self._entries:
            key, (_, expires) = next(iter(self._entries.items()))
            if expires > now:
                break
            del self._entries[key]
        return now
