"""The producer by confluent-kafka (librdkafka)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import (
    KafkaError,
    KafkaException,
    Message,
    Producer,
)
from twisted.internet.defer import ensureDeferred
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
from ariproxy.kafka.librdkafka import (
    POLL,
    explained,
    publish_error,
    refused_properties,
)
from ariproxy.kafka.records import OutgoingRecord
from ariproxy.kafka.settings import Properties

METADATA_TIMEOUT = 1.5

PURGE_TIMEOUT = 1.0

Settled = Callable[[Exception | None], None]


RESTART_AFTER = 1.0
"""Seconds until a producer that failed is followed by a new one."""


class _Report(NamedTuple):
    """What became of one record; ``message`` only where there is an error."""

    settled: Settled
    number: int
    error: KafkaError | None
    message: Any

    def record(self) -> OutgoingRecord:
        """The record, to be sent again."""
        found = self.message
        headers = tuple(found.headers() or ())
        return OutgoingRecord(found.topic(), found.key(), found.value(), headers)


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
        self._limit = int(properties.get("queue.buffering.max.messages", 100_000))
        self._brokers = Brokers("producer", str(properties["bootstrap.servers"]))
        self._producer: Producer | None = None
        # Filled and emptied by the polling thread alone.
        self._reports: list[_Report] = []
        self._fatal = False
        # Taken while there is no producer, in the order in which they came.
        self._parked: list[tuple[OutgoingRecord, Settled]] = []
        self._refused = ""
        self._waiting = 0
        self.taken = 0
        self._closing = False
        self._ended: Any = None

    def start(self) -> None:
        """Make the producer. No broker needs to be there.

        Raises ``ConfigError`` where librdkafka refuses a property.
        """
        try:
            self._producer = self._new_producer()
        except KafkaException as error:
            raise refused_properties(error) from error
        self._ended = ensureDeferred(self._keep_running(self._producer)).addErrback(
            lambda failure: self._log.failure("Publishing ended", failure)
        )

    def publish(self, record: OutgoingRecord, settled: Settled) -> None:
        """See ``IPublisher``."""
        if self._ended is None or self._closing:
            settled(PublishFailed("the proxy is stopping"))
        elif self._producer is not None:
            self._produce(self._producer, record, settled)
        elif len(self._parked) < self._limit:
            self._parked.append((record, settled))
            self._count()
        else:
            settled(BufferFull(f"{self._waiting} records wait for Kafka already"))

    def _produce(
        self, producer: Producer, record: OutgoingRecord, settled: Settled
    ) -> None:
        try:
            report = partial(self._delivered, settled, self.taken)
            place = (record.topic, record.value, record.key)
            if record.headers:
                headers: Any = list(record.headers)
                producer.produce(*place, on_delivery=report, headers=headers)
            else:
                producer.produce(*place, on_delivery=report)
        except BufferError:
            settled(BufferFull(f"{self._waiting} records wait for Kafka already"))
        except KafkaException as error:
            settled(publish_error(error.args[0]))
        else:
            self._count()

    def _count(self) -> None:
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
        if self._refused or self._producer is None:
            raise TemporaryError(self._refused or "the producer is not started")
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

    def _new_producer(self) -> Producer:
        properties = {**self._properties, "error_cb": self._on_error}
        return Producer(properties, logger=self._logger)

    async def _keep_running(self, producer: Producer) -> None:
        """Poll the producer; after a fatal error go on with a new one.

        librdkafka gives such a producer up for good (its idempotence is lost, or
        a right was taken away). What it did not send is sent by the next, in the
        same order.
        """
        while True:
            unsent = await self._workers.call(self._poll, producer)
            self._producer = None
            self._waiting -= len(unsent)
            if self._closing:
                self._give_up([each.settled for each in unsent])
                return
            unsent.sort(key=lambda each: each.number)
            again = [(each.record(), each.settled) for each in unsent]
            self._parked = again + self._parked
            self._waiting += len(again)
            await sleep(self._clock, RESTART_AFTER)
            if self._closing:
                self._waiting -= len(self._parked)
                self._give_up([settled for _, settled in self._parked])
                return
            self._fatal = False
            producer = self._producer = self._new_producer()
            parked, self._parked = self._parked, []
            self._waiting -= len(parked)
            for record, settled in parked:
                self._produce(producer, record, settled)

    def _give_up(self, waiting: Sequence[Settled]) -> None:
        for settled in waiting:
            settled(PublishFailed("the proxy is stopping"))

    # -- in the polling thread ----------------------------------------------------

    def _poll(self, producer: Producer) -> list[_Report]:
        """Until it is to end, or has failed; gives the reports of what is unsent."""
        try:
            while not self._closing and not self._fatal:
                producer.poll(POLL)
                self._hand_over()
        except KafkaException as error:
            self._on_error(error.args[0])
        # Whoever waits for a report gets one; those under way a moment later.
        producer.purge()
        try:
            producer.flush(PURGE_TIMEOUT)
        except KafkaException as error:
            self._on_error(error.args[0])
        unsent = [each for each in self._reports if each.error is not None]
        self._reports = [each for each in self._reports if each.error is None]
        self._hand_over()
        return unsent

    def _delivered(
        self,
        settled: Settled,
        number: int,
        error: KafkaError | None,
        message: Message,
    ) -> None:
        # The message of one that was delivered is of no use, and may be large.
        kept = None if error is None else message
        self._reports.append(_Report(settled, number, error, kept))

    def _hand_over(self) -> None:
        if self._reports:
            reports, self._reports = self._reports, []
            self._workers.to_reactor(self._settle, reports)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
            self._workers.to_reactor(self._failed, error.str())
        self._workers.to_reactor(self._brokers.failed, *explained(error))

    # -- back in the reactor's ----------------------------------------------------

    def _failed(self, reason: str) -> None:
        self._refused = reason

    def _settle(self, reports: list[_Report]) -> None:
        self._waiting -= len(reports)
        for report in reports:
            error = report.error
            try:
                report.settled(None if error is None else publish_error(error))
            except Exception:
                # A defect of one caller must not keep the others waiting.
                self._log.failure("A record is settled, but not its consequences")
        if reports[-1].error is None:
            self._refused = ""
            self._brokers.answered()
