"""One log line for many failures of the same kind."""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime

INTERVAL = 10.0
"""Seconds between two lines about failures of the same kind."""


class Repeated:
    """Says whether a failure is worth a line now, and for how many it stands."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # kind -> when its next line is due, and the failures since the last one.
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def due(self, kind: Hashable) -> int:
        """Count one failure; its number since the last line if one is due, else 0."""
        now = self._clock.seconds()
        due, count = self._kinds.get(kind, (now, 0))
        count += 1
        if now < due:
            self._kinds[kind] = (due, count)
            return 0
        self._kinds[kind] = (now + INTERVAL, 0)
        return count
