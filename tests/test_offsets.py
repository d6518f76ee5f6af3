"""Which offsets may be committed: never one past a record that is not settled."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.kafka.offsets import Offsets
from ariproxy.kafka.records import IncomingRecord

TOPIC = "commands"


class OffsetsCase(SynchronousTestCase):
    """Partition 0 is assigned."""

    def setUp(self) -> None:
        self.offsets = Offsets()
        self.offsets.assign([(TOPIC, 0)])

    def read(self, *offsets: int, partition: int = 0) -> list[IncomingRecord]:
        """These were read."""
        records = []
        for offset in offsets:
            epoch = self.offsets.read(TOPIC, partition, offset)
            assert epoch is not None
            records.append(
                IncomingRecord(TOPIC, partition, offset, None, None, epoch=epoch)
            )
        return records


class CommitTests(OffsetsCase):
    """What is to be committed, and when."""

    def test_nothing_read(self) -> None:
        """Nothing is known, so nothing is committed."""
        self.assertEqual(self.offsets.to_commit(), {})

    def test_first_unsettled(self) -> None:
        """The offset to commit is the first one that is not settled."""
        a, b, c = self.read(5, 6, 7)
        self.offsets.settle(a)
        self.offsets.settle(c)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 6})
        self.offsets.settle(b)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 8})

    def test_place_is_kept(self) -> None:
        """An unsettled first record: its own place, so that it comes again."""
        self.read(5)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 5})

    def test_gaps(self) -> None:
        """Offsets may have gaps (compaction, transactions)."""
        a, _ = self.read(5, 9)
        self.offsets.settle(a)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 9})

    def test_only_what_moved(self) -> None:
        """What the broker has is not committed again."""
        (a,) = self.read(5)
        self.offsets.settle(a)
        self.offsets.committed({(TOPIC, 0): 6})
        self.assertEqual(self.offsets.to_commit(), {})
        self.read(6)
        self.assertEqual(self.offsets.to_commit(), {})

    def test_partitions_apart(self) -> None:
        """Each partition has its own place."""
        self.offsets.assign([(TOPIC, 1)])
        (a,) = self.read(5)
        self.read(5, partition=1)
        self.offsets.settle(a)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 6, (TOPIC, 1): 5})

    def test_settled_twice(self) -> None:
        """Is settled once."""
        (a,) = self.read(5)
        self.offsets.settle(a)
        self.offsets.settle(a)
        self.assertEqual(self.offsets.unsettled, 0)

    def test_commit_of_a_revoked(self) -> None:
        """A commit may be answered when its partition is gone."""
        self.offsets.revoke([(TOPIC, 0)])
        self.offsets.committed({(TOPIC, 0): 6})
        self.assertEqual(self.offsets.to_commit(), {})


class AssignmentTests(OffsetsCase):
    """Partitions come and go."""

    def test_read_of_a_partition_not_ours(self) -> None:
        """Has no epoch."""
        self.assertIsNone(self.offsets.read(TOPIC, 1, 5))
        self.assertEqual(self.offsets.unsettled, 0)

    def test_partitions(self) -> None:
        """What is ours now."""
        self.offsets.assign([(TOPIC, 3)])
        self.offsets.revoke([(TOPIC, 0)])
        self.assertEqual(self.offsets.partitions, [(TOPIC, 3)])

    def test_revoked(self) -> None:
        """Records in hand count no more, and settling them is harmless."""
        (a,) = self.read(5)
        self.offsets.revoke([(TOPIC, 0)])
        self.assertEqual(self.offsets.unsettled, 0)
        self.offsets.settle(a)
        self.assertFalse(self.offsets.claim(a))
        self.assertEqual((self.offsets.unsettled, self.offsets.to_commit()), (0, {}))

    def test_came_back(self) -> None:
        """A record of an earlier assignment settles nothing of the new one."""
        (old,) = self.read(5)
        self.offsets.revoke([(TOPIC, 0)])
        self.offsets.assign([(TOPIC, 0)])
        (new,) = self.read(5)
        self.offsets.settle(old)
        self.assertFalse(self.offsets.claim(old))
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 5})
        self.assertTrue(self.offsets.claim(new))

    def test_assigned_twice(self) -> None:
        """A new assignment without a revocation: the old records are nobody's."""
        self.read(5, 6)
        self.offsets.assign([(TOPIC, 0)])
        self.assertEqual(self.offsets.unsettled, 0)
        self.assertTrue(self.offsets.wait_below(1, 0))

    def test_read_twice(self) -> None:
        """A record that is still in hand is not taken a second time."""
        (a,) = self.read(5)
        self.assertIsNone(self.offsets.read(TOPIC, 0, 5))
        self.assertEqual(self.offsets.unsettled, 1)
        self.offsets.settle(a)
        self.assertEqual(self.offsets.unsettled, 0)

    def test_topic_made_anew(self) -> None:
        """Offsets start again at 0 when an operator makes the topic anew."""
        (a,) = self.read(1000)
        self.offsets.settle(a)
        self.offsets.committed({(TOPIC, 0): 1001})
        (b,) = self.read(0)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 0})
        self.offsets.settle(b)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 1})


