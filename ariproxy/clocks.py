"""Waiting on a clock that is handed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

T = TypeVar("T")


class OutOfTime(Exception):
    """The wait ended before what was waited for."""


async def sleep(clock: IReactorTime, seconds: float) -> None:
    """Return after ``seconds``."""
    await deferLater(clock, seconds)


def within(
    clock: IReactorTime,
    seconds: float,
    awaitable: Awaitable[T],
    late: Callable[[Any], None] = lambda outcome: None,
) -> Deferred[T]:
    """The awaitable's result, or ``OutOfTime`` after ``seconds``.

    What is awaited is not cancelled: a write that is under way may still
    succeed, and others may wait for the same look-up. ``late`` is called with
    its result, or with the ``Failure``, when that comes after the limit.
    """
    result: Deferred[T] = Deferred()

    def settle(outcome: Any) -> None:
        if timer.active():
            timer.cancel()
            result.callback(outcome)
        else:
            late(outcome)

    # The time limit counts from here, also if the coroutine runs long at once.
    timer = clock.callLater(
        seconds, lambda: result.errback(OutOfTime(f"nothing came within {seconds} s"))
    )
    ensureDeferred(_awaited(awaitable)).addBoth(settle)
    return result


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
