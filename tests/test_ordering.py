"""Tests of ariproxy.ordering."""

from __future__ import annotations

import sys
from collections import defaultdict
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ordering import ArrivalLine, Lanes


class ArrivalLineTests(SynchronousTestCase):
    """Things leave in the order in which they came."""

    @settings(deadline=None)
    @given(st.permutations(range(8)))
    def test_any_order(self, order: list[int]) -> None:
        """Whatever order they become ready in, they leave as they came."""
        line, left = ArrivalLine(), []
        places = [line.enter() for _ in order]
        for number, each in enumerate(order):
            places[each].leave(partial(left.append, each))
            ready = set(order[: number + 1])
            free = next((n for n in range(9) if n not in ready), 8)
            self.assertEqual(left, list(range(free)))
        self.assertEqual((left, len(line)), (sorted(order), 0))

    def test_many_at_once(self) -> None:
        """A long line that becomes free needs no deep recursion."""
        line, left = ArrivalLine(), []
        front = line.enter()
        for number in range(20_000):
            line.enter().leave(partial(left.append, number))
        front.leave(lambda: None)
        self.assertEqual(left, list(range(20_000)))

    def test_enter_while_leaving(self) -> None:
        """An action may bring the next one into the line."""
        line, left = ArrivalLine(), []

        def first() -> None:
            left.append(1)
            line.enter().leave(lambda: left.append(3))
            left.append(2)

        line.enter().leave(first)
        self.assertEqual((left, len(line)), ([1, 2, 3], 0))

    def test_action_fails(self) -> None:
        """An action that raises has left; those behind it go with the next move."""
        line, left = ArrivalLine(), []

        def wrong() -> None:
            raise KeyError

        front, behind = line.enter(), line.enter()
        behind.leave(lambda: left.append(1))
        self.assertRaises(KeyError, front.leave, wrong)
        line.move()
        self.assertEqual((left, len(line)), ([1], 0))


class LanesTests(SynchronousTestCase):
    """Jobs of one key in order, of all keys at most some at once."""

    def setUp(self) -> None:
        """Where failures go."""
        self.failures: list[Failure] = []

    def lanes(self, limit: int) -> Lanes:
        return Lanes(limit, self.failures.append)

    @settings(deadline=None)
    @given(
        st.integers(1, 4),
        st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans())),
        st.randoms(),
    )
    def test_order_and_limit(
        self, limit: int, jobs: list[tuple[int, bool, bool]], chance: object
    ) -> None:
        """All jobs run, in order per key, never two of a key, never above the limit."""
        self.failures = []
        lanes = self.lanes(limit)
        running: dict[int, tuple[int, Deferred[None]]] = {}
        order: dict[int, list[int]] = defaultdict(list)

        async def job(key: int, number: int, waits: bool, fails: bool) -> None:
            self.assertNotIn(key, running)
            order[key].append(number)
            if waits:
                done: Deferred[None] = Deferred()
                running[key] = number, done
                self.assertLessEqual(len(running), limit)
                await done
            if fails:
                raise KeyError(number)

        for number, (key, waits, fails) in enumerate(jobs):
            lanes.add(key, partial(job, key, number, waits, fails))
            self.assertEqual(lanes.running, len(running))
            while running and chance.random() < 0.3:  # type: ignore[attr-defined]
                self._end_one(running, chance)
        while running:
            self._end_one(running, chance)
        for key in range(4):
            expected = [n for n, each in enumerate(jobs) if each[0] == key]
            self.assertEqual(order[key], expected)
        self.assertEqual((lanes.running, lanes.waiting), (0, 0))
        self.assertEqual(
            sorted(each.value.args[0] for each in self.failures),
            [n for n, each in enumerate(jobs) if each[2]],
        )

    @staticmethod
    def _end_one(
        running: dict[int, tuple[int, Deferred[None]]], chance: object
    ) -> None:
        key = chance.choice(sorted(running))  # type: ignore[attr-defined]
        running.pop(key)[1].callback(None)

    def test_turns(self) -> None:
        """A key with many jobs does not starve the others."""
        lanes, ran = self.lanes(1), []
        gate: Deferred[None] = Deferred()

        async def wait() -> None:
            await gate

        async def note(what: str) -> None:
            ran.append(what)

        lanes.add("a", wait)
        for what in ("a1", "a2", "b1", "b2", "c1"):
            lanes.add(what[0], partial(note, what))
        self.assertEqual((lanes.running, lanes.waiting), (1, 5))
        gate.callback(None)
        self.assertEqual(ran, ["b1", "c1", "a1", "b2", "a2"])

    def test_job_raises_at_once(self) -> None:
        """A job that fails before it gives an awaitable is a failure as well."""
        lanes, ran = self.lanes(1), []

        def wrong() -> Deferred[None]:
            raise KeyError

        async def right() -> None:
            ran.append(1)

        lanes.add("a", wrong)
        lanes.add("a", right)
        self.assertEqual(ran, [1])
        self.assertTrue(self.failures[0].check(KeyError))

    def test_thousands_of_synchronous_jobs(self) -> None:
        """Jobs that end at once need no frame each, in one lane or in many."""
        for keys in (1, 5000):
            lanes, ran = self.lanes(2), []
            gates: list[Deferred[None]] = [Deferred(), Deferred()]

            async def wait(gate: Deferred[None]) -> None:
                await gate

            async def note(number: int, ran: list[int] = ran) -> None:
                ran.append(number)

            for number, gate in enumerate(gates):
                lanes.add(number % keys, partial(wait, gate))
            amount = sys.getrecursionlimit() * 10
            for number in range(amount):
                lanes.add(number % keys, partial(note, number))
            gates[0].callback(None)
            gates[1].callback(None)
            self.assertEqual(sorted(ran), list(range(amount)))
            self.assertEqual((lanes.running, lanes.waiting), (0, 0))

    def test_clear(self) -> None:
        """Jobs that wait are forgotten, those running end, and new ones may come."""
        lanes, ran = self.lanes(1), []
        gate: Deferred[None] = Deferred()

        async def wait() -> None:
            await gate
            ran.append("wait")

        async def note(what: str) -> None:
            ran.append(what)

        lanes.add("a", wait)
        lanes.add("a", partial(note, "a"))
        lanes.add("b", partial(note, "b"))
        lanes.clear()
        self.assertEqual((lanes.running, lanes.waiting), (1, 0))
        lanes.add("b", partial(note, "new b"))
        lanes.add("a", partial(note, "new a"))
        gate.callback(None)
        self.assertEqual(ran, ["wait", "new b", "new a"])
        self.assertEqual((lanes.running, lanes.waiting), (0, 0))
