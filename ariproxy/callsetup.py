"""How long callers wait for the first answer to a command of their call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

LIMIT = 10_000
"""Calls that are waited for; beyond it the oldest are given up."""


class CallSetup:
    """Measures from a StasisStart to the first answer of its call context."""

    def __init__(
        self, now: Callable[[], float], measured: Callable[[float], None]
    ) -> None:
        self._now = now
        self._measured = measured
        self._started: OrderedDict[str, float] = OrderedDict()

    def started(self, call_context: str) -> None:
        """A channel has entered the application; the first of a call counts."""
        self._started.setdefault(call_context, self._now())
        if len(self._started) > LIMIT:
            self._started.popitem(last=False)

    def answered(self, call_context: str) -> None:
        """An answer was published."""
        begin = self._started.pop(call_context, None)
        if begin is not None:
            self._measured(self._now() - begin)
