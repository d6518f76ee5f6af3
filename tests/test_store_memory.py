"""Tests for the store in memory."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ariproxy.store.memory import MemoryStore
from tests.store_contract import StoreContract


class MemoryStoreContractTests(StoreContract, TestCase):
    """MemoryStore keeps the contract of IStore."""

    def setUp(self) -> None:
        self.clock = Clock()

    async def make_store(self) -> MemoryStore:
        return MemoryStore(self.ttl, self.clock.seconds)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class MemoryStoreTests(SynchronousTestCase):
    """What concerns this store alone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(10, self.clock.seconds)

    def set(self, key: str) -> None:
        self.successResultOf(ensureDeferred(self.store.set(key, "value")))

    def test_expired_entries_do_not_pile_up(self) -> None:
        """Expired entries leave the memory, read or not."""
        for i in range(1000):
            self.set(f"key {i}")
        self.clock.advance(10)
        self.set("another")
        self.assertEqual(list(self.store._entries), ["another"])

    def test_rewritten_entry_does_not_hide_expired_ones(self) -> None:
        """An old entry that lives on is no obstacle to the purge of others."""
        self.set("first")
        self.set("second")
        self.clock.advance(6)
        self.set("first")
        self.clock.advance(6)
        self.set("third")
        self.assertEqual(list(self.store._entries), ["first", "third"])
