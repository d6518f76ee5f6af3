"""The producer by pykafka."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.clocks import OutOfTime, sleep, within
from ariproxy.errors import (
    BufferFull,
    PublishFailed,
    RecordRefused,
    RecordTooLarge,
    TemporaryError,
)
from ariproxy.interfaces import IPublisher, IWorkers
from ariproxy.kafka.brokers import Brokers
from ariproxy.kafka.partitioner import Partitioner
from ariproxy.kafka.pykafka_client import (
    Connection,
    InvalidTopic,
    Message,
    ProduceRequest,
    TopicAuthorizationFailed,
    UnknownTopicOrPartition,
    explained,
    hush,
    named,
    pykafka_settings,
)
from ariproxy.kafka.records import OutgoingRecord
from ariproxy.kafka.settings import Properties

POLL = 0.1
"""Seconds that the thread waits for something to send."""

ACK_TIMEOUT_MS = 4000
CHECK_TIMEOUT = 1.5
CLOSE_TIMEOUT = 5.0
BACK_OFF, LONGEST_BACK_OFF = 0.25, 1.0

BATCH = 1000
BATCH_BYTES = 900_000
"""At most this much in one request: brokers take one batch of 1 MiB by default."""

OVERHEAD = 80
"""Bytes that a record takes beside key and value, at most (message format 2)."""

Settled = Callable[[Exception | None], None]

# Codes of the Kafka protocol.
_TOO_LARGE = {10, 18}
_REFUSED = {2, 17, 29, 31, 32, 87}
_NO_SUCH_TOPIC = (UnknownTopicOrPartition, InvalidTopic, TopicAuthorizationFailed)


class _Waiting:
    """A record on its way."""

    __slots__ = ("done", "message", "settled", "size", "topic")

    def __init__(self, record: OutgoingRecord, settled: Settled, size: int) -> None:
        # Made here for its timestamp: the time of publishing, not of sending.
        self.message = Message(record.value, record.key, protocol_version=1)
        self.topic = record.topic
        self.settled = settled
        self.size = size
        self.done = False


@implementer(IPublisher)
class PykafkaPublisher:
    """One producer for all that the proxy publishes, so that its order is kept.

    One request to each leader is under way at a time. After an error all that
    has no answer yet is sent again, in order, by a new client: nothing is
    lost, but what the brokers had taken without being able to say so is
    doubled. Headers cannot be sent.

    :param properties: as for librdkafka; see ``pykafka_settings`` for what is
        used of them.
    :param topics: the topics that must exist for all to be well.
    :param logger: pykafka's own messages are logged unless it is disabled.
    :raises ConfigError: pykafka cannot do what the properties say.
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
        self._settings = pykafka_settings(properties)
        self._topics = topics
        self._workers = workers
        self._clock = clock
        self._logger = logger
        self._brokers = Brokers("producer", self._settings.hosts)
        self._under_way: dict[int, _Waiting] = {}
        self.taken = 0
        self._headers_told = False
        self._closing = False
        self._ended: Deferred[None] | None = None
        self._handed: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._asked: deque[Deferred[str | None]] = deque()
        # What follows belongs to the sending thread.
        self._choose = Partitioner()
        self._unsent: deque[_Waiting] = deque()
        self._batch_bytes = BATCH_BYTES
        self._in_touch = False

    def start(self) -> None:
        """Begin to send. No broker needs to be there."""
        hush(self._logger)
        self._ended = ensureDeferred(self._keep_running()).addErrback(
            lambda failure: self._log.failure("Publishing ended", failure)
        )

    def publish(self, record: OutgoingRecord, settled: Settled) -> None:
        """See ``IPublisher``."""
        size = len(record.key or b"") + len(record.value or b"") + OVERHEAD
        if self._ended is None or self._closing:
            settled(PublishFailed("the proxy is stopping"))
        elif len(self._under_way) >= self._settings.buffer:
            waiting = len(self._under_way)
            settled(BufferFull(f"{waiting} records wait for Kafka already"))
        elif size > self._settings.largest_record:
            settled(RecordTooLarge(f"{size} bytes, too large for Kafka"))
        else:
            if record.headers and not self._headers_told:
                self._headers_told = True
                self._log.warn(
                    "pykafka cannot send headers: records leave without them; "
                    "service.kafka.client = confluent sends them"
                )
            waiting_one = _Waiting(record, settled, size)
            self._under_way[id(waiting_one)] = waiting_one
            self.taken += 1
            self._handed.put(waiting_one)

    def waiting(self) -> int:
        """See ``IPublisher``."""
        return len(self._under_way)

    async def flush(self, timeout: float) -> int:
        """See ``IPublisher``."""
        end = self._clock.seconds() + timeout
        while self._under_way and self._clock.seconds() < end:
            await sleep(self._clock, 0.01)
        return len(self._under_way)

    async def close(self) -> None:
        """See ``IPublisher``."""
        self._closing = True
        self._handed.put(None)
        if self._ended is not None:
            ended, self._ended = self._ended, None
            try:
                await within(self._clock, CLOSE_TIMEOUT, ended)
            except OutOfTime:
                self._log.warn("Kafka leaves a request unanswered; left it so")
        rest, self._under_way = self._under_way, {}
        for each in rest.values():
            each.settled(PublishFailed("the proxy is stopping"))

    async def check(self) -> None:
        """See ``IHealthChecked``: the brokers answer, and the topics exist."""
        if self._ended is None:
            raise TemporaryError("the producer is not started")
        if self._brokers.trouble:
            raise TemporaryError(self._brokers.trouble)
        asked: Deferred[str | None] = Deferred()
        self._asked.append(asked)
        self._handed.put(None)
        try:
            trouble = await within(self._clock, CHECK_TIMEOUT, asked)
        except OutOfTime:
            raise TemporaryError(
                f"no answer from {self._settings.hosts} within {CHECK_TIMEOUT} s"
            ) from None
        if trouble is not None:
            raise TemporaryError(trouble)

    async def _keep_running(self) -> None:
        back_off = BACK_OFF
        while not self._closing:
            self._in_touch = False
            try:
                await self._workers.call(self._run)
            except Exception as error:
                # pykafka may raise anything.
                self._brokers.failed(*explained(error))
                self._tell(self._brokers.trouble)
                if self._in_touch:
                    back_off = BACK_OFF
                if not self._closing:
                    await sleep(self._clock, back_off)
                back_off = min(back_off * 2, LONGEST_BACK_OFF)

    # -- in the sending thread ----------------------------------------------------

    def _run(self) -> None:
        connection = Connection(self._settings)
        if not self._unsent:
            self._heard()
        while not self._closing:
            self._answer_checks(connection)
            batch = self._next_batch()
            try:
                self._send(connection, batch)
            finally:
                left = [each for each in batch if not each.done]
                self._unsent.extendleft(reversed(left))

    def _next_batch(self) -> list[_Waiting]:
        """Wait a moment for records, and take as many as one request may hold."""
        wait = not self._unsent
        while len(self._unsent) < BATCH:
            try:
                each = self._handed.get(wait, POLL)
            except Empty:
                break
            if each is not None:
                self._unsent.append(each)
            wait = False
        batch: list[_Waiting] = []
        room = self._batch_bytes
        while self._unsent and len(batch) < BATCH:
            room -= self._unsent[0].size
            if batch and room < 0:
                break
            batch.append(self._unsent.popleft())
        return batch

    def _send(self, connection: Connection, batch: Iterable[_Waiting]) -> None:
        requests: dict[Any, Any] = {}
        placed: dict[tuple[bytes, int], list[_Waiting]] = defaultdict(list)
        for each in batch:
            try:
                leaders = connection.leaders(each.topic)
            except _NO_SUCH_TOPIC as error:
                text = f"topic {each.topic}: {type(error).__name__}"
                self._report([each], RecordRefused(text))
                continue
            number = self._choose(each.message.partition_key, len(leaders))
            leader = leaders[number]
            if leader not in requests:
                requests[leader] = ProduceRequest(
                    self._settings.compression, self._settings.acks, ACK_TIMEOUT_MS
                )
            topic = each.topic.encode()
            each.message.partition_id = number
            requests[leader].add_message(each.message, topic, number)
            placed[topic, number].append(each)
        for leader, request in requests.items():
            self._request(leader, request, placed)

    def _request(
        self,
        leader: Any,
        request: Any,
        placed: dict[tuple[bytes, int], list[_Waiting]],
    ) -> None:
        """Send one request; what its answer settles is reported, and marked."""
        answer = leader.produce_messages(request)
        if answer is None:
            # acks = 0: the broker says nothing.
            for topic, partitions in request.msets.items():
                for number in partitions:
                    self._report(placed[topic, number], None)
            return
        trouble = ""
        for topic, partitions in answer.topics.items():
            for number, result in partitions.items():
                sent = placed[topic, number]
                error = self._verdict(result.err, sent)
                if isinstance(error, TemporaryError):
                    trouble = f"{topic.decode()}, partition {number}: {error}"
                elif error is not None or not result.err:
                    self._report(sent, error)
        if trouble:
            raise TemporaryError(trouble)
        self._heard()

    def _verdict(self, code: int, sent: Sequence[_Waiting]) -> Exception | None:
        """The error that settles these records, or one that says: send again."""
        if not code:
            return None
        if code in _TOO_LARGE:
            if len(sent) == 1:
                return RecordTooLarge(named(code))
            # The limit of the topic is for what is sent at once: send less.
            self._batch_bytes = sum(each.size for each in sent) // 2
            return None
        if code in _REFUSED:
            return RecordRefused(named(code))
        return TemporaryError(named(code))

    def _answer_checks(self, connection: Connection) -> None:
        if not self._asked:
            return
        trouble = None
        for topic in self._topics:
            try:
                if connection.partitions(topic) != len(connection.leaders(topic)):
                    connection.refresh()
            except _NO_SUCH_TOPIC as error:
                trouble = f"topic {topic}: {type(error).__name__}"
        self._workers.to_reactor(self._tell, trouble)

    def _report(self, records: Sequence[_Waiting], error: Exception | None) -> None:
        for each in records:
            each.done = True
        self._workers.to_reactor(self._settle, records, error)

    def _heard(self) -> None:
        self._in_touch = True
        self._workers.to_reactor(self._brokers.answered)

    # -- back in the reactor's ----------------------------------------------------

    def _settle(self, records: Sequence[_Waiting], error: Exception | None) -> None:
        for each in records:
            if self._under_way.pop(id(each), None) is None:
                continue
            try:
                each.settled(error)
            except Exception:
                # One caller's defect: the others must be told all the same.
                self._log.failure("A record's outcome was not taken")

    def _tell(self, trouble: str | None) -> None:
        while self._asked:
            asked = self._asked.popleft()
            asked.callback(trouble)
