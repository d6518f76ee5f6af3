"""Makes the clients of pykafka for the contract tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor

from ariproxy.config.keys import Kafka
from ariproxy.kafka.pykafka_publisher import PykafkaPublisher
from ariproxy.kafka.pykafka_source import PykafkaSource
from ariproxy.kafka.settings import consumer_properties, producer_properties
from ariproxy.threads import Workers
from tests.test_kafka_settings import config

# Disabled: pykafka then says nothing either, as in a daemon that does not debug.
QUIET = logging.getLogger("tests.pykafka")
QUIET.disabled = True


class PykafkaClients:
    """For a ``KafkaCase``: publishers and sources as ``service.py`` makes them."""

    workers: Workers

    security: dict[str, str] = {}
    """More properties of librdkafka: how to reach a secured broker."""

    def make_publisher(
        self,
        bootstrap: str,
        topics: Sequence[str],
        buffer: int = 1000,
        largest: int | None = None,
    ) -> PykafkaPublisher:
        """Started."""
        properties, _ = producer_properties(
            config(
                f"service.kafka.bootstrap-servers={bootstrap}",
                f"service.events.buffer={buffer}",
            )
        )
        if largest is not None:
            properties["message.max.bytes"] = largest
        publisher = PykafkaPublisher(
            properties={**properties, **self.security},
            topics=topics,
            workers=self.workers,
            clock=reactor,
            logger=QUIET,
        )
        publisher.start()
        return publisher

    def make_source(
        self, bootstrap: str, topic: str, group: str, in_hand: int
    ) -> PykafkaSource:
        """Not started."""
        kafka = Kafka(
            bootstrap_servers=bootstrap,
            commands_topic=topic,
            events_and_responses_topic="unused",
            consumer_group=group,
        )
        return PykafkaSource(
            properties={**consumer_properties(kafka, group), **self.security},
            topic=topic,
            workers=self.workers,
            clock=reactor,
            now=time.monotonic,
            logger=QUIET,
            in_hand=in_hand,
            restarted=self.restarted,
        )

    def restarted(self) -> None:
        """Called when a consumer died and another takes its place."""
        self.consumers_died: Any = getattr(self, "consumers_died", 0) + 1
