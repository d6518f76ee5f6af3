"""confluent-kafka against a real broker, also one that goes away."""

from __future__ import annotations

import atexit
from functools import cache
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from ariproxy.errors import RecordTooLarge
from ariproxy.kafka.records import OutgoingRecord
from tests.confluent_clients import ConfluentClients
from tests.integration.services import kafka
from tests.integration.services.kafka import KafkaBroker
from tests.kafka_contract import (
    PARTITIONS,
    PublisherContract,
    SourceCase,
    SourceContract,
)


class RealCluster:
    """One broker that makes no topic by itself."""

    def __init__(self) -> None:
        self.broker = KafkaBroker()
        self.bootstrap = self.broker.bootstrap

    def create(self, topic: str) -> None:
        """Make a topic with four partitions."""
        self.broker.create_topics(topic, partitions=PARTITIONS)


@cache
def real_cluster() -> RealCluster:
    """One for all tests of this process that leave it alone."""
    cluster = RealCluster()
    atexit.register(cluster.broker.stop)
    cluster.broker.start()
    return cluster


class RealClusterCase(ConfluentClients):
    """The tests run on the real broker."""

    skip = kafka.missing()

    @property
    def cluster(self) -> RealCluster:
        return real_cluster()


class ConfluentPublisherTests(RealClusterCase, PublisherContract, TestCase):
    """The contract of publishers."""

    async def test_too_large_for_the_broker(self) -> None:
        """The broker's limit may be lower than the client's."""
        publisher = self.publisher(largest=4 * 1024 * 1024)
        outcomes = await self.sent(
            publisher,
            self.record(b"call", b"x" * (2 * 1024 * 1024)),
            self.record(b"call", b"after"),
        )
        self.assertEqual([type(o) for o in outcomes], [RecordTooLarge, type(None)])


class ConfluentSourceTests(RealClusterCase, SourceContract, TestCase):
    """The contract of sources."""


class OutageTests(ConfluentClients, SourceCase, TestCase):
    """The broker is killed, or frozen, or not there yet: nothing is lost."""

    skip = kafka.missing()
    timeout = 120

    def setUp(self) -> None:
        self.cluster = RealCluster()
        self.addCleanup(self.cluster.broker.stop)
        self.cluster.broker.start()
        super().setUp()
        self.outcomes: list[Any] = []
        self.log = self.enterContext(capturedLogs())

    async def publish(self, publisher: Any, numbers: range) -> None:
        """Ten records a second, of one key."""
        for number in numbers:
            publisher.publish(
                OutgoingRecord(self.topic, b"call", b"%d" % number),
                self.outcomes.append,
            )
            await deferLater(reactor, 0.1)

    async def through(self, outage: Any, back: Any, seconds: int) -> None:
        """Publish and consume before, during and after an outage."""
        publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
        self.addCleanup(publisher.close)
        source = await self.started()
        await self.publish(publisher, range(10))
        await deferToThread(outage)
        await self.publish(publisher, range(10, 10 + 10 * seconds))
        await deferToThread(back)
        await self.publish(publisher, range(10 + 10 * seconds, 20 + 10 * seconds))
        total = 20 + 10 * seconds
        await self.until(lambda: len(self.outcomes) == total)
        self.assertEqual(self.outcomes, [None] * total)
        wanted = [b"%d" % n for n in range(total)]
        await self.until(lambda: self.in_order() == wanted)
        stored = [m.value() for m in await self.stored(total + 1)]
        self.assertEqual([each for each in stored if each != b"probe"], wanted)
        for each in self.received:
            source.settle(each)
        place = {each.partition: each.offset + 1 for each in self.received}
        for partition, offset in place.items():
            await self.arrives(partition, offset)

    def in_order(self) -> list[bytes | None]:
        """What came, repetitions left out: after a rebalance they are allowed."""
        return list(dict.fromkeys(v for v in self.values() if v != b"probe"))

    def lines(self) -> list[str]:
        """What was said about the brokers."""
        return [
            formatEvent(event)
            for event in self.log
            if event.get("log_namespace", "").endswith("Brokers")
        ]

    def assert_told_once(self) -> None:
        """One line a client when it went, one when it came back."""
        lines = self.lines()
        for client in ("producer", "consumer"):
            about = [line for line in lines if f" the {client}" in line]
            self.assertEqual(
                [" is away " in line for line in about], [True, False], lines
            )

    async def test_killed(self) -> None:
        """kill -9, and back five seconds later."""
        broker = self.cluster.broker
        await self.through(broker.kill, broker.start, 5)
        self.assert_told_once()

    async def test_killed_for_long(self) -> None:
        """Longer than the Java client would have waited (10 s)."""
        broker = self.cluster.broker
        await self.through(broker.kill, broker.start, 14)
        self.assert_told_once()

    async def test_frozen(self) -> None:
        """SIGSTOP for two seconds is no event at all."""
        broker = self.cluster.broker
        await self.through(broker.pause, broker.resume, 2)
        self.assertEqual(self.lines(), [])

    async def test_frozen_for_long(self) -> None:
        """SIGSTOP for fifteen seconds."""
        broker = self.cluster.broker
        await self.through(broker.pause, broker.resume, 15)

    async def test_away_at_start(self) -> None:
        """What is published before the broker comes is stored when it does."""
        await deferToThread(self.cluster.broker.terminate)
        publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
        self.addCleanup(publisher.close)
        source = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1000)
        self.addCleanup(source.stop)
        source.start(self.receive)
        await self.publish(publisher, range(20))
        self.assertEqual(self.outcomes, [])
        await deferToThread(self.cluster.broker.start)
        await self.until(lambda: len(self.outcomes) == 20)
        self.assertEqual(self.outcomes, [None] * 20)
        await self.until(lambda: len(source.partitions) == PARTITIONS)
        self.assert_told_once()

    async def test_topic_made_later(self) -> None:
        """A topic that an operator makes only now is consumed soon."""
        self.topic += "-later"
        source = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1000)
        self.addCleanup(source.stop)
        source.start(self.receive)
        await deferLater(reactor, 2)
        await deferToThread(self.cluster.create, self.topic)
        await self.until(lambda: len(source.partitions) == PARTITIONS, 40)
        warnings = [e for e in self.log if e["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)

    async def test_stop_while_frozen(self) -> None:
        """A frozen broker holds nobody up for long, also with a commit under way."""
        source = await self.started()
        await self.send(*((b"call", b"%d" % n) for n in range(5)))
        await self.until(lambda: len(self.received) == 5)
        publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
        self.cluster.broker.pause()
        self.addCleanup(self.cluster.broker.resume)
        for each in self.received:
            source.settle(each)
        outcomes = self.outcomes
        publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
        began = reactor.seconds()
        await source.stop()
        await publisher.close()
        self.assertLess(reactor.seconds() - began, 12)
        await self.until(lambda: len(outcomes) == 1)
