"""Makes the clients of confluent-kafka for the contract tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor

from ariproxy.config import Properties
from ariproxy.config.keys import Kafka
from ariproxy.kafka.confluent_publisher import ConfluentPublisher
from ariproxy.kafka.confluent_source import ConfluentSource
from ariproxy.kafka.settings import consumer_properties, producer_properties
from ariproxy.threads import Workers
from tests.test_kafka_settings import config

# What librdkafka says of an outage that a test asked for is no news.
QUIET = logging.getLogger("tests.librdkafka")
QUIET.addHandler(logging.NullHandler())
QUIET.propagate = False


class ConfluentClients:
    """For a ``KafkaCase``: publishers and sources as ``service.py`` makes them."""

    workers: Workers

    librdkafka: dict[str, str] = {}
    """What a site would write under ``service.kafka.librdkafka``."""

    def make_publisher(
        self,
        bootstrap: str,
        topics: Sequence[str],
        buffer: int = 1000,
        largest: int | None = None,
    ) -> ConfluentPublisher:
        """Started."""
        properties, _ = producer_properties(
            config(
                f"service.kafka.bootstrap-servers={bootstrap}",
                f"service.events.buffer={buffer}",
            )
        )
        if largest is not None:
            properties["message.max.bytes"] = largest
        publisher = ConfluentPublisher(
            properties=properties,
            topics=topics,
            workers=self.workers,
            clock=reactor,
            logger=QUIET,
        )
        publisher.start()
        return publisher

    def make_source(
        self, bootstrap: str, topic: str, group: str, in_hand: int
    ) -> ConfluentSource:
        """Not started."""
        kafka = Kafka(
            bootstrap_servers=bootstrap,
            commands_topic=topic,
            events_and_responses_topic="unused",
            consumer_group=group,
            librdkafka=Properties(self.librdkafka),
        )
        return ConfluentSource(
            properties=consumer_properties(kafka, group),
            topic=topic,
            workers=self.workers,
            clock=reactor,
            now=time.monotonic,
            logger=QUIET,
            in_hand=in_hand,
            restarted=self.restarted,
        )

    def restarted(self) -> None:
        """Called when a consumer died; no test here wants that."""
        self.consumers_died: Any = getattr(self, "consumers_died", 0) + 1
