"""Commands that are run at most once: a mark in the store before each."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from ariproxy.clocks import OutOfTime, within
from ariproxy.errors import StoreUnavailable
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
        place = f"{record.topic}/{record.partition}/{record.offset}"
        key = KEY_PREFIX + place
        try:
            found = await within(self._clock, PATIENCE, self._store.get(key))
            number = 1 + (int(found) if found and found.isdigit() else 0)
            await within(self._clock, PATIENCE, self._store.set(key, str(number)))
        except OutOfTime as error:
            raise StoreUnavailable(
                f"the store did not answer within {PATIENCE:g} s"
            ) from error
        return number