class ClaimTests(OffsetsCase):
    """Whether a command is still ours to run."""

    def test_ours(self) -> None:
        """It is, until it is settled."""
        (a,) = self.read(5)
        self.assertTrue(self.offsets.claim(a))
        self.offsets.settle(a)
        self.assertFalse(self.offsets.claim(a))

    def test_retired(self) -> None:
        """Nothing is claimed any more of what is about to be taken away."""
        (a,) = self.read(5)
        self.offsets.retire([(TOPIC, 0)], 0)
        self.assertFalse(self.offsets.claim(a))

    def test_retire_does_not_wait_for_unclaimed(self) -> None:
        """What was not begun is left to whoever comes next."""
        self.read(5)
        self.offsets.retire([(TOPIC, 0)], 60)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 5})

    def test_retire_waits_for_claimed(self) -> None:
        """What was begun is waited for."""
        (a,) = self.read(5)
        self.offsets.claim(a)
        settling = threading.Timer(0.05, self.offsets.settle, [a])
        settling.start()
        self.addCleanup(settling.join)
        self.offsets.retire([(TOPIC, 0)], 60)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 6})

    def test_retire_in_time(self) -> None:
        """But not for ever."""
        (a,) = self.read(5)
        self.offsets.claim(a)
        self.offsets.retire([(TOPIC, 0)], 0.01)
        self.assertEqual(self.offsets.to_commit(), {(TOPIC, 0): 5})

    def test_retire_of_others(self) -> None:
        """Another partition goes on, and is not waited for."""
        self.offsets.assign([(TOPIC, 1)])
        (a,) = self.read(5)
        self.offsets.claim(a)
        self.offsets.retire([(TOPIC, 1), (TOPIC, 2)], 60)
        (b,) = self.read(6)
        self.assertTrue(self.offsets.claim(b))


class RoomTests(OffsetsCase):
    """How many records are in hand."""

    def test_room(self) -> None:
        """Fewer than the limit."""
        self.assertTrue(self.offsets.wait_below(1, 0))
        self.read(5)
        self.assertFalse(self.offsets.wait_below(1, 0))
        self.assertTrue(self.offsets.wait_below(2, 0))

    def test_waits(self) -> None:
        """The polling thread is woken as soon as there is room."""
        (a,) = self.read(5)
        settling = threading.Timer(0.05, self.offsets.settle, [a])
        settling.start()
        self.addCleanup(settling.join)
        self.assertTrue(self.offsets.wait_below(1, 60))


class OffsetsModel(RuleBasedStateMachine):
    """Any order of reading, claiming, settling, committing, coming and going."""

    partitions = st.integers(0, 2)

    def __init__(self) -> None:
        super().__init__()
        self.offsets = Offsets()
        # What a plain reading of the rules says: per assigned partition the
        # records in hand, those settled, and the next offset.
        self.open: dict[int, dict[int, IncomingRecord]] = {}
        self.next: dict[int, int] = {}
        self.retired: set[int] = set()
        self.known: list[IncomingRecord] = []
        self.place = dict.fromkeys(range(3), 0)

    @initialize()
    def first(self) -> None:
        self.assign(0)

    @rule(partition=partitions)
    def assign(self, partition: int) -> None:
        if partition not in self.open:
            self.offsets.assign([(TOPIC, partition)])
            self.open[partition] = {}
            self.next.pop(partition, None)

    @rule(partition=partitions, gap=st.integers(1, 3))
    def read(self, partition: int, gap: int) -> None:
        offset = self.place[partition]
        epoch = self.offsets.read(TOPIC, partition, offset)
        assert (epoch is None) == (partition not in self.open)
        if epoch is None:
            return
        record = IncomingRecord(TOPIC, partition, offset, None, None, epoch=epoch)
        self.open[partition][offset] = record
        self.known.append(record)
        self.next[partition] = offset + 1
        self.place[partition] += gap

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.known))
        self.offsets.settle(record)
        if self.open.get(record.partition, {}).get(record.offset) is record:
            del self.open[record.partition][record.offset]

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def claim(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from(self.known))
        ours = self.open.get(record.partition, {}).get(record.offset) is record
        may = ours and record.partition not in self.retired
        assert self.offsets.claim(record) == may

    @rule(partition=partitions)
    def retire(self, partition: int) -> None:
        self.offsets.retire([(TOPIC, partition)], 0)
        if partition in self.open:
            self.retired.add(partition)

    @rule(partition=partitions, commit=st.booleans())
    def revoke(self, partition: int, commit: bool) -> None:
        """The next owner reads on from what was committed."""
        to_commit = self.offsets.to_commit().get((TOPIC, partition))
        if commit and to_commit is not None:
            self.place[partition] = to_commit
        self.offsets.revoke([(TOPIC, partition)])
        self.retired.discard(partition)
        self.open.pop(partition, None)
        self.next.pop(partition, None)

    @rule()
    def commit(self) -> None:
        offsets = self.offsets.to_commit()
        self.offsets.committed(offsets)
        assert self.offsets.to_commit() == {}

    @invariant()
    def nothing_unsettled_is_passed(self) -> None:
        for (_, partition), offset in self.offsets.to_commit().items():
            assert offset == min(self.open[partition], default=self.next[partition])

    @invariant()
    def count(self) -> None:
        assert self.offsets.unsettled == sum(map(len, self.open.values()))
        assert sorted(self.offsets.partitions) == [
            (TOPIC, each) for each in sorted(self.open)
        ]


class OffsetsModelTests(SynchronousTestCase):
    """The model agrees with ``Offsets`` after any sequence of calls."""

    def test_model(self) -> None:
        """See ``OffsetsModel``."""
        case: Any = OffsetsModel.TestCase
        case.settings = settings(
            max_examples=150, stateful_step_count=40, deadline=None, database=None
        )
        case("runTest").runTest()
