"""What every publisher and every source of records must do, on a real protocol.

They are mixins: a subclass adds ``TestCase``, the cluster and the clients; see
``tests/test_kafka_confluent.py``. The checks themselves use a client of their
own, so that an adapter is not its own witness.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from threading import get_ident
from typing import Any, Protocol

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from zope.interface.verify import verifyObject

from ariproxy.errors import (
    AriProxyError,
    BufferFull,
    PublishFailed,
    TemporaryError,
)
from ariproxy.interfaces import IPublisher, IRecordSource
from ariproxy.kafka.records import IncomingRecord, OutgoingRecord
from ariproxy.threads import Workers

PARTITIONS = 4
LIMIT = 40.0
"""Seconds that anything may take on a busy machine."""

# From the tests of the Java client: text -> murmur2.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}

_numbers = count()


class Cluster(Protocol):
    """Where the tests run."""

    bootstrap: str
    """The address for clients."""

    def create(self, topic: str) -> None:
        """Make a topic with four partitions."""


class KafkaCase:
    """A topic of its own for each test, and threads for the clients."""

    cluster: Cluster
    timeout = 90

    def setUp(self) -> None:
        number = next(_numbers)
        self.topic, self.group = f"topic-{number}", f"group-{number}"
        self.cluster.create(self.topic)
        self.workers = Workers(reactor, "kafka", 8)
        self.workers.start()
        self.addCleanup(self.workers.stop, 5.0)

    async def until(self, condition: Callable[[], Any], limit: float = LIMIT) -> None:
        """Wait for it, or fail the test."""
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not within {limit} s")
            await deferLater(reactor, 0.01)

    async def stored(self, number: int) -> list[Message]:
        """The first records of the topic, all partitions together."""
        return await deferToThread(self._stored, number)

    def _stored(self, number: int) -> list[Message]:
        consumer = self._own_consumer("reader")
        consumer.assign([TopicPartition(self.topic, p, 0) for p in range(PARTITIONS)])
        found: list[Message] = []
        end = time.monotonic() + LIMIT
        while len(found) < number and time.monotonic() < end:
            found += consumer.consume(number - len(found), 0.2)
        consumer.close()
        return found

    async def committed(self) -> dict[int, int]:
        """The offsets that the group has committed, by partition."""
        return await deferToThread(self._committed)

    def _committed(self) -> dict[int, int]:
        consumer = self._own_consumer(self.group)
        asked = [TopicPartition(self.topic, p) for p in range(PARTITIONS)]
        found = consumer.committed(asked, LIMIT)
        consumer.close()
        return {each.partition: each.offset for each in found if each.offset >= 0}

    def _own_consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "group.id": group,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 2,
                "log_level": 0,
            }
        )


class PublisherContract(KafkaCase):
    """``IPublisher``. ``make_publisher`` starts one; ``settings`` are strict."""

    knows_topics = True
    """Whether the cluster refuses a topic that nobody has made."""

    def make_publisher(
        self, bootstrap: str, topics: Sequence[str], **settings: Any
    ) -> Any:
        """A started publisher; ``settings``: ``buffer``, ``largest``."""
        raise NotImplementedError

    def publisher(self, **settings: Any) -> Any:
        """One that is closed when the test ends."""
        made = self.make_publisher(self.cluster.bootstrap, [self.topic], **settings)
        self.addCleanup(made.close)
        return made

    def lonely(self, **settings: Any) -> Any:
        """One whose brokers are away."""
        made = self.make_publisher("127.0.0.1:1", [self.topic], **settings)
        self.addCleanup(made.close)
        return made

    def record(
        self, key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]
    ) -> OutgoingRecord:
        return OutgoingRecord(self.topic, key, value, headers)

    async def sent(self, publisher: Any, *records: OutgoingRecord) -> list[Any]:
        """Publish them; how each was settled, in the order of settling."""
        outcomes: list[Any] = []
        for each in records:
            publisher.publish(each, outcomes.append)
        await self.until(lambda: len(outcomes) == len(records))
        return outcomes

    def test_interface(self) -> None:
        """It is a publisher, and Kafka's health."""
        publisher = self.publisher()
        verifyObject(IPublisher, publisher)
        self.assertEqual(publisher.name, "kafka")

    async def test_acknowledged(self) -> None:
        """Settled once, with ``None``, in the reactor's thread."""
        publisher = self.publisher()
        settled: list[tuple[Any, int]] = []
        publisher.publish(
            self.record(b"call", b"{}"),
            lambda error: settled.append((error, get_ident())),
        )
        self.assertEqual(publisher.waiting(), 1)
        await self.until(lambda: settled)
        self.assertEqual(settled, [(None, get_ident())])
        self.assertEqual(publisher.waiting(), 0)

    async def test_as_given(self) -> None:
        """Key, value and headers are stored byte for byte; all may be absent."""
        publisher = self.publisher()
        sent = [
            self.record(
                b"\xc3\xa4", b'{"a":"\xff"}', ("traceparent", b"00-1"), ("a", b"")
            ),
            self.record(None, b"no key"),
            self.record(b"no value", None),
            self.record(b"", b""),
        ]
        self.assertEqual(await self.sent(publisher, *sent), [None] * 4)
        found = await self.stored(4)
        self.assertCountEqual(
            [(m.key(), m.value(), tuple(m.headers() or ())) for m in found],
            [(r.key, r.value, r.headers) for r in sent],
        )

    async def test_order(self) -> None:
        """The records of one key are stored in the order of publishing."""
        publisher = self.publisher()
        values = [b"%d" % n for n in range(500)]
        await self.sent(publisher, *(self.record(b"call", each) for each in values))
        self.assertEqual([m.value() for m in await self.stored(500)], values)

    async def test_partition_of_java(self) -> None:
        """A key goes to the partition to which the Java client sends it."""
        publisher = self.publisher()
        await self.sent(publisher, *(self.record(key, b"x") for key in MURMUR2))
        found = {m.key(): m.partition() for m in await self.stored(len(MURMUR2))}
        self.assertEqual(
            found,
            {key: (h & 0x7FFFFFFF) % PARTITIONS for key, h in MURMUR2.items()},
        )

    async def test_too_large(self) -> None:
        """One that is too large is refused for good; the others are not held up."""
        publisher = self.publisher()
        outcomes = await self.sent(
            publisher,
            self.record(b"call", b"before"),
            self.record(b"call", b"x" * (1024 * 1024 + 1)),
            self.record(b"call", b"after"),
        )
        kinds = sorted(type(each).__name__ for each in outcomes)
        self.assertEqual(kinds, ["NoneType", "NoneType", "RecordTooLarge"])
        self.assertEqual(
            [m.value() for m in await self.stored(2)], [b"before", b"after"]
        )
        self.assertEqual(publisher.waiting(), 0)

    async def test_large(self) -> None:
        """Nearly a megabyte is not too large."""
        publisher = self.publisher()
        value = b"x" * (1024 * 1024 - 1024)
        self.assertEqual(await self.sent(publisher, self.record(b"c", value)), [None])

    async def test_flush(self) -> None:
        """Flushing waits until all are settled."""
        publisher = self.publisher()
        outcomes: list[Any] = []
        for n in range(100):
            publisher.publish(self.record(b"%d" % n, b"x"), outcomes.append)
        self.assertEqual(await publisher.flush(LIMIT), 0)
        self.assertEqual(outcomes, [None] * 100)

    async def test_flush_in_vain(self) -> None:
        """Or until its time is up, and tells how many wait."""
        publisher = self.lonely()
        for _ in range(3):
            publisher.publish(self.record(b"call", b"x"), lambda error: None)
        began = time.monotonic()
        self.assertEqual(await publisher.flush(0.2), 3)
        self.assertLess(time.monotonic() - began, 5)

    async def test_close_settles_all(self) -> None:
        """What waits when it is closed fails, once each."""
        publisher = self.lonely()
        outcomes: list[Any] = []
        for _ in range(50):
            publisher.publish(self.record(b"call", b"x"), outcomes.append)
        await publisher.close()
        await self.until(lambda: len(outcomes) == 50)
        self.assertEqual({type(each) for each in outcomes}, {PublishFailed})
        self.assertEqual(publisher.waiting(), 0)

    async def test_after_close(self) -> None:
        """A closed one takes nothing, and closing again is harmless."""
        publisher = self.publisher()
        await publisher.close()
        await publisher.close()
        outcomes = await self.sent(publisher, self.record(b"call", b"x"))
        self.assertIsInstance(outcomes[0], PublishFailed)

    async def test_buffer_full(self) -> None:
        """Beyond the limit a record is refused at once; those taken stay."""
        publisher = self.lonely(buffer=10)
        outcomes: list[Any] = []
        for _ in range(12):
            publisher.publish(self.record(b"call", b"x"), outcomes.append)
        self.assertEqual([type(each) for each in outcomes], [BufferFull] * 2)
        self.assertEqual(publisher.waiting(), 10)

    async def test_unlucky_callback(self) -> None:
        """A defect of one caller keeps no other from being told."""
        publisher = self.publisher()
        outcomes: list[Any] = []

        def broken(error: Exception | None) -> None:
            raise ValueError("a defect")

        publisher.publish(self.record(b"call", b"1"), broken)
        publisher.publish(self.record(b"call", b"2"), outcomes.append)
        await self.until(lambda: outcomes)
        self.assertEqual(publisher.waiting(), 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_check(self) -> None:
        """All is well while the brokers answer."""
        await self.publisher().check()

    async def test_check_without_brokers(self) -> None:
        """Away: said within its time limit, in one line."""
        publisher = self.lonely()
        await deferLater(reactor, 0.3)
        began = time.monotonic()
        try:
            await publisher.check()
        except TemporaryError as error:
            self.assertNotIn("\n", str(error))
            self.assertTrue(str(error))
        else:
            self.fail("all is well without brokers")
        self.assertLess(time.monotonic() - began, 5)

    async def test_check_without_topic(self) -> None:
        """A topic that is not there is named."""
        if not self.knows_topics:
            # This cluster makes every topic that is named.
            return
        publisher = self.make_publisher(self.cluster.bootstrap, ["nobodys-topic"])
        self.addCleanup(publisher.close)
        try:
            await publisher.check()
        except AriProxyError as error:
            self.assertIn("nobodys-topic", str(error))
        else:
            self.fail("all is well without the topic")


class SourceCase(KafkaCase):
    """Sources, and what comes out of them. ``make_source`` starts none."""

    def make_source(self, bootstrap: str, topic: str, group: str, in_hand: int) -> Any:
        """A source; ``in_hand``: how many records it may have unsettled."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.received: list[IncomingRecord] = []
        self.threads: set[int] = set()
        self.producer = Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "log_level": 0,
            }
        )

    def receive(self, records: Sequence[IncomingRecord]) -> None:
        self.received += records
        self.threads.add(get_ident())

    async def started(self, in_hand: int = 1000, partitions: int = PARTITIONS) -> Any:
        """A source that has its partitions, and reads from their ends."""
        source = self.make_source(
            self.cluster.bootstrap, self.topic, self.group, in_hand
        )
        self.addCleanup(source.stop)
        source.start(self.receive)
        await self.until(lambda: len(source.partitions) == partitions, 40)
        # It has its partitions before it knows where they end.
        before = len(self.received)
        while len(self.received) == before:
            await self.send((b"probe", b"probe"))
            await deferLater(reactor, 0.1)
        await deferLater(reactor, 0.2)
        for each in self.received[before:]:
            source.settle(each)
        del self.received[before:]
        return source

    async def send(
        self, *records: tuple[bytes | None, bytes | None], **options: Any
    ) -> None:
        """Store these, key and value, in this order."""
        for key, value in records:
            self.producer.produce(self.topic, value, key, **options)
        self.assertEqual(await deferToThread(self.producer.flush, LIMIT), 0)

    def values(self) -> list[bytes | None]:
        return [each.value for each in self.received]

    async def arrives(self, partition: int, offset: int) -> None:
        """Wait until this offset is committed."""
        end = time.monotonic() + LIMIT
        while (found := (await self.committed()).get(partition)) != offset:
            if time.monotonic() > end:
                self.fail(f"{found} is committed, not {offset}")
            await deferLater(reactor, 0.05)


class SourceContract(SourceCase):
    """``IRecordSource``."""

    whole_groups = True
    """Whether a group may have a second member, or one that comes back."""

    async def test_records(self) -> None:
        """A record is handed on as it is stored, in the reactor's thread."""
        source = await self.started()
        verifyObject(IRecordSource, source)
        await self.send(
            (b"abc", b'{"a":"\xff"}'),
            timestamp=1700000000123,
            headers=[("traceparent", b"00-1"), ("empty", b"")],
        )
        await self.until(lambda: self.received)
        (record,) = self.received
        self.assertEqual(
            (record.topic, record.partition, record.key, record.value),
            (self.topic, MURMUR2[b"abc"] % PARTITIONS, b"abc", b'{"a":"\xff"}'),
        )
        self.assertEqual(record.timestamp, 1700000000.123)
        self.assertEqual(record.headers, (("traceparent", b"00-1"), ("empty", b"")))
        self.assertEqual(self.threads, {get_ident()})

    async def test_nulls(self) -> None:
        """Records without key, or without value, are records."""
        await self.started()
        await self.send((None, b"no key"), (b"no value", None), (b"", b""))
        await self.until(lambda: len(self.received) == 3)
        self.assertCountEqual(
            [(each.key, each.value) for each in self.received],
            [(None, b"no key"), (b"no value", None), (b"", b"")],
        )

    async def test_order(self) -> None:
        """The records of one partition come in order, each once."""
        source = await self.started(in_hand=100_000)
        values = [b"%d" % n for n in range(3000)]
        await self.send(*((b"call", each) for each in values))
        await self.until(lambda: len(self.received) >= 3000)
        self.assertEqual(self.values(), values)
        for each in self.received:
            source.settle(each)

    async def test_from_latest(self) -> None:
        """A group that never committed begins with what comes next."""
        await self.send((b"a", b"old"), (b"b", b"old"))
        await self.started()
        await self.send((b"a", b"new"))
        await self.until(lambda: b"new" in self.values())
        self.assertEqual(self.values(), [b"new"])

    async def test_settled_is_committed(self) -> None:
        """The first offset that is not settled is committed, soon."""
        source = await self.started()
        await self.send(*((b"call", b"%d" % n) for n in range(5)))
        await self.until(lambda: len(self.received) == 5)
        first, partition = self.received[0].offset, self.received[0].partition
        for n in (0, 1, 3):
            source.settle(self.received[n])
        await self.arrives(partition, first + 2)
        source.settle(self.received[2])
        await self.arrives(partition, first + 4)
        source.settle(self.received[2])
        await deferLater(reactor, 0.3)
        await self.arrives(partition, first + 4)

    async def test_stop(self) -> None:
        """At the end what is settled is committed, and nothing more is handed on."""
        source = await self.started()
        await self.send(*((b"call", b"%d" % n) for n in range(3)))
        await self.until(lambda: len(self.received) == 3)
        source.settle(self.received[0])
        await source.stop()
        offset = self.received[0].offset
        await self.arrives(self.received[0].partition, offset + 1)
        await self.send((b"call", b"late"))
        await deferLater(reactor, 0.3)
        self.assertEqual(len(self.received), 3)
        await source.stop()

    async def test_stop_without_brokers(self) -> None:
        """Ending needs no broker."""
        source = self.make_source("127.0.0.1:1", self.topic, self.group, 10)
        source.start(self.receive)
        await deferLater(reactor, 0.3)
        began = time.monotonic()
        await source.stop()
        self.assertLess(time.monotonic() - began, 8)

    async def test_claim(self) -> None:
        """A record in hand is ours until it is settled."""
        source = await self.started()
        await self.send((b"call", b"x"))
        await self.until(lambda: self.received)
        (record,) = self.received
        self.assertTrue(source.claim(record))
        source.settle(record)
        self.assertFalse(source.claim(record))

    async def test_pause(self) -> None:
        """Paused, nothing comes; resumed, everything that waited does, in order."""
        source = await self.started()
        source.pause()
        source.pause()
        await deferLater(reactor, 0.5)
        await self.send(*((b"call", b"%d" % n) for n in range(20)))
        await deferLater(reactor, 1)
        self.assertEqual(self.received, [])
        source.resume()
        await self.until(lambda: len(self.received) == 20)
        self.assertEqual(self.values(), [b"%d" % n for n in range(20)])
        self.assertEqual(len(source.partitions), PARTITIONS)

    async def test_bounded(self) -> None:
        """Not much more than the limit is in hand; settling makes room."""
        source = await self.started(in_hand=50)
        total = 2000
        await self.send(*((b"call", b"%d" % n) for n in range(total)))
        settled = 0
        most = 0
        end = time.monotonic() + 40
        while settled < total and time.monotonic() < end:
            # For longer than it takes to pause the partitions at first.
            await deferLater(reactor, 0.01 if settled else 1.5)
            most = max(most, len(self.received) - settled)
            for each in self.received[settled:]:
                source.settle(each)
            settled = len(self.received)
        self.assertEqual(self.values(), [b"%d" % n for n in range(total)])
        self.assertLess(most, 50 + 500)

    async def test_again_after_restart(self) -> None:
        """What was not settled comes again to whoever comes next; the rest does not."""
        if not self.whole_groups:
            return
        source = await self.started()
        await self.send(*((b"call", b"%d" % n) for n in range(4)))
        await self.until(lambda: len(self.received) == 4)
        for n in (0, 1, 3):
            source.settle(self.received[n])
        await source.stop()
        self.received = []
        again = self.make_source(self.cluster.bootstrap, self.topic, self.group, 10)
        self.addCleanup(again.stop)
        again.start(self.receive)
        await self.until(lambda: len(self.received) == 2)
        self.assertEqual(self.values(), [b"2", b"3"])

    async def test_rebalance(self) -> None:
        """A second member takes its share: what is claimed is waited for first."""
        if not self.whole_groups:
            return
        first = await self.started()
        keys = [b"key-%d" % n for n in range(40)]
        await self.send(*((key, key) for key in keys))
        await self.until(lambda: len(self.received) == 40)
        held = self.received[:]
        claimed = held[::2]
        for each in claimed:
            self.assertTrue(first.claim(each))
        second = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1000)
        self.addCleanup(second.stop)
        others: list[IncomingRecord] = []
        second.start(others.extend)
        await deferLater(reactor, 1)
        for each in claimed:
            first.settle(each)
        await self.until(lambda: len(second.partitions) == 2)
        await self.until(lambda: len(first.partitions) == 2)
        self.assertEqual(
            sorted([*first.partitions, *second.partitions]),
            [(self.topic, n) for n in range(PARTITIONS)],
        )
        # Whatever was not claimed may be run by its new owner alone.
        for each in held[1::2]:
            self.assertFalse(first.claim(each))
        await self.send(*((key, b"after") for key in keys))
        await self.until(
            lambda: (
                [each.value for each in (*self.received, *others)].count(b"after") == 40
            )
        )
        # All that was not settled has come again, to one of the two.
        again = {each.value for each in (*self.received[40:], *others)}
        self.assertLessEqual({each.value for each in held[1::2]}, again)
