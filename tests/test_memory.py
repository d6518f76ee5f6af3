"""Tests of ariproxy.memory."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.memory import INTERVAL, MANY, Trimming
from tests.fake_workers import SynchronousWorkers


class TrimmingTests(SynchronousTestCase):
    """When memory is given back."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.taken = self.waiting = 0
        self.trims: list[int] = []

        def trim(pad: int) -> int:
            self.trims.append(pad)
            return 1

        self.trimming = Trimming(
            self.clock,
            lambda: self.taken,
            lambda: self.waiting,
            SynchronousWorkers(),
            trim,
        )
        self.trimming.start()

    def test_after_a_burst(self) -> None:
        """Once, when nothing waits any more."""
        self.taken = self.waiting = MANY
        self.clock.advance(INTERVAL)
        self.assertEqual(self.trims, [])
        self.waiting = 0
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.trims, [0])

    def test_not_for_little(self) -> None:
        """Few records leave nothing behind."""
        self.taken = MANY - 1
        self.clock.advance(INTERVAL)
        self.assertEqual(self.trims, [])

    def test_stop(self) -> None:
        """Nothing is planned any more."""
        self.trimming.stop()
        self.trimming.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_real(self) -> None:
        """This machine's own call, or the stand-in for it, can be made."""
        trimming = Trimming(self.clock, lambda: MANY, lambda: 0, SynchronousWorkers())
        trimming.start()
        trimming.stop()
