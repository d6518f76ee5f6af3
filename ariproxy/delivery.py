"""Whether a command may be run: marks of what was run before, and a gate."""

from __future__ import annotations

from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ariproxy.clocks import OutOfTime, within
from ariproxy.errors import AriProxyError, StoreUnavailable
from ariproxy.interfaces import IStore
from ariproxy.kafka.records import IncomingRecord

KEY_PREFIX = "ari-proxy:command:"

PATIENCE = 1.0
"""Seconds that a command waits for the store."""


class DeliveryMarks:
    """Counts how often a command was about to be run.

    A mark says that Asterisk may have been asked. It outlives the process, and
    expires as all entries of the store do.
    """

    def __init__(self, store: IStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock

    async def attempt(self, record: IncomingRecord) -> int:
        """Mark the command; gives 1 for the first time that it is run.

        Raises ``StoreUnavailable`` or ``StoreRefused``; the command must not be
        run then.
        """
        key = _key(record)
        try:
            found = await within(self._clock, PATIENCE, self._store.get(key))
            number = 1 + (int(found) if found and found.isdigit() else 0)
            await within(self._clock, PATIENCE, self._store.set(key, str(number)))
        except OutOfTime as error:
            raise StoreUnavailable(
                f"the store did not answer within {PATIENCE:g} s"
            ) from error
        return number

    async def withdraw(self, record: IncomingRecord, number: int) -> None:
        """Asterisk was not asked after all in the attempt with this number.

        Where the store is away the mark stays, and the command is not run again.
        """
        key = _key(record)
        change = (
            self._store.set(key, str(number - 1))
            if number > 1
            else self._store.forget(key)
        )
        with suppress(AriProxyError, OutOfTime):
            await within(self._clock, PATIENCE, change)


class Gate:
    """Something to wait at while it is shut. It is open at first."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []
        self.is_open = True

    def shut(self) -> None:
        """Let nobody pass from now on."""
        self.is_open = False

    def open(self) -> None:
        """Let everybody pass, those first who came first."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def passed(self) -> None:
        """Return when it is open."""
        while not self.is_open:
            here: Deferred[None] = Deferred()
            self._waiting.append(here)
            await here


def _key(record: IncomingRecord) -> str:
    return f"{KEY_PREFIX}{record.topic}/{record.partition}/{record.offset}"
