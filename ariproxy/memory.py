"""Gives memory back to the system after a burst.

Records that wait for Kafka are allocated in one thread and freed in another;
glibc keeps what they took for ever, unless it is told otherwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from ariproxy.interfaces import IWorkers

INTERVAL = 2.0
"""Seconds between two looks."""

MANY = 50_000
"""Records that have passed since the last time, to be worth the trouble."""


def _no_trim(pad: int) -> int:
    return 0


# Only glibc has it; others give memory back by themselves.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", _no_trim)


class Trimming:
    """Trims the heap when many records have passed and none waits any more.

    :param taken: how many records were taken for Kafka since the start.
    :param waiting: how many of them wait now.
    :param workers: where it is done, as it may take some milliseconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        taken: Callable[[], int],
        waiting: Callable[[], int],
        workers: IWorkers,
        trim: Callable[[int], int] = _malloc_trim,
    ) -> None:
        self._taken = taken
        self._waiting = waiting
        self._workers = workers
        self._trim = trim
        self._last = 0
        self._looks = LoopingCall(self._look)
        self._looks.clock = clock

    def start(self) -> None:
        """Begin to look."""
        self._looks.start(INTERVAL)

    def stop(self) -> None:
        """Look no more. May be repeated."""
        if self._looks.running:
            self._looks.stop()

    def _look(self) -> None:
        taken = self._taken()
        if taken - self._last >= MANY and self._waiting() == 0:
            self._last = taken
            self._workers.call(self._trim, 0)
