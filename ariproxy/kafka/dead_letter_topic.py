"""The topic of commands that no proxy could read, seen from outside of any group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from msgspec import Struct

from ariproxy.config import Config
from ariproxy.errors import PermanentError, TemporaryError
from ariproxy.kafka.brokers import REFUSED, VAGUE
from ariproxy.kafka.librdkafka import explained, refused_properties
from ariproxy.kafka.records import Headers
from ariproxy.kafka.settings import consumer_properties, producer_properties

WAIT, WAITS = 1.0, 5
"""Seconds that one request may take, and how often it is made while Kafka is away."""

PAUSE = 0.2
"""Seconds between two attempts; a broker that hangs up ends each of them at once."""

ACKNOWLEDGED_WITHIN = 20.0
"""Seconds in which Kafka has to take a command that is sent again."""

HEADERS = ("error", "topic", "partition", "offset")
"""Those by which the proxy says why there is a letter, and where it comes from."""

_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}


class Letter(Struct, frozen=True):
    """A record of the topic. ``time`` is in milliseconds since 1970."""

    partition: int
    offset: int
    time: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def place(self) -> str:
        """How the command line names it."""
        return f"{self.partition}/{self.offset}"

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.value or b"")

    @property
    def written(self) -> str | None:
        """When it was put into the topic, as ISO 8601 tells it."""
        try:
            moment = datetime.fromtimestamp((self.time or 0) / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            # A producer may write any 64 bits as time.
            return None
        text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return None if self.time is None else text

    def header(self, name: str) -> str | None:
        """The text of a header; ``None`` without it (pykafka sends no headers)."""
        value = dict(self.headers).get(name)
        return None if value is None else value.decode("utf-8", "backslashreplace")

    @property
    def source(self) -> str:
        """The topic, partition and offset that the command was read from."""
        return "/".join(self.header(each) or "?" for each in HEADERS[1:])


class _Said:
    """The most telling error that librdkafka reported."""

    def __init__(self, config: Config) -> None:
        self._servers = config.kafka.bootstrap_servers
        self._text = ""
        self._weight = -1
        # Level 0: what it has to say comes as an error, in one line of ours.
        self.properties = {"error_cb": self._error, "log_level": 0}

    @property
    def refused(self) -> bool:
        """Whether trying again is useless."""
        return self._weight == REFUSED

    def _error(self, error: KafkaError) -> None:
        text, weight = explained(error)
        if weight > max(self._weight, VAGUE) or not self._text:
            self._text, self._weight = text, weight

    def away(self, otherwise: str) -> TemporaryError:
        """What to raise when Kafka did not do what it was asked to."""
        hint = "; see service.kafka.bootstrap-servers and .security.protocol"
        return TemporaryError(
            f"Kafka at {self._servers} does not answer: {self._text or otherwise}"
            f"{'' if self.refused else hint}"
        )


class DeadLetterTopic:
    """The dead-letter topic, as it is when it is opened.

    :ivar ranges: by partition, the first offset and the one behind the last.
    """

    def __init__(self, config: Config, topic: str) -> None:
        self._topic = topic
        self._said = _Said(config)
        properties = {
            # The group is named because its rights are there; without a
            # subscription it is not joined.
            **consumer_properties(config.kafka, config.kafka.consumer_group),
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **self._said.properties,
        }
        try:
            self._consumer = Consumer(properties)
        except KafkaException as error:
            raise refused_properties(error) from error

    def __enter__(self) -> Self:
        try:
            self.ranges = {
                partition: self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), WAIT * WAITS
                )
                for partition in _partitions(self._consumer, self._topic, self._said)
            }
        except KafkaException as error:
            self._consumer.close()
            raise self._said.away(error.args[0].str()) from error
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._consumer.close()

    def one(self, partition: int, offset: int) -> Letter:
        """This letter; raises ``PermanentError`` where there is none."""
        first, end = self.ranges.get(partition, (0, 0))
        if first <= offset < end:
            for letter in self.read({partition: offset}):
                if letter.offset == offset:
                    return letter
                break
        raise PermanentError(
            f"there is no letter {partition}/{offset} in {self._topic}"
        )

    def read(self, starts: Mapping[int, int]) -> Iterator[Letter]:
        """The letters of these partitions, each from an offset to its end."""
        ends = {
            each: self.ranges[each][1]
            for each, start in starts.items()
            if start < self.ranges[each][1]
        }
        self._consumer.assign(
            [TopicPartition(self._topic, each, starts[each]) for each in ends]
        )
        silent = 0
        while ends:
            message: Any = self._consumer.poll(WAIT)
            if message is None:
                silent += 1
                if silent == WAITS or self._said.refused:
                    raise self._said.away("no letter comes")
                continue
            silent = 0
            error, partition = message.error(), message.partition()
            end = ends.get(partition, 0)
            if error is None and message.offset() < end:
                yield _letter(message)
            elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise _refusal(self._topic, error)
            # The last offset need not be a letter's: a transaction has marks too.
            if error is not None or message.offset() >= end - 1:
                ends.pop(partition, None)


def _partitions(client: Any, topic: str, said: _Said) -> list[int]:
    """The partitions of a topic; ``client`` is a consumer or a producer."""
    for _ in range(WAITS):
        try:
            found = client.list_topics(topic, WAIT).topics[topic]
            break
        except KafkaException as error:
            why = error.args[0].str()
        # A moment to report what is wrong, and between two attempts.
        client.poll(PAUSE)
        if said.refused:
            raise said.away(why)
    else:
        raise said.away(why)
    if found.error is not None:
        raise _refusal(topic, found.error)
    return list(found.partitions)


def _refusal(topic: str, error: KafkaError) -> PermanentError:
    missing = error.code() in _NO_TOPIC
    text = "Kafka has no such topic" if missing else explained(error)[0]
    return PermanentError(f"{topic}: {text}")


def _letter(message: Any) -> Letter:
    kind, milliseconds = message.timestamp()
    return Letter(
        message.partition(),
        message.offset(),
        None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds,
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )


def send_again(
    config: Config, topic: str, letter: Letter, value: bytes | None
) -> tuple[int, int]:
    """Send ``value`` with the letter's key, as any controller would have.

    Gives the partition and offset that it got. Raises ``PermanentError`` where
    Kafka refuses it, ``TemporaryError`` where it says nothing in time.
    """
    properties, _ = producer_properties(config)
    properties.pop("message.timeout.ms", None)
    properties["delivery.timeout.ms"] = int(ACKNOWLEDGED_WITHIN * 1000)
    said = _Said(config)
    try:
        producer = Producer({**properties, **said.properties})
    except KafkaException as error:
        raise refused_properties(error) from error
    # librdkafka itself would wait to the end for a topic that is not there.
    _partitions(producer, topic, said)
    reports: list[tuple[KafkaError | None, Any]] = []
    try:
        producer.produce(
            topic,
            value,
            letter.key,
            headers=[each for each in letter.headers if each[0] not in HEADERS],
            on_delivery=lambda *report: reports.append(report),
        )
    except KafkaException as error:
        raise _refusal(topic, error.args[0]) from error
    # A moment more, so that it is librdkafka that tells how it ended.
    producer.flush(ACKNOWLEDGED_WITHIN + 2)
    refusal, message = reports[0] if reports else (None, None)
    if message is None or (refusal and refusal.code() == KafkaError._MSG_TIMED_OUT):
        raise said.away("no acknowledgement; the command may have been sent or not")
    if refusal is not None:
        raise _refusal(topic, refusal)
    return message.partition(), message.offset()
