"""Commands that cannot be read: told, and kept for somebody who can mend them."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ariproxy.errors import PublishFailed
from ariproxy.interfaces import IPublisher, IRecordSource
from ariproxy.kafka.records import IncomingRecord, OutgoingRecord
from ariproxy.metrics import Metrics
from ariproxy.repeated import Repeated

PUBLISH_RETRY_AFTER = 0.5
"""Seconds until a record that Kafka did not take is offered again."""


class Unreadable:
    """Takes commands that nobody could answer.

    :param topic: the dead-letter topic; ``None`` to keep none of them.
    """

    _log = Logger()

    def __init__(
        self,
        topic: str | None,
        source: IRecordSource,
        publisher: IPublisher,
        metrics: Metrics,
        clock: IReactorTime,
    ) -> None:
        self._topic = topic
        self._source = source
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._repeated = Repeated(clock)

    def take(self, record: IncomingRecord, error: Exception) -> None:
        """Tell of the record, bury it if there is a topic for that, and settle it."""
        self._metrics.command_settled("undecodable")
        if count := self._repeated.due("undecodable"):
            self._log.warn(
                "Command at {topic}/{partition}/{offset} cannot be read and gets no "
                "answer: {error} ({count} since the last such line)",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                error=error,
                count=count,
            )
        if self._topic is None:
            self._source.settle(record)
            return
        letter = OutgoingRecord(
            self._topic,
            record.key,
            record.value,
            (
                ("error", str(error).encode("utf-8", "replace")),
                ("topic", record.topic.encode()),
                ("partition", str(record.partition).encode()),
                ("offset", str(record.offset).encode()),
            ),
        )
        self._bury(record, letter)

    def _bury(self, record: IncomingRecord, letter: OutgoingRecord) -> None:
        def settled(error: Exception | None) -> None:
            if isinstance(error, PublishFailed):
                self._clock.callLater(PUBLISH_RETRY_AFTER, self._bury, record, letter)
                return
            if error is not None:
                self._log.error(
                    "Dead letter of {topic}/{partition}/{offset} not taken by Kafka: "
                    "{error}",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    error=error,
                )
            self._source.settle(record)

        self._publisher.publish(letter, settled)
