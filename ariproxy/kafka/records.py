"""The records that pass between the proxy and Kafka, free of any client library."""

from __future__ import annotations

from msgspec import Struct

Headers = tuple[tuple[str, bytes], ...]


class OutgoingRecord(Struct, frozen=True):
    """One record to publish.

    ``key`` is ``None`` only for the answer to a command without call context,
    ``value`` only for a dead letter that came without one.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class IncomingRecord(Struct, frozen=True, eq=False):
    """One record as it was consumed.

    ``value`` is ``None`` for a tombstone. ``timestamp`` is in seconds since
    1970, ``None`` where the broker gave none. ``epoch`` counts the assignments
    of its partition to this consumer: a record of an earlier assignment
    belongs to somebody else by now.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float | None = None
    headers: Headers = ()
    epoch: int = 0
