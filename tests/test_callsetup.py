"""Tests of ariproxy.callsetup."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.callsetup import LIMIT, CallSetup


class CallSetupTests(SynchronousTestCase):
    """From a StasisStart to the first answer of its call."""

    def setUp(self) -> None:
        """A measurement on a clock that stands."""
        self.clock = Clock()
        self.measured: list[float] = []
        self.setup = CallSetup(self.clock.seconds, self.measured.append)

    def test_first_answer(self) -> None:
        """The first answer is measured, the second is not."""
        self.setup.started("a")
        self.clock.advance(2)
        self.setup.answered("a")
        self.clock.advance(1)
        self.setup.answered("a")
        self.assertEqual(self.measured, [2.0])

    def test_first_channel(self) -> None:
        """A second channel of the same call does not begin anew."""
        self.setup.started("a")
        self.clock.advance(2)
        self.setup.started("a")
        self.clock.advance(1)
        self.setup.answered("a")
        self.assertEqual(self.measured, [3.0])

    def test_unknown(self) -> None:
        """An answer for a call that was not seen to start is not measured."""
        self.setup.answered("a")
        self.assertEqual(self.measured, [])

    def test_bounded(self) -> None:
        """Calls that are never answered are given up, the oldest first."""
        for number in range(LIMIT + 1):
            self.setup.started(str(number))
        self.setup.answered("0")
        self.assertEqual(self.measured, [])
        self.setup.answered("1")
        self.setup.answered(str(LIMIT))
        self.assertEqual(self.measured, [0.0, 0.0])
