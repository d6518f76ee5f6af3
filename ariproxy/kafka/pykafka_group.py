"""A consumer's place in its group, by pykafka's requests.

The group protocol of Kafka 0.9 (KIP-62 without its extensions): join, let one
member assign the partitions, then say every few seconds that one lives. Other
members may be of any client, as long as they have the assignor ``range``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ariproxy.errors import TemporaryError
from ariproxy.kafka.pykafka_client import (
    Connection,
    ConsumerGroupProtocolMetadata,
    GroupMembershipProtocol,
    PartitionOffsetCommitRequest,
    PartitionOffsetFetchRequest,
    named,
)

SESSION = 30.0
"""Seconds without a sign of life until the group counts a member as dead.

pykafka asks for this session time-out and lets nobody choose another.
"""

JOIN_TIMEOUT = 60.0
"""Seconds that a join may take: the coordinator waits for the other members."""

# Codes of the Kafka protocol.
_ILLEGAL_GENERATION, _UNKNOWN_MEMBER, _REBALANCE = 22, 25, 27
_INCONSISTENT_PROTOCOL = 23


class Rebalancing(Exception):
    """The group wants its members to join again; the partitions are still ours."""


class PlaceLost(Exception):
    """The group goes on without this member; its partitions are another's."""


class Membership:
    """Who this consumer is in its group; outlives the connection.

    A consumer that came back under another name would have to wait until the
    group had given up its former self.
    """

    def __init__(self, group: str, topic: str) -> None:
        self._group = group.encode()
        self._name = group
        self._topic = topic
        self._member = b""
        self._generation = -1
        self.leads = False

    def join(self, connection: Connection) -> list[int]:
        """Join, or join again; gives the numbers of the partitions assigned."""
        while True:
            coordinator = connection.patient(
                connection.coordinator(self._name), JOIN_TIMEOUT
            )
            protocol = GroupMembershipProtocol(
                b"consumer",
                b"range",
                ConsumerGroupProtocolMetadata(0, [self._topic.encode()], b""),
                None,
            )
            joined = coordinator.join_group(
                0, self._group, self._member, self._topic.encode(), protocol
            )
            if joined.error_code == _UNKNOWN_MEMBER:
                self._member = b""
                continue
            self._raise(joined.error_code)
            self._member = joined.member_id
            self._generation = joined.generation_id
            self.leads = joined.leader_id == joined.member_id
            shares = self._shares(connection, joined.members) if self.leads else []
            synced = coordinator.sync_group(
                0, self._group, self._generation, self._member, shares
            )
            if synced.error_code == _REBALANCE:
                continue
            self._raise(synced.error_code)
            return [
                number
                for topic, numbers in synced.member_assignment.partition_assignment
                if topic == self._topic.encode()
                for number in numbers
            ]

    def heartbeat(self, coordinator: Any) -> None:
        """Say that this member lives; raises ``Rebalancing`` or ``PlaceLost``."""
        self._raise(
            coordinator.heartbeat(
                0, self._group, self._generation, self._member
            ).error_code
        )

    def committed(
        self, coordinator: Any, numbers: Collection[int]
    ) -> Mapping[int, int]:
        """The group's offsets, for the partitions that have one."""
        topic = self._topic.encode()
        if not numbers:
            return {}
        answer = coordinator.fetch_consumer_group_offsets(
            self._group,
            [PartitionOffsetFetchRequest(topic, number) for number in numbers],
        )
        found = {}
        for number, result in answer.topics.get(topic, {}).items():
            self._raise(result.err)
            if result.offset >= 0:
                found[number] = result.offset
        return found

    def commit(self, coordinator: Any, offsets: Mapping[int, int]) -> None:
        """Commit; raises ``Rebalancing`` or ``PlaceLost``."""
        topic = self._topic.encode()
        answer = coordinator.commit_consumer_group_offsets(
            self._group,
            self._generation,
            self._member,
            [
                # -1: the time is the broker's.
                PartitionOffsetCommitRequest(topic, number, offset, -1, b"")
                for number, offset in offsets.items()
            ],
        )
        for result in answer.topics.get(topic, {}).values():
            self._raise(result.err)

    def leave(self, coordinator: Any) -> None:
        """Let the others have the partitions at once."""
        coordinator.leave_group(0, self._group, self._member)

    def _shares(
        self, connection: Connection, members: Mapping[bytes, Any]
    ) -> list[tuple[bytes, _Share]]:
        topics = {member: each.topic_names for member, each in members.items()}
        shares = in_ranges(topics, lambda name: len(connection.leaders(name.decode())))
        return [(member, _Share(share)) for member, share in shares.items()]

    def _raise(self, code: int) -> None:
        if code == _REBALANCE:
            raise Rebalancing
        if code in (_ILLEGAL_GENERATION, _UNKNOWN_MEMBER):
            raise PlaceLost
        if code == _INCONSISTENT_PROTOCOL:
            raise TemporaryError(
                f"consumer group {self._name}: its other members have not the "
                "assignor range, the only one here; let them have it"
            )
        if code:
            raise TemporaryError(f"consumer group {self._name}: {named(code)}")


Shares = dict[bytes, list[tuple[bytes, list[int]]]]


def in_ranges(
    topics: Mapping[bytes, Collection[bytes]], partitions: Callable[[bytes], int]
) -> Shares:
    """Who gets what, as the ``RangeAssignor`` of the Java client decides it.

    :param topics: what each member subscribes to.
    :param partitions: how many partitions a topic has.
    """
    subscribers = defaultdict(list)
    for member in sorted(topics):
        for topic in topics[member]:
            subscribers[topic].append(member)
    shares: Shares = {member: [] for member in topics}
    for topic, members in sorted(subscribers.items()):
        each, more = divmod(partitions(topic), len(members))
        first = 0
        for position, member in enumerate(members):
            last = first + each + (position < more)
            if last > first:
                shares[member].append((topic, list(range(first, last))))
            first = last
    return shares


class _Share:
    """One member's partitions, as they are sent.

    pykafka's own leaves out the field of user data, without which other
    clients cannot read it.
    """

    def __init__(self, share: list[tuple[bytes, list[int]]]) -> None:
        parts = [_int16(0), _int32(len(share))]
        for topic, numbers in share:
            parts += [_int16(len(topic)), topic, _int32(len(numbers))]
            parts += [_int32(number) for number in numbers]
        self._bytes = b"".join([*parts, _int32(-1)])

    def __len__(self) -> int:
        return len(self._bytes)

    def get_bytes(self) -> bytes:
        return self._bytes


def _int16(number: int) -> bytes:
    return number.to_bytes(2, "big", signed=True)


def _int32(number: int) -> bytes:
    return number.to_bytes(4, "big", signed=True)
