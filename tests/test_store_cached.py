"""Tests for the local cache in front of a store."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.interfaces import ICachedStore, IStore
from ariproxy.store.cached import CachedStore
from ariproxy.store.memory import MemoryStore
from tests.fakes import FakeStore
from tests.store_contract import StoreContract


class CountedMetrics:
    """Counts what the cache reports."""

    def __init__(self) -> None:
        self.attempts = self.misses = self.cache_errors = self.store_errors = 0
        self.writes: list[float] = []

    def cache_read_attempt(self) -> None:
        self.attempts += 1

    def cache_read_miss(self) -> None:
        self.misses += 1

    def cache_read_error(self) -> None:
        self.cache_errors += 1

    def persistence_read_error(self) -> None:
        self.store_errors += 1

    def persistence_write(self, seconds: float) -> None:
        self.writes.append(seconds)


@implementer(IStore)
class HeldStore:
    """Answers when the test says so; ``calls`` holds what was asked."""

    name = "redis"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Deferred[Any]] = []

    def _hold(self, *call: Any) -> Deferred[Any]:
        self.calls.append(call)
        self.answers.append(Deferred())
        return self.answers[-1]

    def get(self, key: str) -> Deferred[str | None]:
        return self._hold("get", key)

    def set(self, key: str, value: str) -> Deferred[None]:
        return self._hold("set", key, value)

    def refresh(self, key: str) -> Deferred[None]:
        return self._hold("refresh", key)

    def forget(self, key: str) -> Deferred[None]:
        return self._hold("forget", key)

    def check(self) -> Deferred[None]:
        return self._hold("check")

    def close(self) -> Deferred[None]:
        return succeed(None)


class CachedStoreContractTests(StoreContract, TestCase):
    """CachedStore keeps the contract of IStore."""

    def setUp(self) -> None:
        self.clock = Clock()

    async def make_store(self) -> CachedStore:
        store = MemoryStore(self.ttl, self.clock.seconds)
        return CachedStore(store, 1000, self.ttl, self.clock.seconds, CountedMetrics())

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class CachedStoreTests(SynchronousTestCase):
    """The cache over a store whose answers are held."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = HeldStore()
        self.metrics = CountedMetrics()
        self.cached = CachedStore(self.store, 3, 10, self.clock.seconds, self.metrics)

    def get(self, key: str) -> Deferred[str | None]:
        return ensureDeferred(self.cached.get(key))

    def set(self, key: str, value: str) -> Deferred[None]:
        return ensureDeferred(self.cached.set(key, value))

    def test_interface(self) -> None:
        """The doubles and the cache are what they are taken for."""
        verifyObject(IStore, self.store)
        verifyObject(ICachedStore, self.cached)
        self.assertEqual(self.cached.name, "redis")

    def test_peek_unknown(self) -> None:
        """What is not known here is None, and the store is not asked."""
        self.assertIsNone(self.cached.peek("key"))
        self.assertEqual(self.store.calls, [])

    def test_write_is_known_at_once(self) -> None:
        """A value is known before the store has written it."""
        writing = self.set("key", "value")
        self.assertNoResult(writing)
        self.assertEqual(self.cached.peek("key"), "value")
        self.store.answers[0].callback(None)
        self.successResultOf(writing)

    def test_failed_write_stays_known(self) -> None:
        """When writing fails the caller is told and the value stays here."""
        writing = self.set("key", "value")
        self.store.answers[0].errback(StoreUnavailable("away"))
        self.failureResultOf(writing, StoreUnavailable)
        self.assertEqual(self.cached.peek("key"), "value")
        self.assertEqual(self.metrics.writes, [])

    def test_read_is_kept(self) -> None:
        """A value that was read once is not read again."""
        reading = self.get("key")
        self.store.answers[0].callback("value")
        self.assertEqual(self.successResultOf(reading), "value")
        self.assertEqual(self.cached.peek("key"), "value")
        self.assertEqual(self.successResultOf(self.get("key")), "value")
        self.assertEqual(self.store.calls, [("get", "key")])

    def test_miss_is_not_kept(self) -> None:
        """A miss is asked again: another process may have written since."""
        reading = self.get("key")
        self.store.answers[0].callback(None)
        self.assertIsNone(self.successResultOf(reading))
        again = self.get("key")
        self.store.answers[1].callback("theirs")
        self.assertEqual(self.successResultOf(again), "theirs")

    def test_error_is_not_kept(self) -> None:
        """A failed read raises, and the next call asks again."""
        reading = self.get("key")
        self.store.answers[0].errback(StoreUnavailable("away"))
        self.failureResultOf(reading, StoreUnavailable)
        again = self.get("key")
        self.store.answers[1].callback("value")
        self.assertEqual(self.successResultOf(again), "value")

    def test_reads_are_shared(self) -> None:
        """Callers that ask for one key at once share one read of the store."""
        first, second, other = self.get("key"), self.get("key"), self.get("other")
        self.assertEqual(self.store.calls, [("get", "key"), ("get", "other")])
        self.store.answers[0].callback("value")
        self.assertEqual(self.successResultOf(first), "value")
        self.assertEqual(self.successResultOf(second), "value")
        self.assertNoResult(other)

    def test_shared_error(self) -> None:
        """A read that fails fails for all who share it, and counts once."""
        first, second = self.get("key"), self.get("key")
        self.store.answers[0].errback(StoreUnavailable("away"))
        self.failureResultOf(first, StoreUnavailable)
        self.failureResultOf(second, StoreUnavailable)
        self.assertEqual((self.metrics.cache_errors, self.metrics.store_errors), (1, 1))

    def test_one_gives_up(self) -> None:
        """A caller that gives up takes nothing from the others."""
        first, second = self.get("key"), self.get("key")
        first.cancel()
        self.failureResultOf(first)
        self.store.answers[0].callback("value")
        self.assertEqual(self.successResultOf(second), "value")
        self.assertEqual(self.cached.peek("key"), "value")

    def test_write_beats_read(self) -> None:
        """A value written while a read is under way answers it and stays."""
        reading = self.get("key")
        self.set("key", "new")
        self.assertEqual(self.successResultOf(reading), "new")
        self.store.answers[0].callback("old")
        self.assertEqual(self.cached.peek("key"), "new")

    def test_write_beats_failing_read(self) -> None:
        """The read that was overtaken may fail; nobody is told."""
        reading = self.get("key")
        self.set("key", "new")
        self.store.answers[0].errback(StoreUnavailable("away"))
        self.assertEqual(self.successResultOf(reading), "new")
        self.assertEqual(self.cached.peek("key"), "new")

    def test_forget(self) -> None:
        """A forgotten entry is unknown at once, also if the store fails."""
        self.set("key", "value")
        forgetting = ensureDeferred(self.cached.forget("key"))
        self.assertIsNone(self.cached.peek("key"))
        self.store.answers[1].errback(StoreUnavailable("away"))
        self.failureResultOf(forgetting, StoreUnavailable)
        self.assertIsNone(self.cached.peek("key"))

    def test_forget_beats_read(self) -> None:
        """What a read finds that began before a forget is not kept or shared."""
        reading = self.get("key")
        ensureDeferred(self.cached.forget("key"))
        later = self.get("key")
        self.store.answers[0].callback("old")
        self.assertEqual(self.successResultOf(reading), "old")
        self.assertIsNone(self.cached.peek("key"))
        self.store.answers[2].callback(None)
        self.assertIsNone(self.successResultOf(later))

    def test_bounded(self) -> None:
        """The least recently used entry makes room."""
        for key in "abc":
            self.set(key, key)
        self.cached.peek("a")
        self.set("d", "d")
        self.assertEqual(
            [self.cached.peek(key) for key in "abcd"], ["a", None, "c", "d"]
        )

    def test_sliding(self) -> None:
        """An entry is kept for the ttl after its last use."""
        self.set("used", "1")
        self.set("unused", "2")
        self.clock.advance(6)
        self.cached.peek("used")
        self.clock.advance(6)
        self.assertEqual(self.cached.peek("used"), "1")
        self.assertIsNone(self.cached.peek("unused"))
        self.clock.advance(10)
        self.assertIsNone(self.cached.peek("used"))

    def test_unused_entries_leave(self) -> None:
        """Entries past their ttl leave the memory without being asked for."""
        self.set("a", "a")
        self.set("b", "b")
        self.clock.advance(10)
        self.set("c", "c")
        self.assertEqual(list(self.cached._entries), ["c"])

    def test_passed_through(self) -> None:
        """Refresh and check ask the store and bring its answer."""
        refreshing = ensureDeferred(self.cached.refresh("key"))
        checking = ensureDeferred(self.cached.check())
        self.assertEqual(self.store.calls, [("refresh", "key"), ("check",)])
        self.store.answers[0].callback(None)
        self.store.answers[1].errback(StoreUnavailable("away"))
        self.assertIsNone(self.successResultOf(refreshing))
        self.failureResultOf(checking, StoreUnavailable)

    def test_closed(self) -> None:
        """Nothing is known after close, also nothing that is written then."""
        self.set("key", "value")
        self.successResultOf(ensureDeferred(self.cached.close()))
        self.set("key", "value")
        self.assertIsNone(self.cached.peek("key"))

    def test_metrics(self) -> None:
        """Hits and reads are attempts; answers of the store are misses."""
        writing = self.set("key", "value")
        self.clock.advance(2)
        self.store.answers[0].callback(None)
        self.successResultOf(writing)
        self.assertEqual(self.metrics.writes, [2.0])
        self.cached.peek("key")
        self.cached.peek("unknown")
        self.get("key")
        self.get("absent")
        self.store.answers[1].callback(None)
        self.assertEqual((self.metrics.attempts, self.metrics.misses), (3, 1))
        self.assertEqual((self.metrics.cache_errors, self.metrics.store_errors), (0, 0))


