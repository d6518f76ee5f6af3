"""Tests of ariproxy.endings."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy import endings
from ariproxy.endings import Endings


class EndingsTests(SynchronousTestCase):
    """When entries are forgotten."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.forgotten: list[str] = []
        self.endings = Endings(self.clock, 10.0, self.forgotten.append)

    def test_after_a_while(self) -> None:
        """Each in its time, and nothing is planned afterwards."""
        self.endings.ended("a")
        self.clock.advance(4)
        self.endings.ended("b")
        self.assertIn("a", self.endings)
        self.clock.advance(5.9)
        self.assertEqual(self.forgotten, [])
        self.clock.advance(0.2)
        self.assertEqual(self.forgotten, ["a"])
        self.assertNotIn("a", self.endings)
        self.clock.advance(4)
        self.assertEqual(self.forgotten, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_used_again(self) -> None:
        """An id that belongs to a new resource is kept."""
        self.endings.ended("a")
        self.endings.used("a")
        self.clock.advance(20)
        self.assertEqual(self.forgotten, [])
        self.endings.ended("a")
        self.clock.advance(10)
        self.assertEqual(self.forgotten, ["a"])

    def test_ended_twice(self) -> None:
        """The later end counts."""
        self.endings.ended("a")
        self.endings.ended("b")
        self.clock.advance(6)
        self.endings.ended("a")
        self.clock.advance(6)
        self.assertEqual(self.forgotten, ["b"])
        self.clock.advance(4)
        self.assertEqual(self.forgotten, ["b", "a"])

    def test_bounded(self) -> None:
        """Beyond the limit the oldest goes before its time."""
        self.patch(endings, "LIMIT", 2)
        for each in "abc":
            self.endings.ended(each)
        self.assertEqual(self.forgotten, ["a"])

    def test_stop(self) -> None:
        """Nothing is planned any more."""
        self.endings.ended("a")
        self.endings.stop()
        self.endings.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn("a", self.endings)
