"""Fetching records by pykafka's requests, over one connection."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.logger import Logger

from ariproxy.errors import TemporaryError
from ariproxy.kafka.pykafka_client import (
    Connection,
    MessageSetDecodeFailure,
    PartitionFetchRequest,
    PartitionOffsetRequest,
    Unusable,
    in_one_line,
    named,
)

WAIT = 0.1
"""Seconds that a broker may hold a request for records when there are none."""

FETCH_BYTES = 1024 * 1024
MOST_FETCH_BYTES = 64 * FETCH_BYTES
"""For one partition; what is larger than this at once cannot be read."""

_OFFSET_OUT_OF_RANGE = 1


class Reader:
    """Reads some partitions of one topic.

    :param positions: the next offset of each partition; moved on by ``read``.
    :param offset_reset: pykafka's code for where a partition is read from
        whose offset is gone.
    :ivar stuck: the last answer held no whole record of some partition, so that
        the next will come at once: it is for the caller to wait.
    """

    _log = Logger()

    def __init__(
        self,
        connection: Connection,
        topic: str,
        positions: dict[int, int],
        offset_reset: int,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._positions = positions
        self._offset_reset = offset_reset
        # For the partitions whose next record is larger than usual.
        self._fetch_bytes: dict[int, int] = {}
        # Fetched and not yet handed on: partition and message.
        self._ahead: deque[tuple[int, Any]] = deque()
        self.stuck = False

    def read(self, most: int) -> list[tuple[int, Any]]:
        """At most so many messages, with their partitions; waits a moment for one."""
        if not self._ahead:
            self._fetch_ahead()
        found: list[tuple[int, Any]] = []
        while self._ahead and len(found) < most:
            number, message = self._ahead.popleft()
            # Brokers send sets whole, with messages from before, and send some
            # twice where they have to convert them.
            if message.offset >= self._positions[number]:
                self._positions[number] = message.offset + 1
                found.append((number, message))
        return found

    def _fetch_ahead(self) -> None:
        self.stuck = False
        by_leader: dict[Any, list[int]] = {}
        leaders = self._connection.leaders(self._topic)
        for number in self._positions:
            by_leader.setdefault(leaders[number], []).append(number)
        # One leader after the other: each may hold the others up for its share.
        wait = WAIT / len(by_leader)
        for leader, numbers in by_leader.items():
            if self._ahead:
                wait = 0.001
            for number, result in self._fetch(leader, numbers, wait).items():
                if result.err == _OFFSET_OUT_OF_RANGE:
                    self._skip(number)
                elif result.err:
                    raise TemporaryError(
                        f"{self._topic}, partition {number}: {named(result.err)}"
                    )
                if result.messages:
                    self._fetch_bytes.pop(number, None)
                    self._ahead += [(number, each) for each in result.messages]

    def _fetch(
        self, leader: Any, numbers: Sequence[int], wait: float
    ) -> Mapping[int, Any]:
        """The answers by partition; those that hold no whole record are left out."""
        topic = self._topic.encode()
        requests = [
            PartitionFetchRequest(
                topic,
                number,
                self._positions[number],
                self._fetch_bytes.get(number, FETCH_BYTES),
            )
            for number in numbers
        ]
        try:
            answer = leader.fetch_messages(
                requests, timeout=round(wait * 1000), min_bytes=1
            )
        except MessageSetDecodeFailure:
            return self._fetch_singly(leader, numbers)
        except (ImportError, TypeError, UnboundLocalError) as error:
            raise Unusable(
                f"{self._topic} holds a record in a compression that pykafka cannot "
                f"read ({in_one_line(error)}): compress with gzip or not at all, or "
                "set service.kafka.client = confluent"
            ) from error
        found: Mapping[int, Any] = answer.topics.get(topic, {})
        return found

    def _fetch_singly(self, leader: Any, numbers: Sequence[int]) -> Mapping[int, Any]:
        """Find the partition whose next record is larger than was asked for.

        A partition that ends with the mark of a transaction looks the same to
        old clients: it must not hold up the others.
        """
        if len(numbers) == 1:
            (number,) = numbers
            larger = self._fetch_bytes.get(number, FETCH_BYTES) * 2
            self._fetch_bytes[number] = min(larger, MOST_FETCH_BYTES)
            self.stuck = True
            return {}
        found: dict[int, Any] = {}
        for number in numbers:
            found.update(self._fetch(leader, [number], 0.001))
        return found

    def _skip(self, number: int) -> None:
        """The records at our offset are gone: the topic was cut or made anew."""
        before = self._positions[number]
        after = end_of(self._connection, self._topic, number, self._offset_reset)
        self._positions[number] = after
        self._log.warn(
            "{topic}, partition {partition} has no offset {before}; "
            "going on at {after}",
            topic=self._topic,
            partition=number,
            before=before,
            after=after,
        )


def end_of(connection: Connection, topic: str, number: int, which: int) -> int:
    """The offset of one end of a partition.

    :param which: pykafka's ``OffsetType``: the earliest or the latest.
    """
    request = PartitionOffsetRequest(topic.encode(), number, which, 1)
    leader = connection.leaders(topic)[number]
    answer = leader.request_offset_limits([request])
    result = answer.topics[topic.encode()][number]
    if result.err:
        raise TemporaryError(f"{topic}, partition {number}: {named(result.err)}")
    offset: int = result.offset[0]
    return offset
