"""The Kafka to measure with: a real broker, or librdkafka's mock without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    Message,
    Producer,
    TopicPartition,
)
from msgspec import Struct

from tests.integration.services import kafka

PARTITIONS = 4


class Broker(Struct, frozen=True):
    """A broker that runs: its address, and what it is."""

    bootstrap: str
    description: str
    real: kafka.KafkaBroker | None = None

    def topics(self, *names: str) -> None:
        """Make topics of ``PARTITIONS`` partitions."""
        if self.real is not None:
            self.real.create_topics(*names, partitions=PARTITIONS)


@contextmanager
def running_broker() -> Iterator[Broker]:
    """Run a broker for as long as the context lasts."""
    if (reason := kafka.missing()) is None:
        with kafka.KafkaBroker() as broker:
            yield Broker(broker.bootstrap, f"Apache Kafka {kafka.VERSION}", broker)
        return
    # The mock makes topics, of PARTITIONS partitions, when they are first asked for.
    mock = Producer(
        {
            "bootstrap.servers": "ignored",
            "test.mock.num.brokers": 1,
            "topic.metadata.refresh.interval.ms": 600_000,
        }
    )
    (address,) = mock.list_topics(timeout=10).brokers.values()
    description = f"librdkafka's mock cluster ({reason})"
    yield Broker(f"{address.host}:{address.port}", description)


class Reader:
    """Reads all records of a topic from its beginning."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": 256 * 1024,
                # Until the first record is there, there may be no topic.
                "allow.auto.create.topics": True,
            }
        )
        self._consumer.assign(
            [
                TopicPartition(topic, each, OFFSET_BEGINNING)
                for each in range(PARTITIONS)
            ]
        )

    def read(self, timeout: float) -> list[Message]:
        """What is there; waits at most ``timeout`` seconds for the first record."""
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        found = [first, *self._consumer.consume(999, 0)]
        return [each for each in found if each.error() is None]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()
