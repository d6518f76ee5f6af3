"""pykafka against a real Kafka 3.9, also one that goes away, and against Kafka 4."""

from __future__ import annotations

import atexit
from functools import cache
from typing import Any

from confluent_kafka import Producer, TopicPartition
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from ariproxy.errors import RecordRefused, RecordTooLarge, TemporaryError
from ariproxy.kafka.records import OutgoingRecord
from tests.confluent_clients import ConfluentClients
from tests.integration import test_kafka_confluent as confluent
from tests.integration.services import kafka
from tests.integration.services.kafka import (
    OLD_VERSION,
    KafkaBroker,
    SecuredKafkaBroker,
)
from tests.kafka_contract import (
    LIMIT,
    PARTITIONS,
    KafkaCase,
    PublisherContract,
    SourceCase,
    SourceContract,
)
from tests.pykafka_clients import PykafkaClients

skip = kafka.missing() or kafka.missing(OLD_VERSION)


# One broker is enough for them.
_TRANSACTIONS = {
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
}


class OldCluster:
    """One broker of the last version that pykafka can speak to."""

    def __init__(self, broker: KafkaBroker | None = None) -> None:
        self.broker = broker or KafkaBroker(_TRANSACTIONS, version=OLD_VERSION)
        self.bootstrap = self.broker.bootstrap

    def create(self, topic: str) -> None:
        """Make a topic with four partitions."""
        self.broker.create_topics(topic, partitions=PARTITIONS)


@cache
def old_cluster() -> OldCluster:
    """One for all tests of this process that leave it alone."""
    cluster = OldCluster()
    atexit.register(cluster.broker.stop)
    cluster.broker.start()
    return cluster


class OldClusterCase(PykafkaClients):
    """The tests run on the old broker."""

    @property
    def cluster(self) -> OldCluster:
        return old_cluster()