class RestoringTests(SynchronousTestCase):
    """What the store loses in an outage is written again."""

    def setUp(self) -> None:
        self.store = FakeStore()
        self.cached = CachedStore(
            self.store, 100, 1000.0, Clock().seconds, CountedMetrics()
        )

    def now(self, call: Any) -> Any:
        return self.successResultOf(ensureDeferred(call))

    def outage(self, lost: str) -> None:
        """The store is away for a call, and comes back without some entries."""
        self.store.error = StoreUnavailable("away")
        self.failureResultOf(ensureDeferred(self.cached.check()), StoreUnavailable)
        self.store.error = None
        for key in lost:
            self.store.entries.pop(key, None)

    def test_after_an_outage(self) -> None:
        """With the first check that succeeds; what another has written stays."""
        for key in "abc":
            self.now(self.cached.set(key, f"of {key}"))
        self.outage("ab")
        self.store.entries["b"] = "another's"
        self.now(self.cached.check())
        self.assertEqual(
            self.store.entries, {"a": "of a", "b": "another's", "c": "of c"}
        )

    def test_once(self) -> None:
        """A store that is well is not asked for all that is known."""
        self.now(self.cached.set("a", "x"))
        self.outage("a")
        self.now(self.cached.check())
        self.store.calls.clear()
        self.now(self.cached.check())
        self.assertEqual(self.store.calls, [("check", "")])

    def test_away_again(self) -> None:
        """What could not be written then is written after the next outage."""
        for key in "abc":
            self.now(self.cached.set(key, key))
        self.outage("abc")
        self.store.refuse = lambda key: StoreUnavailable("away") if key else None
        self.now(self.cached.check())
        self.assertEqual(self.store.entries, {})
        self.store.refuse = lambda key: None
        self.now(self.cached.check())
        self.assertEqual(self.store.entries, {"a": "a", "b": "b", "c": "c"})

    def test_one_that_is_refused(self) -> None:
        """It does not keep the others from being written."""
        for key in "abc":
            self.now(self.cached.set(key, key))
        self.outage("abc")
        self.store.refuse = lambda key: StoreRefused("odd") if key == "a" else None
        self.now(self.cached.check())
        self.assertEqual(self.store.entries, {"b": "b", "c": "c"})

    def test_forgotten_meanwhile(self) -> None:
        """What is forgotten or set while the store is asked stays so."""
        for key in "ab":
            self.now(self.cached.set(key, "old"))
        self.outage("ab")
        self.store.holding = True
        check = ensureDeferred(self.cached.check())
        self.store.release()
        ensureDeferred(self.cached.forget("a"))
        ensureDeferred(self.cached.set("b", "new"))
        self.store.release_all()
        self.successResultOf(check)
        self.assertEqual(self.store.entries, {"b": "new"})


class CacheAgainstModelTests(SynchronousTestCase):
    """The cache never answers anything but the store's newest value."""

    @settings(deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "get", "peek", "forget", "wait"]),
                st.sampled_from("abcde"),
            ),
            max_size=60,
        )
    )
    def test_agrees_with_the_store(self, steps: list[tuple[str, str]]) -> None:
        """Whatever is done, peek is the store's value or None, and get is it."""
        clock = Clock()
        store = MemoryStore(1000, clock.seconds)
        cached = CachedStore(store, 3, 10, clock.seconds, CountedMetrics())
        written: dict[str, str] = {}
        for number, (step, key) in enumerate(steps):
            if step == "set":
                written[key] = str(number)
                self.successResultOf(ensureDeferred(cached.set(key, str(number))))
            elif step == "forget":
                written.pop(key, None)
                self.successResultOf(ensureDeferred(cached.forget(key)))
            elif step == "get":
                found = self.successResultOf(ensureDeferred(cached.get(key)))
                self.assertEqual(found, written.get(key))
            elif step == "peek":
                self.assertIn(cached.peek(key), {None, written.get(key)})
            else:
                clock.advance(4)
            self.assertLessEqual(len(cached._entries), 3)
