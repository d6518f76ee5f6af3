"""The embedded broker, used as another process would: by its address alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.sandbox.kafka import CONSUMER, PARTITIONS, EmbeddedKafka


class EmbeddedKafkaTests(SynchronousTestCase):
    """What the module promises of librdkafka's mock cluster."""

    def setUp(self) -> None:
        self.kafka = EmbeddedKafka(["topic"])
        self.addCleanup(self.kafka.close)
        self.servers = {"bootstrap.servers": self.kafka.bootstrap_servers}

    def consumer(self, group: str) -> Consumer:
        """A member of a group."""
        settings = {"group.id": group, "enable.auto.commit": False}
        consumer = Consumer({**self.servers, **settings, **CONSUMER})
        consumer.subscribe(["topic"])
        return consumer

    def test_topics(self) -> None:
        """Every topic has the promised partitions."""
        topics = AdminClient(self.servers).list_topics(timeout=5).topics
        self.assertEqual(len(topics["topic"].partitions), PARTITIONS)

    def test_records_and_commits(self) -> None:
        """An idempotent producer, a group from its beginning, its commits."""
        self.kafka.begin_group("group", "topic")
        errors: list[object] = []
        safe = {"acks": "all", "enable.idempotence": True}
        producer = Producer({**self.servers, **safe})
        for number in range(20):
            producer.produce(
                "topic",
                str(number),
                key=str(number % 3),
                headers=[("h", b"1")],
                on_delivery=lambda error, message: errors.append(error),
            )
        self.assertEqual(producer.flush(5), 0)
        self.assertEqual(errors, [None] * 20)
        consumer = self.consumer("group")
        self.addCleanup(consumer.close)
        records: list[Message] = []

        def all_there() -> bool:
            message = consumer.poll(0.05)
            if message is not None:
                records.append(message)
            return len(records) == 20

        wait_for(all_there)
        self.assertEqual(
            sorted(int(record.value() or b"") for record in records), list(range(20))
        )
        self.assertEqual(records[0].headers(), [("h", b"1")])
        consumer.commit(asynchronous=False)
        committed = consumer.committed(consumer.assignment(), timeout=5)
        self.assertEqual(sum(each.offset for each in committed), 20)

    def test_close(self) -> None:
        """Nobody answers at the address any more."""
        self.kafka.close()
        self.kafka.close()
        client = AdminClient({**self.servers, "log_level": 0})
        with self.assertRaises(KafkaException):
            client.list_topics(timeout=0.2)


def wait_for(condition: Callable[[], bool]) -> None:
    """Ask again and again, for at most 20 seconds."""
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not come about within 20 seconds")