class PykafkaPublisherTests(OldClusterCase, PublisherContract, TestCase):
    """The contract of publishers, and what is pykafka's own."""

    async def test_as_given(self) -> None:
        """Key and value are stored byte for byte, headers not at all: told once."""
        publisher = self.publisher()
        header = ("traceparent", b"00-1")
        sent = [
            self.record(b"\xc3\xa4", b'{"a":"\xff"}', header),
            self.record(None, b"no key", header),
            self.record(b"no value", None),
            self.record(b"", b""),
        ]
        with capturedLogs() as log:
            self.assertEqual(await self.sent(publisher, *sent), [None] * 4)
        found = await self.stored(4)
        self.assertCountEqual(
            [(m.key(), m.value(), m.headers()) for m in found],
            [(r.key, r.value, None) for r in sent],
        )
        warnings = [formatEvent(e) for e in log if e["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        self.assertIn("headers", warnings[0])

    async def test_too_large_for_the_broker(self) -> None:
        """The broker's limit may be lower than the client's."""
        publisher = self.publisher(largest=4 * 1024 * 1024)
        outcomes = await self.sent(
            publisher,
            self.record(b"call", b"x" * (2 * 1024 * 1024)),
            self.record(b"call", b"after"),
        )
        self.assertEqual([type(o) for o in outcomes], [RecordTooLarge, type(None)])

    async def test_lower_limit_of_the_topic(self) -> None:
        """Its limit is for what is sent at once: small records all arrive."""
        self.cluster.broker.alter_topic(self.topic, "max.message.bytes", "20000")
        publisher = self.publisher()
        records = [self.record(b"call", b"%4d" % n + b"x" * 900) for n in range(300)]
        records[100] = self.record(b"call", b"x" * 30_000)
        outcomes = await self.sent(publisher, *records)
        self.assertEqual([type(e) for e in outcomes if e], [RecordTooLarge])
        found = [m.value() for m in await self.stored(299)]
        self.assertEqual(found, [r.value for r in (*records[:100], *records[101:])])

    async def test_unknown_topic(self) -> None:
        """A record for a topic that is not there is refused, and holds up no other."""
        publisher = self.publisher()
        outcomes = await self.sent(
            publisher,
            OutgoingRecord("nobodys-topic", b"k", b"v"),
            self.record(b"k", b"v"),
        )
        self.assertEqual([type(o) for o in outcomes], [RecordRefused, type(None)])
        self.assertIn("nobodys-topic", str(outcomes[0]))

    async def test_more_partitions(self) -> None:
        """Partitions that an operator adds are used after the next health check."""
        publisher = self.publisher()
        await self.sent(publisher, self.record(b"k", b"v"))
        await deferToThread(self.cluster.broker.add_partitions, self.topic, 9)
        await publisher.check()
        keys = [b"%d" % n for n in range(200)]
        await self.sent(publisher, *(self.record(key, b"x") for key in keys))
        found = await deferToThread(self.partitions_used)
        self.assertEqual(found, set(range(9)))

    def partitions_used(self) -> set[int]:
        """Which of the first nine partitions hold a record."""
        consumer = self._own_consumer("reader")
        ends = {
            number: consumer.get_watermark_offsets(
                TopicPartition(self.topic, number), LIMIT
            )[1]
            for number in range(9)
        }
        consumer.close()
        return {number for number, end in ends.items() if end}


class PykafkaSourceTests(OldClusterCase, SourceContract, TestCase):
    """The contract of sources, and what is pykafka's own."""

    async def test_records(self) -> None:
        """A record is handed on as it is stored; its headers are not seen."""
        await self.started()
        await self.send(
            (b"21", b'{"a":"\xff"}'),
            timestamp=1700000000123,
            headers=[("traceparent", b"00-1")],
        )
        await self.until(lambda: self.received)
        (record,) = self.received
        self.assertEqual(
            (record.topic, record.key, record.value, record.timestamp, record.headers),
            (self.topic, b"21", b'{"a":"\xff"}', 1700000000.123, ()),
        )

    async def test_large(self) -> None:
        """Records of nearly a megabyte are read."""
        await self.started()
        value = b"x" * 990_000
        await self.send((b"k", value), (b"k", value), (b"k", b"after"))
        await self.until(lambda: len(self.received) == 3)
        self.assertEqual(self.values(), [value, value, b"after"])

    async def test_compressed(self) -> None:
        """gzip can be read, with records from the middle of a batch."""
        source = await self.started()
        self.producer = self.producer_with({"compression.type": "gzip"})
        await self.send(*((b"k", b"%d" % n) for n in range(100)))
        await self.until(lambda: len(self.received) == 100)
        for each in self.received[:50]:
            source.settle(each)
        await source.stop()
        self.received = []
        again = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1000)
        self.addCleanup(again.stop)
        again.start(self.receive)
        await self.until(lambda: len(self.received) == 50)
        self.assertEqual(self.values(), [b"%d" % n for n in range(50, 100)])

    async def test_unreadable_compression(self) -> None:
        """Any other compression is told in one line that names the mend."""
        with capturedLogs() as log:
            await self.started()
            self.producer = self.producer_with({"compression.type": "lz4"})
            await self.send((b"k", b"x" * 1000))
            await self.until(lambda: warnings(log))
            await deferLater(reactor, 2)
        (line,) = warnings(log)
        self.assertIn("compression", line)
        self.assertIn("client = confluent", line)
        self.assertEqual(self.received, [])

    async def test_transaction(self) -> None:
        """The mark at the end of a transaction holds up nothing."""
        await self.started()
        producer = self.producer_with({"transactional.id": self.topic})
        await deferToThread(producer.init_transactions)
        producer.begin_transaction()
        for number in range(PARTITIONS):
            producer.produce(self.topic, b"in", partition=number)
        await deferToThread(producer.commit_transaction)
        await self.until(lambda: len(self.received) == PARTITIONS)
        await self.send(*((b"%d" % n, b"after") for n in range(20)))
        await self.until(lambda: len(self.received) == PARTITIONS + 20)

    async def test_more_partitions(self) -> None:
        """Partitions that an operator adds are consumed."""
        self.patch(self.source_class(), "REFRESH_EVERY", 1.0)
        source = await self.started()
        await deferToThread(self.cluster.broker.add_partitions, self.topic, 9)
        await self.until(lambda: len(source.partitions) == 9)

    def source_class(self) -> Any:
        made = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1)
        return type(made)

    def producer_with(self, properties: dict[str, str]) -> Producer:
        """A producer of the test's own."""
        return Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "partitioner": "murmur2_random",
                "log_level": 0,
                **properties,
            }
        )


class MixedGroupTests(OldClusterCase, SourceCase, TestCase):
    """pykafka and librdkafka in one group, whoever leads it."""

    def other(self) -> Any:
        clients = ConfluentClients()
        clients.workers = self.workers
        source = clients.make_source(
            self.cluster.bootstrap, self.topic, self.group, 1000
        )
        self.addCleanup(source.stop)
        return source

    async def shared(self, first: Any, second: Any) -> None:
        """Both have two partitions, and together they get everything once."""
        await self.until(lambda: len(second.partitions) == 2, 40)
        await self.until(lambda: len(first.partitions) == 2, 40)
        self.assertEqual(
            sorted([*first.partitions, *second.partitions]),
            [(self.topic, n) for n in range(PARTITIONS)],
        )
        # The second knows where its partitions end only a moment later.
        await deferLater(reactor, 1)
        await self.send(*((b"%d" % n, b"after") for n in range(40)))
        await self.until(lambda: self.values().count(b"after") == 40)

    async def test_pykafka_first(self) -> None:
        """librdkafka understands the assignment that pykafka makes."""
        first, second = await self.started(), self.other()
        second.start(self.receive)
        await self.shared(first, second)
        await first.stop()
        await self.until(lambda: len(second.partitions) == PARTITIONS, 40)

    async def test_librdkafka_first(self) -> None:
        """pykafka takes its share from librdkafka, and all of it at the end."""
        first = self.other()
        first.start(self.receive)
        await self.until(lambda: len(first.partitions) == PARTITIONS, 40)
        second = self.make_source(self.cluster.bootstrap, self.topic, self.group, 1000)
        self.addCleanup(second.stop)
        second.start(self.receive)
        await self.shared(first, second)
        await first.stop()
        await self.until(lambda: len(second.partitions) == PARTITIONS, 40)


