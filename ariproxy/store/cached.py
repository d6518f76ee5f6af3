"""A bounded local cache in front of a store.

The event way asks ``peek`` for every event, so that a known resource costs
neither a coroutine nor a turn of the reactor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.interfaces import ICachedStore, IStore

__all__ = ["CacheMetrics", "CachedStore"]

AT_ONCE = 20
"""Entries that are written again side by side after an outage."""

T = TypeVar("T")


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
    it is believed until it was unused for ``ttl``. One that the store has lost,
    as it came back from an outage with an older state, is written again.

    :param size: how many entries are kept; the least recently used one goes.
    :param ttl: seconds an entry is kept after its last use.
    :param now: a clock in seconds that never goes back.
    """

    _log = Logger()

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
        # Since an error, until all that the store has lost is written again.
        self._doubtful = False
        self._restoring = False

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
        await self._asked(self._store.set(key, value))
        self._metrics.persistence_write(self._now() - started)

    async def refresh(self, key: str) -> None:
        """See ``IStore``."""
        await self._asked(self._store.refresh(key))

    async def forget(self, key: str) -> None:
        """See ``IStore``; unknown here at once, also if the store fails."""
        self._entries.pop(key, None)
        # Later callers must not join a read that may find the old value.
        self._reads.pop(key, None)
        await self._asked(self._store.forget(key))

    async def check(self) -> None:
        """See ``IHealthChecked``; asks the store.

        Where it was away before, what it has lost is written after that.
        """
        await self._asked(self._store.check())
        if self._doubtful and not self._restoring:
            ensureDeferred(self._restore_all())

    async def close(self) -> None:
        """See ``IStore``."""
        self._closed = True
        self._entries.clear()
        await self._store.close()

    async def _read(self, key: str, waiting: list[Deferred[str | None]]) -> None:
        """Read the store for all who wait, unless a ``set`` has answered them."""
        outcome: str | Failure | None
        try:
            outcome = await self._asked(self._store.get(key))
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

    async def _asked(self, answer: Awaitable[T]) -> T:
        """The store's answer; notes when it cannot give one."""
        try:
            return await answer
        except StoreUnavailable:
            self._doubtful = True
            raise

    async def _restore(self, key: str) -> None:
        """Write the entry if it is known here, and the store has none."""
        entry = self._entries.get(key)
        if entry is None or await self._asked(self._store.get(key)) is not None:
            return
        # Meanwhile it may have been forgotten, or set.
        if self._entries.get(key) is entry:
            await self._asked(self._store.set(key, entry[0]))

    async def _restore_all(self) -> None:
        self._restoring, self._doubtful = True, False
        keys = iter(list(self._entries))
        workers = [ensureDeferred(self._restore_each(keys)) for _ in range(AT_ONCE)]
        for worker in workers:
            await worker
        self._restoring = False

    async def _restore_each(self, keys: Iterator[str]) -> None:
        for key in keys:
            try:
                await self._restore(key)
            except StoreUnavailable:
                return
            except StoreRefused as error:
                self._log.debug(
                    "Entry {key} not restored: {error}", key=key, error=error
                )

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
