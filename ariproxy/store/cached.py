"""A bounded local cache in front of a store.

The event way asks ``peek`` for every event, so that a known resource costs
neither a coroutine nor a turn of the reactor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ariproxy.interfaces import ICachedStore, IStore

__all__ = ["CacheMetrics", "CachedStore"]


class CacheMetrics(Protocol):
    """What the cache counts; ``cache_read_attempt`` is called for every event."""

    def cache_read_attempt(self) -> None:
        """A value was asked for: found here, or to be read from the store."""

    def cache_read_miss(self) -> None:
        """The store was read and answered, with a value or with none."""

    def cache_read_error(self) -> None:
        """A value that is not here could not be had."""

    def persistence_read_error(self) -> None:
        """Reading the store failed."""

    def persistence_write(self, seconds: float) -> None:
        """The store has written a value, in this time."""


@implementer(ICachedStore)
class CachedStore:
    """Keeps what was last used; holds neither a miss nor an error.

    An entry known here may have been replaced in the store by another process:
    it is believed until it was unused for ``ttl``.

    :param size: how many entries are kept; the least recently used one goes.
    :param ttl: seconds an entry is kept after its last use.
    :param now: a clock in seconds that never goes back.
    """

    def __init__(
        self,
        store: IStore,
        size: int,
        ttl: float,
        now: Callable[[], float],
        metrics: CacheMetrics,
    ) -> None:
        self.name = store.name
        self._store = store
        self._size = size
        self._ttl = ttl
        self._now = now
        self._metrics = metrics
        # key -> [value, last use], the least recently used first.
        self._entries: OrderedDict[str, list] = OrderedDict()
        # key -> who waits for the one read of it that is under way.
        self._reads: dict[str, list[Deferred[str | None]]] = {}
        self._closed = False

    def peek(self, key: str) -> str | None:
        """The value if it is known here; counts as a use of it."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._now()
        if now - entry[1] >= self._ttl:
            del self._entries[key]
            return None
        entry[1] = now
        self._entries.move_to_end(key)
        self._metrics.cache_read_attempt()
        return entry[0]

    async def get(self, key: str) -> str | None:
        """See ``IStore``; callers that ask for one key at once share one read."""
        value = self.peek(key)
        if value is not None:
            return value
        self._metrics.cache_read_attempt()
        answer: Deferred[str | None] = Deferred()
        waiting = self._reads.get(key)
        if waiting is not None:
            waiting.append(answer)
        else:
            self._reads[key] = waiting = [answer]
            # Not awaited: a caller that gives up must not stop the others.
            ensureDeferred(self._read(key, waiting))
        return await answer

    async def set(self, key: str, value: str) -> None:
        """See ``IStore``; the value is known here at once, also if writing fails."""
        self._keep(key, value)
        # Newer than what a read that is under way is going to find.
        for answer in self._reads.pop(key, ()):
            answer.callback(value)
        started = self._now()
        await self._store.set(key, value)
        self._metrics.persistence_write(self._now() - started)

    async def refresh(self, key: str) -> None:
        """See ``IStore``."""
        await self._store.refresh(key)

    async def forget(self, key: str) -> None:
        """See ``IStore``; unknown here at once, also if the store fails."""
        self._entries.pop(key, None)
        # Later callers must not join a read that may find the old value.
        self._reads.pop(key, None)
        await self._store.forget(key)

    async def check(self) -> None:
        """See ``IHealthChecked``; asks the store."""
        await self._store.check()

    async def close(self) -> None:
        """See ``IStore``."""
        self._closed = True
        self._entries.clear()
        await self._store.close()

    async def _read(self, key: str, waiting: list[Deferred[str | None]]) -> None:
        """Read the store for all who wait, unless a ``set`` has answered them."""
        outcome: str | Failure | None
        try:
            outcome = await self._store.get(key)
        except Exception:
            outcome = Failure()
            self._metrics.persistence_read_error()
            self._metrics.cache_read_error()
        else:
            self._metrics.cache_read_miss()
        if self._reads.get(key) is waiting:
            del self._reads[key]
            if isinstance(outcome, str):
                self._keep(key, outcome)
        for answer in waiting:
            if not answer.called:
                answer.callback(outcome)

    def _keep(self, key: str, value: str) -> None:
        if self._closed:
            return
        now = self._now()
        entries = self._entries
        entries[key] = [value, now]
        entries.move_to_end(key)
        while len(entries) > self._size:
            entries.popitem(last=False)
        # Unused entries go in passing: the first is the longest unused.
        while entries:
            first, (_, used) = next(iter(entries.items()))
            if now - used < self._ttl:
                break
            del entries[first]
