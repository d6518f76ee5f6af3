"""Tests that the stand-ins are what they stand for."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ariproxy.ari.messages import AsteriskRequest
from ariproxy.errors import AsteriskUnavailable, PublishFailed, StoreUnavailable
from ariproxy.interfaces import IAsterisk, IPublisher, IRecordSource, IStore
from ariproxy.kafka.records import IncomingRecord, OutgoingRecord
from tests.fakes import (
    FakeAsterisk,
    FakeSource,
    FakeStore,
    MemoryPublisher,
    counted,
    make_metrics,
)


class MemoryPublisherTests(SynchronousTestCase):
    """MemoryPublisher keeps the promises of IPublisher."""

    def test_interface(self) -> None:
        """It has all methods of the interface."""
        verifyObject(IPublisher, MemoryPublisher())

    def test_settles_once(self) -> None:
        """Held records are settled once each, with what the test says."""
        publisher, outcomes = MemoryPublisher(), []
        publisher.holding = True
        for text in (b"1", b"2", b"3"):
            publisher.publish(OutgoingRecord("t", None, text), outcomes.append)
        self.assertEqual((publisher.waiting(), outcomes), (3, []))
        error = PublishFailed("no")
        publisher.release(1, error)
        publisher.release_all()
        self.assertEqual(outcomes, [error, None, None])
        self.assertEqual([each.value for each in publisher.records], [b"1", b"3"])
        self.assertEqual(self.successResultOf(publisher.flush(1.0)), 0)

    def test_close(self) -> None:
        """What is not settled at the end fails."""
        publisher, outcomes = MemoryPublisher(), []
        publisher.holding = True
        publisher.publish(OutgoingRecord("t", None, b"1"), outcomes.append)
        self.successResultOf(publisher.close())
        self.assertIsInstance(outcomes[0], PublishFailed)


class FakeSourceTests(SynchronousTestCase):
    """FakeSource keeps the promises of IRecordSource."""

    def test_interface(self) -> None:
        """It has all methods of the interface."""
        verifyObject(IRecordSource, FakeSource())

    def test_nothing_after_stop(self) -> None:
        """Records are delivered until it is stopped."""
        source, batches = FakeSource(), []
        source.start(batches.append)
        record = IncomingRecord("t", 0, 0, None, b"1")
        source.deliver(record)
        self.successResultOf(source.stop())
        source.deliver(record)
        self.assertEqual(batches, [(record,)])

    def test_claim(self) -> None:
        """A record that was taken away is not ours."""
        source = FakeSource()
        ours = IncomingRecord("t", 0, 0, None, b"1")
        other = IncomingRecord("t", 1, 0, None, b"1")
        source.taken_away.append(other)
        self.assertEqual((source.claim(ours), source.claim(other)), (True, False))


class FakeAsteriskTests(SynchronousTestCase):
    """FakeAsterisk keeps the promises of IAsterisk."""

    def test_interface(self) -> None:
        """It has all methods of the interface."""
        verifyObject(IAsterisk, FakeAsterisk())

    def test_held(self) -> None:
        """Held requests are answered or fail in the order that the test wants."""
        asterisk = FakeAsterisk()
        asterisk.holding = True
        first = asterisk.request(AsteriskRequest("GET", "/1"))
        second = asterisk.request(AsteriskRequest("GET", "/2"))
        asterisk.release(1)
        self.assertEqual(self.successResultOf(second).status, 200)
        self.assertNoResult(first)
        asterisk.release(0, AsteriskUnavailable("away"))
        self.failureResultOf(first, AsteriskUnavailable)


class FakeStoreTests(SynchronousTestCase):
    """FakeStore keeps the promises of IStore."""

    def test_interface(self) -> None:
        """It has all methods of the interface."""
        verifyObject(IStore, FakeStore())

    def test_held(self) -> None:
        """A held call takes effect when it is released, or fails."""
        store = FakeStore()
        store.holding = True
        written, read = store.set("k", "v"), store.get("k")
        self.assertEqual(store.entries, {})
        store.release()
        store.release(0, StoreUnavailable("away"))
        self.assertIsNone(self.successResultOf(written))
        self.failureResultOf(read, StoreUnavailable)
        self.assertEqual(store.entries, {"k": "v"})

    def test_error(self) -> None:
        """Every call fails while the store is away."""
        store = FakeStore()
        store.error = StoreUnavailable("away")
        for call in (store.get("k"), store.set("k", "v"), store.check()):
            self.failureResultOf(call, StoreUnavailable)
        self.assertEqual(store.entries, {})


class MetricsTests(SynchronousTestCase):
    """What a test reads from the metrics."""

    def test_counted(self) -> None:
        """Samples are summed over the labels that are not named."""
        metrics = make_metrics(Clock())
        metrics.event_dropped("a")
        metrics.event_dropped("b")
        metrics.event_dropped("b")
        name = "ari_proxy_events_dropped_total"
        self.assertEqual(counted(metrics, name), 3)
        self.assertEqual(counted(metrics, name, reason="b"), 2)
        self.assertEqual(counted(metrics, name, reason="c"), 0)
