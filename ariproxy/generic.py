"""Commands that any node may run, and that this one runs only while it can."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ariproxy.commands import CommandStream

GRACE = 2.0
"""Seconds that the websocket may be closed before others get our share."""


class GenericCommands:
    """Consumes the generic topic while the websocket to Asterisk is open.

    It pauses at once when the websocket closes. A consumer that only paused would
    keep its partitions, and the commands in them would wait for this node; one that
    leaves the group hands them over.

    :param make: a new stream of these commands, not started.
    :param finish: seconds that running commands have when it leaves.
    """

    _log = Logger()

    def __init__(
        self, make: Callable[[], CommandStream], clock: IReactorTime, finish: float
    ) -> None:
        self._make = make
        self._clock = clock
        self._finish = finish
        self._stream: CommandStream | None = None
        self._timer: IDelayedCall | None = None

    def opened(self) -> None:
        """Asterisk is here: join the group, if it was left."""
        self._forget_timer()
        if self._stream is None:
            self._stream = self._make()
            self._stream.start(shared=True)
        else:
            self._stream.go_on()

    def closed(self) -> None:
        """Asterisk is away: leave the group, unless it is back in a moment."""
        self._forget_timer()
        if self._stream is not None:
            self._stream.hold()
        self._timer = self._clock.callLater(GRACE, self._leave)

    async def stop(self) -> None:
        """Run no more; answers that wait for Kafka are settled by ``close``."""
        self._forget_timer()
        if self._stream is not None:
            await self._stream.stop(self._finish)

    async def close(self) -> None:
        """Leave the group. May be repeated."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def _leave(self) -> None:
        self._timer = None
        stream, self._stream = self._stream, None
        if stream is not None:
            self._log.info("Asterisk is away: generic commands are left to others")
            ensureDeferred(self._end(stream)).addErrback(
                lambda failure: self._log.failure("Leaving generic commands", failure)
            )

    async def _end(self, stream: CommandStream) -> None:
        await stream.stop(self._finish)
        await stream.close()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
