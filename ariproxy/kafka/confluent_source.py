"""The consumer by confluent-kafka (librdkafka)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.clocks import OutOfTime, sleep, within
from ariproxy.interfaces import IRecordSource, IWorkers
from ariproxy.kafka.brokers import Brokers
from ariproxy.kafka.librdkafka import POLL, explained, refused_properties
from ariproxy.kafka.offsets import Offsets, Partition
from ariproxy.kafka.records import IncomingRecord
from ariproxy.kafka.settings import Properties

POSITION_TIMEOUT = 5.0
"""Seconds that the brokers have to tell where to begin."""


@implementer(IRecordSource)
class ConfluentSource:
    """One consumer, all of whose calls are made in its polling thread.

    librdkafka lets one thread at a time into a consumer, without a queue: a
    call from another thread could wait for seconds.

    :param in_hand: how many records may be read and not settled; beyond it the
        partitions are paused, and the consumer stays in its group.
    :param now: seconds, steady; called in the polling thread.
    :param restarted: called when a consumer has ended and a new one is made.
    """

    BATCH = 500
    COMMIT_EVERY = 0.05
    PAUSE_AFTER = 1.0
    RETIRE_TIMEOUT = 3.0
    LAST_COMMIT_TIMEOUT = 3.0
    # The last commit, and 5 s that a frozen broker needs to let somebody go.
    STOP_TIMEOUT = 9.0
    RESTART_AFTER = 1.0
    _log = Logger()

    def __init__(
        self,
        *,
        properties: Properties,
        topic: str,
        workers: IWorkers,
        clock: IReactorTime,
        now: Callable[[], float],
        logger: Any,
        in_hand: int,
        restarted: Callable[[], None],
    ) -> None:
        self._properties = properties
        self._topic = topic
        self._workers = workers
        self._logger = logger
        self._clock = clock
        self._now = now
        self._in_hand = in_hand
        self._restarted = restarted
        self._brokers = Brokers("consumer", str(properties["bootstrap.servers"]))
        self._offsets = Offsets()
        self._receive: Callable[[Sequence[IncomingRecord]], None] = lambda batch: None
        self._stopping = False
        self._wanted = True
        self._ended: Any = None
        # What follows belongs to the polling thread.
        self._paused = False
        self._leaving = False
        self._full_since: float | None = None
        self._committing: Mapping[Partition, int] | None = None
        self._next_commit = 0.0

    @property
    def partitions(self) -> list[Partition]:
        """What is assigned to this consumer now."""
        return self._offsets.partitions

    def start(self, receive: Callable[[Sequence[IncomingRecord]], None]) -> None:
        """See ``IRecordSource``; ``ConfigError`` where a property is refused."""
        self._receive = receive
        try:
            consumer = self._consumer()
        except KafkaException as error:
            raise refused_properties(error) from error
        self._ended = ensureDeferred(self._keep_running(consumer)).addErrback(
            lambda failure: self._log.failure("Consuming ended", failure)
        )

    def settle(self, record: IncomingRecord) -> None:
        """See ``IRecordSource``."""
        self._offsets.settle(record)

    def claim(self, record: IncomingRecord) -> bool:
        """See ``IRecordSource``."""
        return self._offsets.claim(record)

    def pause(self) -> None:
        """See ``IRecordSource``."""
        self._wanted = False

    def resume(self) -> None:
        """See ``IRecordSource``."""
        self._wanted = True

    async def stop(self) -> None:
        """See ``IRecordSource``."""
        self._stopping = True
        if self._ended is not None:
            ended, self._ended = self._ended, None
            try:
                await within(self._clock, self.STOP_TIMEOUT, ended)
            except OutOfTime:
                self._log.warn("Kafka lets nobody leave the consumer group; left it so")

    def _consumer(self) -> Consumer:
        callbacks = {"error_cb": self._on_error, "on_commit": self._on_commit}
        return Consumer({**self._properties, **callbacks}, logger=self._logger)

    async def _keep_running(self, consumer: Consumer) -> None:
        while not self._stopping:
            try:
                await self._workers.call(self._run, consumer)
            except Exception as error:
                self._restarted()
                self._log.error(
                    "Consumer of {topic} ended, a new one is made: {error}",
                    topic=self._topic,
                    error=error,
                )
                self._offsets.revoke(self._offsets.partitions)
                await sleep(self._clock, self.RESTART_AFTER)
                consumer = self._consumer()

    # -- in the polling thread ----------------------------------------------------

    def _run(self, consumer: Consumer) -> None:
        self._paused, self._leaving = False, False
        self._committing, self._full_since = None, None
        try:
            consumer.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not self._stopping:
                if self._may_read(consumer):
                    self._read(consumer)
                self._commit(consumer)
        finally:
            self._leave(consumer)

    def _may_read(self, consumer: Consumer) -> bool:
        """Wait a moment for room; pause the partitions if there is none for long.

        To pause throws away what was fetched ahead, so it is worth it only for
        a pause that lasts; but a consumer that reads nothing for minutes loses
        its place in the group (``max.poll.interval.ms``), a paused one does not.
        """
        room = self._wanted and self._offsets.wait_below(self._in_hand, POLL)
        if room:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = self._now()
        pause = not self._wanted or (
            self._full_since is not None
            and self._now() - self._full_since >= self.PAUSE_AFTER
        )
        if pause != self._paused:
            assigned = consumer.assignment()
            if pause:
                consumer.pause(assigned)
            else:
                consumer.resume(assigned)
            self._paused = pause
        return room or pause

    def _read(self, consumer: Consumer) -> None:
        first = consumer.poll(POLL)
        if first is None:
            return
        # Waiting for a full batch would hold up the first record of it.
        batch = [first, *consumer.consume(self.BATCH - 1, 0)]
        records = []
        for message in batch:
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise KafkaException(error)
                self._on_error(error)
                continue
            record = self._record(message)
            if record is not None:
                records.append(record)
        if records:
            self._workers.to_reactor(self._take, records)

    def _record(self, message: Any) -> IncomingRecord | None:
        topic, partition, offset = (
            message.topic(),
            message.partition(),
            message.offset(),
        )
        epoch = self._offsets.read(topic, partition, offset)
        if epoch is None:
            return None
        kind, milliseconds = message.timestamp()
        return IncomingRecord(
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000,
            tuple(message.headers() or ()),
            epoch,
        )

    def _commit(self, consumer: Consumer) -> None:
        # One commit at a time: several that wait for a broker's return are
        # carried out in any order.
        now = self._now()
        if self._committing is not None or now < self._next_commit:
            return
        offsets = self._offsets.to_commit()
        if not offsets:
            return
        self._committing, self._next_commit = offsets, now + self.COMMIT_EVERY
        try:
            consumer.commit(offsets=_positions(offsets), asynchronous=True)
        except KafkaException as error:
            self._committing = None
            self._on_error(error.args[0])

    def _on_commit(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> None:
        offsets, self._committing = self._committing, None
        if error is not None:
            self._on_error(error)
        elif offsets is not None:
            self._offsets.committed(offsets)

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        begins = self._begin_now(consumer, assigned)
        # Only now: what is assigned counts as consumed by whoever asks.
        self._offsets.assign(_partitions(assigned))
        self._offsets.begin(begins)
        self._paused = False
        self._workers.to_reactor(self._assigned, [each.partition for each in assigned])

    def _begin_now(
        self, consumer: Consumer, assigned: list[TopicPartition]
    ) -> Mapping[Partition, int]:
        """Where the group has no offset yet, begin at the end as it is now.

        The end is committed at once. Otherwise what "latest" means would be found
        out a moment later, and at each restart anew, until the first command is
        committed: commands sent meanwhile would be skipped.
        """
        begins = {}
        try:
            for each in consumer.committed(assigned, POSITION_TIMEOUT):
                if each.offset < 0:
                    ends = consumer.get_watermark_offsets(each, POSITION_TIMEOUT)
                    begins[each.topic, each.partition] = ends[1]
        except KafkaException as error:
            self._on_error(error.args[0])
            return {}
        if begins:
            consumer.assign(
                [
                    TopicPartition(
                        each.topic,
                        each.partition,
                        begins.get((each.topic, each.partition), each.offset),
                    )
                    for each in assigned
                ]
            )
            self._commit_now(consumer, begins)
        return begins

    def _commit_now(self, consumer: Consumer, offsets: Mapping[Partition, int]) -> None:
        try:
            consumer.commit(offsets=_positions(offsets), asynchronous=False)
        except KafkaException as error:
            self._on_error(error.args[0])

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        partitions = _partitions(revoked)
        if not self._leaving:
            # What is being carried out is worth a moment: whoever gets the
            # partition next would carry it out again.
            self._offsets.retire(partitions, self.RETIRE_TIMEOUT)
            offsets = {
                partition: offset
                for partition, offset in self._offsets.to_commit().items()
                if partition in partitions
            }
            if offsets:
                self._commit_now(consumer, offsets)
        self._offsets.revoke(partitions)
        self._workers.to_reactor(self._revoked, [each.partition for each in revoked])

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        self._offsets.revoke(_partitions(lost))
        self._workers.to_reactor(self._revoked, [each.partition for each in lost])

    def _leave(self, consumer: Consumer) -> None:
        """Commit what is settled, and close.

        With a commit that nobody answers, closing takes minutes, and so would
        letting the object go. It happens in this thread, for which neither
        ``stop`` nor the end of the process waits.
        """
        end = self._now() + self.LAST_COMMIT_TIMEOUT
        consumer.pause(consumer.assignment())
        while self._now() < end:
            self._commit(consumer)
            if self._committing is None and not self._offsets.to_commit():
                break
            consumer.poll(0.02)
        self._leaving = True
        consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        self._workers.to_reactor(self._brokers.failed, *explained(error))

    # -- in the reactor's ---------------------------------------------------------

    def _take(self, records: Sequence[IncomingRecord]) -> None:
        self._brokers.answered()
        if not self._stopping:
            self._receive(records)

    def _assigned(self, numbers: Sequence[int]) -> None:
        self._brokers.answered()
        self._log.info(
            "Consuming {topic}, partitions {partitions}",
            topic=self._topic,
            partitions=_listed(numbers),
        )

    def _revoked(self, numbers: Sequence[int]) -> None:
        self._log.info(
            "No longer consuming {topic}, partitions {partitions}",
            topic=self._topic,
            partitions=_listed(numbers),
        )


def _partitions(found: Sequence[TopicPartition]) -> list[Partition]:
    return [(each.topic, each.partition) for each in found]


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [
        TopicPartition(topic, number, offset)
        for (topic, number), offset in offsets.items()
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(each) for each in sorted(numbers)) or "none"
