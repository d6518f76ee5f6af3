"""Tests of ariproxy.repeated."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.repeated import INTERVAL, Repeated


class RepeatedTests(SynchronousTestCase):
    """At most one line per kind and interval."""

    def test_first_and_next(self) -> None:
        """The first is due at once; the next line stands for all in between."""
        clock = Clock()
        repeated = Repeated(clock)
        self.assertEqual(repeated.due("a"), 1)
        clock.advance(INTERVAL - 0.5)
        self.assertEqual([repeated.due("a") for _ in range(3)], [0, 0, 0])
        clock.advance(0.5)
        self.assertEqual(repeated.due("a"), 4)
        self.assertEqual(repeated.due("a"), 0)

    def test_kinds_apart(self) -> None:
        """One kind does not silence another."""
        repeated = Repeated(Clock())
        self.assertEqual((repeated.due("a"), repeated.due("b")), (1, 1))

    @settings(deadline=None)
    @given(st.floats(0, 4e9))
    def test_first_always_due(self, now: float) -> None:
        """The first failure is due at any time of any clock."""
        clock = Clock()
        clock.advance(now)
        self.assertEqual(Repeated(clock).due("a"), 1)

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 12), max_size=40))
    def test_none_is_forgotten(self, pauses: list[float]) -> None:
        """Lines are an interval apart and count every failure exactly once."""
        clock = Clock()
        repeated = Repeated(clock)
        total, last = 0, None
        for number, pause in enumerate(pauses, 1):
            clock.advance(pause)
            if count := repeated.due("a"):
                total += count
                self.assertEqual(total, number)
                if last is not None:
                    self.assertGreaterEqual(clock.seconds(), last + INTERVAL)
                last = clock.seconds()
