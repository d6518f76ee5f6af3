"""Stand-ins for the thread pool: everything runs in the test's own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from ariproxy.interfaces import IWorkers


@implementer(IWorkers)
class SynchronousWorkers:
    """Carries out each call at once."""

    def call(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result or error is there when this returns."""
        return execute(function, *args)

    def to_reactor(self, function: Callable[..., Any], *args: Any) -> None:
        """Run it now."""
        function(*args)


@implementer(IWorkers)
class HeldWorkers:
    """Holds calls, and what they hand to the reactor, until the test says so."""

    def __init__(self) -> None:
        self.calls: deque[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]]
        self.calls = deque()

    def call(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Keep the call until ``release``."""
        result: Deferred[Any] = Deferred()
        self.calls.append((result, function, args))
        return result

    def release(self) -> None:
        """Carry out the oldest call and hand over its outcome."""
        result, function, args = self.calls.popleft()
        execute(function, *args).chainDeferred(result)

    def release_all(self) -> None:
        """Carry out all calls, also those that are made meanwhile."""
        while self.calls:
            self.release()

    def to_reactor(self, function: Callable[..., Any], *args: Any) -> None:
        """Run it now: a held call runs in the test's thread."""
        function(*args)
