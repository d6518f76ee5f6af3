"""The map from resource id to call context.

Entries are made at the start of a call and by commands that create resources.
A store that is away or slow never costs a call: what could not be written is
remembered and written when the store returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ariproxy.clocks import OutOfTime, sleep, within
from ariproxy.errors import AriProxyError, StoreUnavailable
from ariproxy.interfaces import ICachedStore

KEY_PREFIX = "ari-proxy:call-context-provider:"

PATIENCE = 1.0
"""Seconds that an event or a command waits for the store."""

RETRY_AFTER = 1.0
"""Seconds between two attempts to write what the store did not take."""


class Registration(Struct, frozen=True):
    """What one creating command changes in the map.

    ``made`` are ids that were free and are registered already; ``wanted`` are
    ids of another call, which change hands only if Asterisk accepts.
    """

    call_context: str
    made: Sequence[str] = ()
    wanted: Sequence[str] = ()


class CallContexts:
    """Finds and keeps the call context of every resource."""

    _log = Logger()

    def __init__(
        self, store: ICachedStore, clock: IReactorTime, new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._unwritten: dict[str, str] = {}

    @property
    def unwritten(self) -> int:
        """How many entries wait for the store to return."""
        return len(self._unwritten)

    def peek(self, resource_id: str) -> str | None:
        """The call context if it is known without asking the store."""
        return self._store.peek(KEY_PREFIX + resource_id)

    async def find(self, resource_id: str) -> str | None:
        """The call context of a resource; ``None`` if there is none.

        Raises ``StoreUnavailable`` after ``PATIENCE``, or ``StoreRefused``.
        """
        key = KEY_PREFIX + resource_id
        known = self._store.peek(key)
        if known is not None:
            return known
        try:
            found = await within(self._clock, PATIENCE, self._store.get(key))
        except OutOfTime:
            found = None
            if self._store.peek(key) is None:
                raise StoreUnavailable(
                    f"the store did not answer within {PATIENCE:g} s"
                ) from None
        # Meanwhile the start of the call, or a command, may have made the entry.
        return self._store.peek(key) if found is None else found

    async def start(self, channel_id: str, given: str) -> str:
        """The call context of a channel that enters the application.

        ``given`` is the channel variable CALL_CONTEXT, empty if there is none;
        it goes before a stored one. Without both a new one is made. Never
        fails: without the store the call is served all the same.
        """
        context: str | None = given or None
        if context is None:
            try:
                context = await self.find(channel_id)
            except AriProxyError as error:
                context = None
                self._log.warn(
                    "Call context of channel {resource_id} not looked up, "
                    "a new one is made: {error}",
                    resource_id=channel_id,
                    error=error,
                )
            if context is not None:
                return context
            # Another event may have started it while this one waited.
            context = self.peek(channel_id) or self._new_id()
        if self.peek(channel_id) != context:
            await self._write(channel_id, context)
        return context

    async def register(self, ids: Sequence[str], call_context: str) -> Registration:
        """Before a creating command is sent: enter the ids that are free."""
        made, wanted = [], []
        for each in ids:
            try:
                owner = await self.find(each)
            except AriProxyError:
                # An unreachable store: the command goes on, and what is
                # entered now is written later.
                owner = None
            if owner is None:
                await self._write(each, call_context)
                made.append(each)
            elif owner != call_context:
                wanted.append(each)
        return Registration(call_context, made, wanted)

    async def accepted(self, registration: Registration) -> None:
        """Asterisk has created the resources, or may have."""
        for each in registration.wanted:
            await self._write(each, registration.call_context)

    async def refused(self, registration: Registration) -> None:
        """Asterisk has not created the resources: take back what was new."""
        for each in registration.made:
            self._unwritten.pop(each, None)
            try:
                await within(
                    self._clock, PATIENCE, self._store.forget(KEY_PREFIX + each)
                )
            except (AriProxyError, OutOfTime) as error:
                self._log.warn(
                    "Entry of refused resource {resource_id} not removed: {error}",
                    resource_id=each,
                    error=error,
                )

    async def _write(self, resource_id: str, call_context: str) -> None:
        """Write an entry, now or when the store returns; waits ``PATIENCE``."""
        try:
            await within(
                self._clock,
                PATIENCE,
                self._store.set(KEY_PREFIX + resource_id, call_context),
            )
        except (AriProxyError, OutOfTime) as error:
            self._log.debug(
                "Entry of {resource_id} not written yet: {error}",
                resource_id=resource_id,
                call_context=call_context,
                error=error,
            )
            self._write_later(resource_id, call_context)
        else:
            self._unwritten.pop(resource_id, None)

    def _write_later(self, resource_id: str, call_context: str) -> None:
        first = not self._unwritten
        self._unwritten[resource_id] = call_context
        if first:
            self._log.warn("The store takes no entries; they are written later")
            ensureDeferred(self._write_unwritten()).addErrback(
                lambda failure: self._log.failure("Writing late entries", failure)
            )

    async def _write_unwritten(self) -> None:
        while self._unwritten:
            await sleep(self._clock, RETRY_AFTER)
            await self.write_unwritten()
        self._log.info("The store has taken all late entries")

    async def write_unwritten(self) -> None:
        """Try once to write what the store did not take."""
        for resource_id, call_context in list(self._unwritten.items()):
            try:
                await within(
                    self._clock,
                    PATIENCE,
                    self._store.set(KEY_PREFIX + resource_id, call_context),
                )
            except (AriProxyError, OutOfTime):
                return
            if self._unwritten.get(resource_id) == call_context:
                del self._unwritten[resource_id]