class PykafkaOutageTests(PykafkaClients, confluent.OutageTests):
    """The broker is killed, or frozen, or not there yet: nothing is lost."""

    skip = skip

    def setUp(self) -> None:
        self.cluster: Any = OldCluster()
        self.addCleanup(self.cluster.broker.stop)
        self.cluster.broker.start()
        SourceCase.setUp(self)
        self.outcomes: list[Any] = []
        self.log = self.enterContext(capturedLogs())

    async def through(self, outage: Any, back: Any, seconds: int) -> None:
        """As the contract, but what Kafka took without saying so is doubled."""
        publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
        self.addCleanup(publisher.close)
        source = await self.started()
        await self.publish(publisher, range(10))
        await deferToThread(outage)
        await self.publish(publisher, range(10, 10 + 10 * seconds))
        await deferToThread(back)
        total = 20 + 10 * seconds
        await self.publish(publisher, range(total - 10, total))
        await self.until(lambda: len(self.outcomes) == total, 40)
        self.assertEqual(self.outcomes, [None] * total)
        wanted = [b"%d" % n for n in range(total)]
        await self.until(lambda: self.in_order() == wanted, 40)
        for each in self.received:
            source.settle(each)
        place = {each.partition: each.offset + 1 for each in self.received}
        for partition, offset in place.items():
            await self.arrives(partition, offset)


class Kafka4Tests(PykafkaClients, KafkaCase, TestCase):
    """A broker that pykafka cannot speak to."""

    skip = skip

    @property
    def cluster(self) -> Any:
        return confluent.real_cluster()

    async def test_told(self) -> None:
        """One line for each client, and the health check, name the mend."""
        with capturedLogs() as log:
            publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
            self.addCleanup(publisher.close)
            source = self.make_source(
                self.cluster.bootstrap, self.topic, self.group, 1000
            )
            self.addCleanup(source.stop)
            source.start(lambda records: None)
            outcomes: list[Any] = []
            publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
            await self.until(lambda: len(warnings(log)) == 2)
            await deferLater(reactor, 3)
        self.assertEqual(len(warnings(log)), 2)
        for line in warnings(log):
            self.assertIn("Kafka 4", line)
            self.assertIn("service.kafka.client = confluent", line)
        error = await self.assertFailure(deferred(publisher.check()), TemporaryError)
        self.assertIn("Kafka 4", str(error))
        self.assertEqual(outcomes, [])
        self.assertEqual(publisher.waiting(), 1)


class TlsTests(PykafkaClients, SourceCase, TestCase):
    """SSL with a client certificate."""

    skip = skip

    def setUp(self) -> None:
        broker = SecuredKafkaBroker(version=OLD_VERSION)
        self.addCleanup(broker.stop)
        broker.start()
        self.cluster: Any = OldCluster(broker)
        super().setUp()
        self.security = {
            "security.protocol": "SSL",
            "bootstrap.servers": broker.addresses["SSL"],
            "ssl.ca.location": str(broker.certificates.ca),
            "ssl.certificate.location": str(broker.certificates.client),
            "ssl.key.location": str(broker.certificates.client_key),
        }

    async def test_both_ways(self) -> None:
        """A record goes out and comes in."""
        publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
        self.addCleanup(publisher.close)
        await self.started()
        outcomes: list[Any] = []
        publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
        await self.until(lambda: outcomes == [None] and b"v" in self.values())
        await publisher.check()

    async def test_another_ca(self) -> None:
        """A broker with a certificate of somebody else's is no broker: one line."""
        other = SecuredKafkaBroker(version=OLD_VERSION)
        self.addCleanup(other.stop)
        self.security["ssl.ca.location"] = str(other.certificates.ca)
        await self.assert_told("service.kafka.security.ca")

    async def test_without_certificate(self) -> None:
        """A broker that asks for a certificate gets none: one line."""
        for name in ("ssl.certificate.location", "ssl.key.location"):
            del self.security[name]
        await self.assert_told("client certificate")

    async def test_plain_port(self) -> None:
        """TLS to a port without it: one line."""
        self.security["bootstrap.servers"] = self.cluster.bootstrap
        await self.assert_told("does it speak TLS?")

    async def test_without_tls(self) -> None:
        """No TLS to a port with it: one line."""
        self.security["security.protocol"] = "PLAINTEXT"
        await self.assert_told("does it want TLS")

    async def assert_told(self, reason: str) -> None:
        with capturedLogs() as log:
            publisher = self.make_publisher(self.cluster.bootstrap, [self.topic])
            self.addCleanup(publisher.close)
            await self.until(lambda: warnings(log))
            await deferLater(reactor, 1.5)
        (line,) = warnings(log)
        self.assertIn(reason, line)
        error = await self.assertFailure(deferred(publisher.check()), TemporaryError)
        self.assertIn(reason, str(error))


def warnings(log: Any) -> list[str]:
    """What an operator was told."""
    return [formatEvent(e) for e in log if e["log_level"] is LogLevel.warn]
