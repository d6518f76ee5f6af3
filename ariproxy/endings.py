"""Resources that have ended, and whose entries are kept a while for late events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from twisted.internet.interfaces import IDelayedCall, IReactorTime

LIMIT = 200_000
"""Ended resources that are kept in mind; beyond it the oldest go before their time."""


class Endings:
    """Tells when the entry of an ended resource is to be forgotten.

    :param keep: seconds from the end of a resource until then.
    :param forget: called with the id.
    """

    def __init__(
        self, clock: IReactorTime, keep: float, forget: Callable[[str], None]
    ) -> None:
        self._clock = clock
        self._keep = keep
        self._forget = forget
        # When each is due, the earliest first.
        self._due: dict[str, float] = {}
        self._timer: IDelayedCall | None = None

    def __contains__(self, resource_id: str) -> bool:
        return resource_id in self._due

    def ended(self, resource_id: str) -> None:
        """The resource is gone; a repeated call puts its time off."""
        self._due.pop(resource_id, None)
        self._due[resource_id] = self._clock.seconds() + self._keep
        if len(self._due) > LIMIT:
            self._end(next(iter(self._due)))
        self._plan()

    def used(self, resource_id: str) -> None:
        """The id belongs to a new resource."""
        self._due.pop(resource_id, None)

    def stop(self) -> None:
        """Forget nothing any more; the store's ttl does it. May be repeated."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due.clear()

    def _plan(self) -> None:
        if self._timer is None and self._due:
            first = next(iter(self._due.values()))
            wait = max(0.0, first - self._clock.seconds())
            self._timer = self._clock.callLater(wait, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for resource_id in list(takewhile(lambda x: self._due[x] <= now, self._due)):
            self._end(resource_id)
        self._plan()

    def _end(self, resource_id: str) -> None:
        del self._due[resource_id]
        self._forget(resource_id)
