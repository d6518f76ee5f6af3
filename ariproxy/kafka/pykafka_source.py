"""The consumer by pykafka."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.clocks import OutOfTime, sleep, within
from ariproxy.interfaces import IRecordSource, IWorkers
from ariproxy.kafka.brokers import Brokers
from ariproxy.kafka.offsets import Offsets, Partition
from ariproxy.kafka.pykafka_client import (
    Connection,
    explained,
    hush,
    pykafka_settings,
)
from ariproxy.kafka.pykafka_group import SESSION, Membership, PlaceLost, Rebalancing
from ariproxy.kafka.pykafka_reader import WAIT, Reader, end_of
from ariproxy.kafka.records import IncomingRecord
from ariproxy.kafka.settings import Properties


class _Link:
    """What is known as long as one connection lasts."""

    def __init__(self, connection: Connection, coordinator: Any) -> None:
        self.connection = connection
        self.coordinator = coordinator
        self.reader: Reader | None = None
        self.works = False


@implementer(IRecordSource)
class PykafkaSource:
    """One member of the consumer group, all in one thread.

    After an error it comes back by a new client under its old name in the
    group: what it had read and not settled stays its own, unless the group has
    gone on without it.

    :param properties: as for librdkafka; see ``pykafka_settings``.
    :param in_hand: how many records may be read and not settled; beyond it
        nothing is fetched, and the consumer stays in its group.
    :param now: seconds, steady; called in the polling thread.
    :param logger: pykafka's own messages are logged unless it is disabled.
    :param restarted: called when a consumer has ended and a new one is made.
    :raises ConfigError: pykafka cannot do what the properties say.
    """

    BATCH = 500
    COMMIT_EVERY = 0.05
    HEARTBEAT_EVERY = 1.0
    REFRESH_EVERY = 60.0
    RETIRE_TIMEOUT = 3.0
    STOP_TIMEOUT = 5.0
    BACK_OFF, LONGEST_BACK_OFF = 0.25, 1.0
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
        self._settings = pykafka_settings(properties)
        self._topic = topic
        self._workers = workers
        self._clock = clock
        self._now = now
        self._logger = logger
        self._in_hand = in_hand
        self._restarted = restarted
        self._brokers = Brokers("consumer", self._settings.hosts)
        self._offsets = Offsets()
        self._receive: Callable[[Sequence[IncomingRecord]], None] = lambda batch: None
        self._stopping = False
        self._wanted = True
        self._ended: Deferred[None] | None = None
        # What follows belongs to the polling thread.
        self._member = Membership(self._settings.group, topic)
        self._positions: dict[int, int] | None = None
        self._heard = 0.0
        self._next_commit = self._next_heartbeat = self._next_refresh = 0.0
        self._in_touch = False

    @property
    def partitions(self) -> list[Partition]:
        """What is assigned to this consumer now."""
        return self._offsets.partitions

    def start(self, receive: Callable[[Sequence[IncomingRecord]], None]) -> None:
        """See ``IRecordSource``."""
        hush(self._logger)
        self._receive = receive
        self._ended = ensureDeferred(self._keep_running()).addErrback(
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

    async def _keep_running(self) -> None:
        back_off = self.BACK_OFF
        while not self._stopping:
            self._in_touch = False
            try:
                await self._workers.call(self._run)
            except Exception as error:
                # pykafka may raise anything.
                self._brokers.failed(*explained(error))
                if self._in_touch:
                    back_off = self.BACK_OFF
                    self._restarted()
                if not self._stopping:
                    await sleep(self._clock, back_off)
                back_off = min(back_off * 2, self.LONGEST_BACK_OFF)

    # -- in the polling thread ----------------------------------------------------

    def _run(self) -> None:
        if self._positions is not None and self._now() - self._heard > SESSION:
            self._give_up()
        connection = Connection(self._settings)
        link = _Link(connection, connection.coordinator(self._settings.group))
        self._next_heartbeat = 0.0
        while not self._stopping:
            try:
                self._turn(link)
            except Rebalancing:
                self._let_go(link)
            except PlaceLost:
                self._give_up()
        self._leave(link)

    def _turn(self, link: _Link) -> None:
        """Keep the place in the group, commit, and read once."""
        if self._positions is None:
            self._join(link)
        self._keep_place(link)
        if self._now() >= self._next_commit:
            self._commit(link)
        if not self._wanted or not self._positions:
            # Nothing to fetch: wait without a broker, as long as a fetch would.
            self._offsets.wait_below(0, WAIT)
        elif self._offsets.wait_below(self._in_hand, WAIT):
            self._read(link, self._positions)
        self._succeeded(link)

    def _join(self, link: _Link) -> None:
        numbers = self._member.join(link.connection)
        link.coordinator = link.connection.coordinator(self._settings.group)
        positions = dict(self._member.committed(link.coordinator, numbers))
        for number in numbers:
            if number not in positions:
                positions[number] = end_of(
                    link.connection, self._topic, number, self._settings.offset_reset
                )
        self._succeeded(link)
        self._positions, link.reader = positions, None
        self._offsets.assign([(self._topic, number) for number in numbers])
        self._sign_of_life()
        self._next_refresh = self._now() + self.REFRESH_EVERY
        self._workers.to_reactor(self._assigned, numbers)

    def _keep_place(self, link: _Link) -> None:
        if self._now() < self._next_heartbeat:
            return
        self._member.heartbeat(link.coordinator)
        self._sign_of_life()
        if self._now() >= self._next_refresh:
            self._next_refresh = self._now() + self.REFRESH_EVERY
            before = len(link.connection.leaders(self._topic))
            link.connection.refresh()
            if len(link.connection.leaders(self._topic)) != before:
                # Whoever assigns partitions must know of the new ones.
                raise Rebalancing

    def _succeeded(self, link: _Link) -> None:
        # An answer to a heartbeat would not do: reading may fail all the same.
        if not link.works:
            link.works = self._in_touch = True
            self._workers.to_reactor(self._brokers.answered)

    def _sign_of_life(self) -> None:
        self._heard = self._now()
        self._next_heartbeat = self._heard + self.HEARTBEAT_EVERY

    def _commit(self, link: _Link) -> None:
        offsets = self._offsets.to_commit()
        if offsets:
            self._next_commit = self._now() + self.COMMIT_EVERY
            numbered = {number: offset for (_, number), offset in offsets.items()}
            self._member.commit(link.coordinator, numbered)
            self._offsets.committed(offsets)

    def _read(self, link: _Link, positions: dict[int, int]) -> None:
        if link.reader is None:
            link.reader = Reader(
                link.connection, self._topic, positions, self._settings.offset_reset
            )
        found = link.reader.read(self.BATCH)
        records = [
            record
            for number, message in found
            if (record := self._record(number, message)) is not None
        ]
        if records:
            self._workers.to_reactor(self._take, records)
        if link.reader.stuck:
            self._offsets.wait_below(0, WAIT)

    def _record(self, number: int, message: Any) -> IncomingRecord | None:
        epoch = self._offsets.read(self._topic, number, message.offset)
        if epoch is None:
            return None
        return IncomingRecord(
            self._topic,
            number,
            message.offset,
            message.partition_key,
            message.value,
            message.timestamp / 1000 if message.timestamp else None,
            (),
            epoch,
        )

    def _let_go(self, link: _Link) -> None:
        """Finish what is being carried out, and commit, before joining again.

        Whoever gets the partition next would carry it out again.
        """
        partitions = self._offsets.partitions
        self._offsets.retire(partitions, self.RETIRE_TIMEOUT)
        try:
            self._commit(link)
        except (Rebalancing, PlaceLost):
            pass
        self._give_up()

    def _give_up(self) -> None:
        partitions = self._offsets.partitions
        self._positions = None
        self._offsets.revoke(partitions)
        self._workers.to_reactor(self._revoked, [number for _, number in partitions])

    def _leave(self, link: _Link) -> None:
        if self._positions is not None:
            try:
                self._commit(link)
            except (Rebalancing, PlaceLost):
                pass
            self._member.leave(link.coordinator)

    # -- in the reactor's ---------------------------------------------------------

    def _take(self, records: Sequence[IncomingRecord]) -> None:
        if not self._stopping:
            self._receive(records)

    def _assigned(self, numbers: Collection[int]) -> None:
        self._log.info(
            "Consuming {topic}, partitions {partitions}",
            topic=self._topic,
            partitions=_listed(numbers),
        )

    def _revoked(self, numbers: Collection[int]) -> None:
        self._log.info(
            "No longer consuming {topic}, partitions {partitions}",
            topic=self._topic,
            partitions=_listed(numbers),
        )


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(str(each) for each in sorted(numbers)) or "none"
