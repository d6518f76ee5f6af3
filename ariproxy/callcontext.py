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
from ariproxy.endings import Endings
from ariproxy.errors import AriProxyError, StoreUnavailable
from ariproxy.interfaces import ICachedStore
from ariproxy.repeated import Repeated

KEY_PREFIX = "ari-proxy:call-context-provider:"

PATIENCE = 1.0
"""Seconds that an event or a command waits for the store."""

RETRY_AFTER = 1.0
"""Seconds between two attempts to write what the store did not take."""

UNWRITTEN_LIMIT = 100_000
"""Entries that wait for the store; beyond it the oldest are given up."""


class Registration(Struct, frozen=True):
    """What one creating command changes in the map.

    ``made`` are ids that were free and are registered already; ``wanted`` are
    ids of another call, or perhaps so because the store did not say: they are
    written only if Asterisk accepts.
    """

    call_context: str
    made: Sequence[str] = ()
    wanted: Sequence[str] = ()


class CallContexts:
    """Finds and keeps the call context of every resource.

    :param forget_after: seconds that an entry is kept after its resource ended.
    """

    _log = Logger()

    def __init__(
        self,
        store: ICachedStore,
        clock: IReactorTime,
        new_id: Callable[[], str],
        forget_after: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._unwritten: dict[str, str] = {}
        # Entries of commands that are under way while the store is away.
        self._presumed: dict[str, str] = {}
        self._writing_late = False
        self._failures = Repeated(clock)
        self._endings = Endings(clock, forget_after, self._forget)

    @property
    def unwritten(self) -> int:
        """How many entries wait for the store to return."""
        return len(self._unwritten)

    def peek(self, resource_id: str) -> str | None:
        """The call context if it is known without asking the store."""
        known = self._store.peek(KEY_PREFIX + resource_id)
        if known is None and (self._unwritten or self._presumed):
            known = self._unwritten.get(resource_id)
            if known is None:
                known = self._presumed.get(resource_id)
        return known

    async def find(self, resource_id: str) -> str | None:
        """The call context of a resource; ``None`` if there is none.

        Raises ``StoreUnavailable`` after ``PATIENCE``, or ``StoreRefused``.
        """
        known = self.peek(resource_id)
        if known is not None:
            return known
        failure: AriProxyError | None = None
        found = None
        try:
            found = await within(
                self._clock, PATIENCE, self._store.get(KEY_PREFIX + resource_id)
            )
        except OutOfTime:
            failure = StoreUnavailable(
                f"the store did not answer within {PATIENCE:g} s"
            )
        except AriProxyError as error:
            failure = error
        if found is None:
            # Meanwhile the start of the call, or a command, may have made it.
            found = self.peek(resource_id)
            if found is None and failure is not None:
                raise failure
        return found

    async def start(self, channel_id: str, given: str) -> str:
        """The call context of a channel that enters the application.

        ``given`` is the channel variable CALL_CONTEXT, empty if there is none;
        it goes before a stored one. Without both a new one is made. Never
        fails, and waits only once for a store that hangs: without the store
        the call is served all the same.
        """
        context: str | None = given or None
        if context is None:
            try:
                context = await self.find(channel_id)
            except AriProxyError as error:
                return self._start_without_store(channel_id, error)
            if context is not None:
                return context
            context = self._new_id()
        if self._store.peek(KEY_PREFIX + channel_id) != context:
            await self._write(channel_id, context)
        return context

    def _start_without_store(self, channel_id: str, error: AriProxyError) -> str:
        context = self._new_id()
        self._log.debug(
            "Call context of channel {resource_id} not looked up, a new one is "
            "made: {error}",
            resource_id=channel_id,
            call_context=context,
            error=error,
        )
        # Not waited for: the event has waited long enough.
        ensureDeferred(self._write(channel_id, context)).addErrback(
            lambda failure: self._log.failure("Writing an entry", failure)
        )
        return context

    async def register(self, ids: Sequence[str], call_context: str) -> Registration:
        """Before a creating command is sent: enter the ids that are free."""
        made, wanted = [], []
        for each in ids:
            try:
                owner = await self.find(each)
            except AriProxyError:
                # Perhaps another call's. The command goes on, and its events
                # find the entry here; it is written only if Asterisk accepts.
                self._presumed[each] = call_context
                wanted.append(each)
                continue
            # Where the resource has ended the name is free for another call.
            if owner is None or (owner != call_context and each in self._endings):
                await self._write(each, call_context)
                made.append(each)
            elif owner != call_context:
                wanted.append(each)
            else:
                self._endings.used(each)
        return Registration(call_context, made, wanted)

    async def accepted(self, registration: Registration) -> None:
        """Asterisk has created the resources, or may have."""
        for each in registration.wanted:
            self._presumed.pop(each, None)
            await self._write(each, registration.call_context)

    async def refused(self, registration: Registration) -> None:
        """Asterisk has not created the resources: take back what was new."""
        for each in registration.wanted:
            if self._presumed.get(each) == registration.call_context:
                del self._presumed[each]
        for each in registration.made:
            if self.peek(each) not in (None, registration.call_context):
                continue  # It belongs to another call by now.
            await self._remove(each)

    def ended(self, resource_id: str) -> None:
        """The resource is gone: its entry is forgotten after a while."""
        self._endings.ended(resource_id)

    def stop(self) -> None:
        """Forget nothing any more. May be repeated."""
        self._endings.stop()

    def _forget(self, resource_id: str) -> None:
        ensureDeferred(self._remove(resource_id)).addErrback(
            lambda failure: self._log.failure("Removing an entry", failure)
        )

    async def _remove(self, resource_id: str) -> None:
        self._unwritten.pop(resource_id, None)
        try:
            await within(
                self._clock, PATIENCE, self._store.forget(KEY_PREFIX + resource_id)
            )
        except (AriProxyError, OutOfTime) as error:
            # It expires by itself.
            self._log.debug(
                "Entry of {resource_id} not removed: {error}",
                resource_id=resource_id,
                error=error,
            )

    async def _write(self, resource_id: str, call_context: str) -> None:
        """Write an entry, now or when the store returns; waits ``PATIENCE``."""
        self._endings.used(resource_id)
        self._unwritten.pop(resource_id, None)
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
            if self.peek(resource_id) in (None, call_context):
                self._write_later(resource_id, call_context)

    def _write_later(self, resource_id: str, call_context: str) -> None:
        self._unwritten[resource_id] = call_context
        if len(self._unwritten) > UNWRITTEN_LIMIT:
            self._give_up(next(iter(self._unwritten)))
        if not self._writing_late:
            self._writing_late = True
            self._log.warn("The store takes no entries; they are written later")
            ensureDeferred(self._write_unwritten()).addErrback(
                lambda failure: self._log.failure("Writing late entries", failure)
            )

    def _give_up(self, resource_id: str) -> None:
        call_context = self._unwritten.pop(resource_id)
        if count := self._failures.due("unwritten"):
            self._log.error(
                "Entry of {resource_id} will not be written: {limit} wait already "
                "({count} since the last such line)",
                resource_id=resource_id,
                call_context=call_context,
                limit=UNWRITTEN_LIMIT,
                count=count,
            )

    async def _write_unwritten(self) -> None:
        try:
            while self._unwritten:
                await sleep(self._clock, RETRY_AFTER)
                await self.write_unwritten()
        finally:
            self._writing_late = False
        self._log.info("The store has taken all late entries")

    async def write_unwritten(self) -> None:
        """Try once to write what the store did not take."""
        for resource_id in list(self._unwritten):
            call_context = self._unwritten.get(resource_id)
            if call_context is None:
                continue
            try:
                await within(
                    self._clock,
                    PATIENCE,
                    self._store.set(KEY_PREFIX + resource_id, call_context),
                )
            except (AriProxyError, OutOfTime):
                if self._unwritten.get(resource_id) == call_context:
                    # One that no store takes must not hold up the others.
                    self._unwritten[resource_id] = self._unwritten.pop(resource_id)
                return
            if self._unwritten.get(resource_id) == call_context:
                del self._unwritten[resource_id]
