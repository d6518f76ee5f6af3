"""Waiting in the reactor, for tests of the running daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase


class WaitingCase(TestCase):
    """Waits for a time, or for a condition.

    :ivar limit: seconds that a condition may take, unless the call says otherwise.
    """

    limit: float

    async def pause(self, seconds: float) -> None:
        """Let everything go on for so long."""
        await deferLater(reactor, seconds)

    async def until(
        self, condition: Callable[[], Any], limit: float | None = None
    ) -> float:
        """Wait for a condition; gives the seconds that it took."""
        limit = self.limit if limit is None else limit
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > limit:
                self.fail(f"not within {limit} s")
            await deferLater(reactor, 0.01)
        return time.monotonic() - began
