"""Tests for the thread pool, and for the stand-ins that other tests use."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from ariproxy.errors import TemporaryError
from ariproxy.interfaces import IWorkers
from ariproxy.threads import Workers
from tests.fake_workers import HeldWorkers, SynchronousWorkers


class WorkersTests(TestCase):
    """Needs the real reactor, as the threads are real."""

    def make(self, size: int = 1, started: bool = True) -> Workers:
        workers = Workers(reactor, "test", size)
        if started:
            workers.start()
            self.addCleanup(lambda: _stop(workers))
        return workers

    def test_interface(self) -> None:
        """It is an IWorkers."""
        verifyObject(IWorkers, self.make(started=False))

    def test_nothing_before_start(self) -> None:
        """Building it makes no thread, so it survives a fork."""
        before = threading.active_count()
        self.make(started=False)
        self.assertEqual(threading.active_count(), before)

    async def test_call(self) -> None:
        """A call runs in a daemon thread of its own and gives its result."""

        def where(more: str) -> tuple[str, bool, str]:
            thread = threading.current_thread()
            return thread.name, thread.daemon, more

        name, daemon, more = await self.make().call(where, "x")
        self.assertIn("test", name)
        self.assertTrue(daemon)
        self.assertEqual(more, "x")

    async def test_error(self) -> None:
        """What the function raises comes back as it is."""
        with self.assertRaises(ZeroDivisionError):
            await self.make().call(divmod, 1, 0)

    async def test_calls_before_start_wait(self) -> None:
        """A call made before start is carried out after it."""
        workers = self.make(started=False)
        answer = workers.call(len, "abc")
        workers.start()
        self.addCleanup(lambda: _stop(workers))
        self.assertEqual(await answer, 3)

    async def test_size(self) -> None:
        """Size calls run side by side, no more."""
        workers = self.make(size=2)
        both = threading.Barrier(2)
        answers = [workers.call(both.wait, 5) for _ in range(2)]
        self.assertEqual(sorted(await gatherResults(answers)), [0, 1])

    async def test_one_thread_keeps_order(self) -> None:
        """With one thread, calls run in the order in which they were made."""
        workers = self.make()
        seen: list[int] = []
        await gatherResults([workers.call(seen.append, i) for i in range(100)])
        self.assertEqual(seen, list(range(100)))

    async def test_to_reactor(self) -> None:
        """A function handed over from a thread runs in the reactor's thread."""
        workers = self.make()
        seen: list[threading.Thread] = []

        def work() -> None:
            workers.to_reactor(lambda: seen.append(threading.current_thread()))

        await workers.call(work)
        self.assertEqual(seen, [threading.current_thread()])

    async def test_stop_waits_for_calls(self) -> None:
        """Calls taken before stop are carried out, queued ones as well."""
        workers = self.make()
        done: list[int] = []
        for i in range(20):
            workers.call(done.append, i)
        self.assertTrue(await workers.stop(5))
        self.assertEqual(done, list(range(20)))

    async def test_stop_again(self) -> None:
        """A second stop is harmless."""
        workers = self.make()
        self.assertTrue(await workers.stop(5))
        self.assertTrue(await workers.stop(5))

    async def test_stop_does_not_hang(self) -> None:
        """A call that hangs delays stop by its limit, and is reported once."""
        workers = self.make()
        free = threading.Event()
        hanging = workers.call(free.wait)
        with capturedLogs() as logged:
            self.assertFalse(await workers.stop(0.05))
        self.assertEqual([event["log_level"] for event in logged], [LogLevel.warn])
        free.set()
        self.assertTrue(await hanging)
        self.assertTrue(await workers.stop(5))

    async def test_call_after_stop(self) -> None:
        """A call made after stop fails; it does not wait for ever."""
        workers = self.make()
        await workers.stop(5)
        await self.assertFailure(workers.call(len, ""), TemporaryError)


async def _stop(workers: Workers) -> None:
    await workers.stop(5)


class FakeWorkersTests(SynchronousTestCase):
    """The stand-ins keep the promises of IWorkers."""

    def test_interface(self) -> None:
        """Both are IWorkers."""
        verifyObject(IWorkers, SynchronousWorkers())
        verifyObject(IWorkers, HeldWorkers())

    def test_synchronous(self) -> None:
        """Results and errors are there at once."""
        workers = SynchronousWorkers()
        self.assertEqual(self.successResultOf(workers.call(len, "ab")), 2)
        self.failureResultOf(workers.call(divmod, 1, 0), ZeroDivisionError)

    def test_held(self) -> None:
        """A call is carried out when it is released, the oldest first."""
        workers = HeldWorkers()
        seen: list[Any] = []
        first = workers.call(seen.append, 1)
        second = workers.call(divmod, 1, 0)
        self.assertEqual(seen, [])
        workers.release()
        self.assertIsNone(self.successResultOf(first))
        self.assertNoResult(second)
        workers.release_all()
        self.failureResultOf(second, ZeroDivisionError)
