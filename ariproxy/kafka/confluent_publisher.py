"""The producer by confluent-kafka (librdkafka)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Message,
    Producer,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.clocks import sleep
from ariproxy.errors import (
    BufferFull,
    PublishFailed,
    TemporaryError,
)
from ariproxy.interfaces import IPublisher, IWorkers
from ariproxy.kafka.brokers import Brokers
from ariproxy.kafka.confluent_errors import explained
from ariproxy.kafka.librdkafka import POLL, publish_error, refused_properties
from ariproxy.kafka.records import OutgoingRecord
from ariproxy.kafka.settings import Properties

METADATA_TIMEOUT = 1.5

PURGE_TIMEOUT = 1.0

Settled = Callable[[Exception | None], None]


@implementer(IPublisher)
class ConfluentPublisher:
    """One producer for all that the proxy publishes, so that its order is kept.

    :param topics: the topics that must exist for all to be well.
    :ivar taken: how many records were taken since the start.
    """

    name = "kafka"
    _log = Logger()

    def __init__(
        self,
        *,
        properties: Properties,
        topics: Sequence[str],
        workers: IWorkers,
        clock: IReactorTime,
        logger: Any,
    ) -> None:
        self._properties = properties
        self._topics = topics
        self._workers = workers
        self._clock = clock
        self._logger = logger
        self._brokers = Brokers("producer", str(properties["bootstrap.servers"]))
        self._producer: Producer | None = None
        # Filled and emptied by the polling thread alone.
        self._reports: list[tuple[Settled, KafkaError | None]] = []
        self._waiting = 0
        self.taken = 0
        self._closing = False
        self._ended: Any = None

    def start(self) -> None:
        """Make the producer. No broker needs to be there.

        Raises ``ConfigError`` where librdkafka refuses a property.
        """
        properties = {**self._properties, "error_cb": self._on_error}
        try:
            self._producer = Producer(properties, logger=self._logger)
        except KafkaException as error:
            raise refused_properties(error) from error
        self._ended = self._workers.call(self._poll, self._producer)

    def publish(self, record: OutgoingRecord, settled: Settled) -> None:
        """See ``IPublisher``."""
        if self._producer is None or self._closing:
            settled(PublishFailed("the proxy is stopping"))
            return
        try:
            report = partial(self._delivered, settled)
            place = (record.topic, record.value, record.key)
            if record.headers:
                headers: Any = list(record.headers)
                self._producer.produce(*place, on_delivery=report, headers=headers)
            else:
                self._producer.produce(*place, on_delivery=report)
        except BufferError:
            settled(BufferFull(f"{self._waiting} records wait for Kafka already"))
        except KafkaException as error:
            settled(publish_error(error.args[0]))
        else:
            self._waiting += 1
            self.taken += 1

    def waiting(self) -> int:
        """See ``IPublisher``."""
        return self._waiting

    async def flush(self, timeout: float) -> int:
        """See ``IPublisher``."""
        end = self._clock.seconds() + timeout
        while self._waiting and self._clock.seconds() < end:
            await sleep(self._clock, 0.01)
        return self._waiting

    async def close(self) -> None:
        """See ``IPublisher``."""
        self._closing = True
        if self._ended is not None:
            ended, self._ended = self._ended, None
            await ended

    async def check(self) -> None:
        """See ``IHealthChecked``: the brokers answer, and the topics exist."""
        if self._producer is None:
            raise TemporaryError("the producer is not started")
        for topic in self._topics:
            try:
                metadata = await self._workers.call(
                    self._producer.list_topics, topic, METADATA_TIMEOUT
                )
            except KafkaException as error:
                # librdkafka says only that it had no answer; the last error of
                # the connection says why.
                raise TemporaryError(
                    self._brokers.trouble or error.args[0].str()
                ) from error
            trouble = metadata.topics[topic].error
            if trouble is not None:
                raise TemporaryError(f"topic {topic}: {trouble.str()}")
        self._brokers.answered()

    # -- in the polling thread ----------------------------------------------------

    def _poll(self, producer: Producer) -> None:
        while not self._closing:
            producer.poll(POLL)
            self._hand_over()
        # Whoever waits for a report gets one; those under way a moment later.
        producer.purge()
        producer.flush(PURGE_TIMEOUT)
        self._hand_over()

    def _delivered(
        self, settled: Settled, error: KafkaError | None, message: Message
    ) -> None:
        self._reports.append((settled, error))

    def _hand_over(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._workers.to_reactor(self._settle, reports)

    def _on_error(self, error: KafkaError) -> None:
        self._workers.to_reactor(self._brokers.failed, *explained(error))

    # -- back in the reactor's ----------------------------------------------------

    def _settle(self, reports: list[tuple[Settled, KafkaError | None]]) -> None:
        self._waiting -= len(reports)
        for settled, error in reports:
            try:
                settled(None if error is None else publish_error(error))
            except Exception:
                # A defect of one caller must not keep the others waiting.
                self._log.failure("A record is settled, but not its consequences")
        if reports[-1][1] is None:
            self._brokers.answered()
