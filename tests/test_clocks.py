"""Tests of ariproxy.clocks."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.clocks import OutOfTime, sleep, within


class SleepTests(SynchronousTestCase):
    """Waiting."""

    def test_sleep(self) -> None:
        """It returns when the time has come, not before."""
        clock = Clock()
        done = ensureDeferred(sleep(clock, 2))
        clock.advance(1.9)
        self.assertNoResult(done)
        clock.advance(0.1)
        self.assertIsNone(self.successResultOf(done))


class WithinTests(SynchronousTestCase):
    """Waiting with a limit."""

    def setUp(self) -> None:
        """A clock that stands, and what came late."""
        self.clock = Clock()
        self.late: list[Any] = []

    def test_at_once(self) -> None:
        """A result or error that is there already comes through; no timer stays."""
        self.assertEqual(
            self.successResultOf(within(self.clock, 1, succeed(5), self.late.append)), 5
        )
        self.failureResultOf(within(self.clock, 1, fail(KeyError())), KeyError)
        self.assertEqual((self.clock.getDelayedCalls(), self.late), ([], []))

    def test_in_time(self) -> None:
        """A result that comes before the limit comes through."""
        awaited: Deferred[int] = Deferred()
        result = within(self.clock, 1, awaited)
        self.clock.advance(0.9)
        self.assertNoResult(result)
        awaited.callback(5)
        self.assertEqual(self.successResultOf(result), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_result(self) -> None:
        """After the limit it is OutOfTime; what was awaited goes on, and is told."""
        awaited: Deferred[int] = Deferred()
        result = within(self.clock, 1, awaited, self.late.append)
        self.clock.advance(1)
        self.failureResultOf(result, OutOfTime)
        self.assertFalse(awaited.called)
        awaited.callback(5)
        self.assertEqual(self.late, [5])

    def test_late_failure(self) -> None:
        """A late failure is told, and is not left over as unhandled."""
        awaited: Deferred[int] = Deferred()
        result = within(self.clock, 1, awaited, self.late.append)
        self.clock.advance(1)
        self.failureResultOf(result, OutOfTime)
        awaited.errback(KeyError())
        self.assertIsInstance(self.late[0], Failure)

    def test_coroutine(self) -> None:
        """A coroutine begins at once."""

        async def work() -> int:
            await sleep(self.clock, 0.5)
            return 7

        result = within(self.clock, 1, work())
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(result), 7)
