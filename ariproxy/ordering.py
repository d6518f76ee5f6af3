"""What may overtake what.

Events leave in the order in which they came, though their look-ups run side by
side (``ArrivalLine``). Commands of one key run one after the other, those of
different keys side by side up to a limit (``Lanes``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from twisted.internet.defer import ensureDeferred
from twisted.python.failure import Failure


class Place:
    """One place in a line."""

    __slots__ = ("_line", "action")

    def __init__(self, line: ArrivalLine) -> None:
        self._line = line
        self.action: Callable[[], None] | None = None

    def leave(self, action: Callable[[], None]) -> None:
        """Run ``action`` as soon as everything in front has left. Call it once."""
        self.action = action
        self._line.move()


class ArrivalLine:
    """First in, first out, for things that become ready in any order."""

    def __init__(self) -> None:
        self._places: deque[Place] = deque()
        self._moving = False

    def __len__(self) -> int:
        return len(self._places)

    def enter(self) -> Place:
        """Take the last place."""
        place = Place(self)
        self._places.append(place)
        return place

    def move(self) -> None:
        """Let all leave that are ready and have nobody in front."""
        if self._moving:
            return
        self._moving = True
        try:
            while self._places and self._places[0].action is not None:
                self._places.popleft().action()  # type: ignore[misc]
        finally:
            self._moving = False


Job = Callable[[], Awaitable[None]]


class Lanes:
    """Runs jobs: of one key in order, of all keys at most ``limit`` at once.

    Keys get their turn in the order in which they were first added. A job that
    raises is handed to ``failed`` and counts as done.
    """

    def __init__(self, limit: int, failed: Callable[[Failure], None]) -> None:
        self._limit = limit
        self._failed = failed
        self._waiting: dict[Hashable, deque[Job]] = {}
        self._ready: deque[Hashable] = deque()
        self._starting = False
        self.running = 0
        self.waiting = 0

    def add(self, key: Hashable, job: Job) -> None:
        """Run ``job`` after all earlier jobs of the same key."""
        self.waiting += 1
        lane = self._waiting.get(key)
        if lane is None:
            self._waiting[key] = deque((job,))
            self._ready.append(key)
            self._start()
        else:
            lane.append(job)

    def clear(self) -> None:
        """Forget the jobs that have not been started."""
        self.waiting = 0
        for key in self._ready:
            del self._waiting[key]
        self._ready.clear()
        for lane in self._waiting.values():
            lane.clear()

    def _start(self) -> None:
        # A job that ends at once comes back here: the loop takes its turn, so
        # that a thousand such jobs need no thousand frames.
        if self._starting:
            return
        self._starting = True
        try:
            while self._ready and self.running < self._limit:
                key = self._ready.popleft()
                job = self._waiting[key].popleft()
                self.waiting -= 1
                self.running += 1
                ensureDeferred(self._run(key, job))
        finally:
            self._starting = False

    async def _run(self, key: Hashable, job: Job) -> None:
        try:
            await job()
        except Exception:
            self._failed(Failure())
        self.running -= 1
        if self._waiting[key]:
            self._ready.append(key)
        else:
            del self._waiting[key]
        self._start()
