"""Which offsets may be committed. Shared by the reactor's and the polling thread."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf
from threading import Condition, Lock

from ariproxy.kafka.records import IncomingRecord

Partition = tuple[str, int]
"""Topic and number."""


class _Assignment:
    """What is known of one partition since it was assigned."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.retired = False
        # Offsets read and not settled, in the order of reading; True: claimed.
        self.open: dict[int, bool] = {}
        self.next: int | None = None
        self.committed: int | None = None

    @property
    def committable(self) -> int | None:
        """The first offset that is not settled."""
        return next(iter(self.open), self.next)


class Offsets:
    """Follows every record from being read to being settled."""

    def __init__(self) -> None:
        # To enter the lock itself is several times cheaper than the condition.
        self._lock = Lock()
        self._changed = Condition(self._lock)
        # The polling thread waits for fewer records than this; to wake it for
        # each record that is settled would cost more than to settle it.
        self._awaited: float = 0
        self._epoch = 0
        self._assigned: dict[Partition, _Assignment] = {}
        self.unsettled = 0

    @property
    def partitions(self) -> list[Partition]:
        """What is assigned now."""
        return list(self._assigned)

    def assign(self, partitions: Collection[Partition]) -> None:
        """These partitions were given to this consumer."""
        with self._lock:
            for each in partitions:
                self._drop(each)
                self._epoch += 1
                self._assigned[each] = _Assignment(self._epoch)

    def begin(self, offsets: Mapping[Partition, int]) -> None:
        """Nothing before these is read; they are committed even if nothing follows."""
        with self._lock:
            for partition, offset in offsets.items():
                self._assigned[partition].next = offset

    def revoke(self, partitions: Collection[Partition]) -> None:
        """These partitions belong to somebody else from now on."""
        with self._lock:
            for each in partitions:
                self._drop(each)

    def read(self, topic: str, partition: int, offset: int) -> int | None:
        """A record was read; gives the epoch of its assignment.

        ``None``: its partition is not ours, or the record is in hand already.
        """
        with self._lock:
            found = self._assigned.get((topic, partition))
            if found is None or offset in found.open:
                return None
            found.open[offset] = False
            found.next = offset + 1
            self.unsettled += 1
            return found.epoch

    def claim(self, record: IncomingRecord) -> bool:
        """See ``IRecordSource.claim``."""
        with self._lock:
            found = self._of(record)
            if found is None or found.retired or record.offset not in found.open:
                return False
            found.open[record.offset] = True
            return True

    def settle(self, record: IncomingRecord) -> None:
        """See ``IRecordSource.settle``."""
        with self._lock:
            found = self._of(record)
            if found is not None and found.open.pop(record.offset, None) is not None:
                self.unsettled -= 1
                if self.unsettled < self._awaited:
                    self._changed.notify_all()

    def retire(self, partitions: Collection[Partition], timeout: float) -> None:
        """Let no further record of these be claimed, and wait for those claimed.

        Called in the polling thread; returns after ``timeout`` seconds at the
        latest.
        """
        with self._lock:
            found = [self._assigned[p] for p in partitions if p in self._assigned]
            for each in found:
                each.retired = True
            self._awaited = inf
            self._changed.wait_for(
                lambda: not any(any(each.open.values()) for each in found), timeout
            )

    def wait_below(self, limit: int, timeout: float) -> bool:
        """Wait until fewer than ``limit`` records are not settled."""
        with self._lock:
            self._awaited = limit
            return self._changed.wait_for(lambda: self.unsettled < limit, timeout)

    def to_commit(self) -> Mapping[Partition, int]:
        """Offsets that have moved since they were last committed."""
        with self._lock:
            return {
                partition: each.committable
                for partition, each in self._assigned.items()
                if each.committable is not None and each.committable != each.committed
            }

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """The broker has these."""
        with self._lock:
            for partition, offset in offsets.items():
                if partition in self._assigned:
                    self._assigned[partition].committed = offset

    def _drop(self, partition: Partition) -> None:
        gone = self._assigned.pop(partition, None)
        if gone is not None:
            self.unsettled -= len(gone.open)

    def _of(self, record: IncomingRecord) -> _Assignment | None:
        found = self._assigned.get((record.topic, record.partition))
        return found if found is not None and found.epoch == record.epoch else None
