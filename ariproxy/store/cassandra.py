"""The store in Cassandra, in the original's table.

Questions are asked in the reactor's thread; the driver answers in a thread of
its own. Connecting blocks and is done by a worker.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    ensureDeferred,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ariproxy.clocks import OutOfTime, within
from ariproxy.errors import (
    AriProxyError,
    StoreRefused,
    StoreUnavailable,
    TemporaryError,
)
from ariproxy.interfaces import IStore, IWorkers
from ariproxy.store.cassandra_connection import (
    ConnectTrouble,
    Link,
    Trouble,
    explained,
    late,
    open_link,
    require_driver,
    server,
)
from ariproxy.store.cassandra_settings import BLOCK, CassandraSettings

__all__ = ["CassandraStore", "open_cassandra"]

PROBE_TTL = 60
"""Seconds until the key of the health probe is gone."""

RETRY_DELAY = 1.0
"""Seconds between two attempts to connect."""

UNDER_WAY = 4000
"""Calls that may be under way at once: more than are answered in time. The
driver has 32,768 numbers for questions to a node and blocks when all are in use;
one whose answer is late stays in use until the node answers or is given up."""

CLOSING = 1.0
"""Seconds that closing waits for the driver's threads."""

QUIET = 30.0
"""Seconds without a certain trouble after which it is said to have ended."""

CLOSED = Trouble(StoreUnavailable, "the store is closed")
FULL = Trouble(StoreUnavailable, f"{UNDER_WAY} calls are under way already")
UNLIKE = Trouble(
    StoreUnavailable,
    "a row that was just written is not read; the replicas differ: raise "
    f"{BLOCK}.basic.request.consistency to LOCAL_QUORUM",
)

T = TypeVar("T")


def open_cassandra(
    settings: CassandraSettings, reactor: Any, ttl: float, workers: IWorkers, node: str
) -> CassandraStore:
    """The store that the configuration asks for; it is not connected yet.

    Raises ``ConfigError`` when the driver is not installed.
    """
    require_driver()
    return CassandraStore(reactor, settings, ttl, workers, node, open_link)


@implementer(IStore)
class CassandraStore:
    """Rows of text, each written with its ttl.

    The first call begins to connect, and from then on an attempt follows the
    other until one succeeds.

    :param reactor: an ``IReactorTime``.
    :param ttl: seconds from the last ``set`` or ``refresh`` to the expiry.
        Cassandra takes whole seconds; a part of one counts as one.
    :param workers: one thread, for connecting and closing.
    :param node: names this proxy in the key of the health probe.
    :param open_link: connects; blocks, and raises ``ConnectTrouble``.
    """

    _log = Logger()

    name = "cassandra"

    def __init__(
        self,
        reactor: Any,
        settings: CassandraSettings,
        ttl: float,
        workers: IWorkers,
        node: str,
        open_link: Callable[[CassandraSettings], Link],
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._ttl = max(1, math.ceil(ttl))
        self._workers = workers
        self._probe = f"HEALTHCHECK_{node}"
        self._open_link = open_link
        self._server = server(settings)
        self._link: Link | None = None
        # Why the last attempt to connect failed.
        self._down: Trouble | None = None
        self._is_connecting = False
        self._pause: Deferred[None] | None = None
        self._waiting: list[Deferred[Link]] = []
        # key -> who waits for the call with this key that is under way.
        self._turns: dict[str, deque[Deferred[None]]] = {}
        # What the driver's threads have brought, and if the reactor was told.
        self._answers: deque[tuple[Deferred[Any], Any]] = deque()
        self._is_woken = False
        self._under_way = 0
        self._idle: Deferred[None] | None = None
        self._closed = False
        # statement and text of a trouble -> when it was last seen.
        self._troubles: dict[tuple[str, str], float] = {}

    async def get(self, key: str) -> str | None:
        """See ``IStore``."""
        rows = await self._in_turn(key, self._ask, "get", key)
        return rows[0][0] if rows else None

    async def set(self, key: str, value: str) -> None:
        """See ``IStore``."""
        await self._in_turn(key, self._ask, "set", key, value, self._ttl)

    async def refresh(self, key: str) -> None:
        """See ``IStore``."""
        await self._in_turn(key, self._renew, key)

    async def forget(self, key: str) -> None:
        """See ``IStore``."""
        await self._in_turn(key, self._ask, "forget", key)

    async def check(self) -> None:
        """Write and read a row of this node's own, gone after a minute."""
        await self._in_turn(self._probe, self._try, self._probe, self._probe[::-1])

    async def close(self) -> None:
        """See ``IStore``; what was asked before is waited for, a second at most."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._answer_waiting(CLOSED)
        if self._under_way:
            self._idle = Deferred()
            await self._at_most(self._idle)
        if self._link is not None:
            link, self._link = self._link, None
            await self._at_most(self._workers.call(link.close))

    async def _at_most(self, awaitable: Awaitable[None]) -> None:
        try:
            await within(self._reactor, CLOSING, awaitable)
        except OutOfTime:
            self._log.debug("{server}: left while busy", server=self._server)

    # One call. Cassandra answers questions in any order, also those of one
    # connection, so calls with the same key go one after the other.

    async def _in_turn(
        self, key: str, function: Callable[..., Awaitable[T]], *parameters: Any
    ) -> T:
        """``await function(due, *parameters)``, where ``due`` is its time limit."""
        due = self._reactor.seconds() + self._settings.timeout
        if self._closed:
            raise self._error(CLOSED)
        if self._under_way >= UNDER_WAY:
            raise self._error(FULL)
        try:
            "".join(each for each in parameters if isinstance(each, str)).encode()
        except UnicodeEncodeError as problem:
            raise StoreRefused("a key or value that is no valid Unicode") from problem
        self._under_way += 1
        try:
            waiting = self._turns.get(key)
            if waiting is None:
                self._turns[key] = deque()
            else:
                turn: Deferred[None] = Deferred()
                waiting.append(turn)
                await turn
            try:
                return await function(due, *parameters)
            finally:
                self._pass_on(key)
        finally:
            self._under_way -= 1
            if self._idle is not None and not self._under_way:
                idle, self._idle = self._idle, None
                idle.callback(None)

    def _pass_on(self, key: str) -> None:
        if self._turns[key]:
            # Not at once: a long line of calls that fail would nest as deeply.
            self._reactor.callLater(0, self._next, key)
        else:
            del self._turns[key]

    def _next(self, key: str) -> None:
        waiting = self._turns[key]
        while waiting:
            turn = waiting.popleft()
            if not turn.called:  # Who waited may have given up.
                turn.callback(None)
                return
        del self._turns[key]

    async def _renew(self, due: float, key: str) -> None:
        """Write the value again, only a little newer than it was.

        So whatever another process writes or forgets meanwhile prevails.
        """
        rows = await self._ask(due, "read", key)
        if rows and rows[0][0] is not None:
            value, written = rows[0]
            await self._ask(due, "rewrite", key, value, self._ttl, written + 1)

    async def _try(self, due: float, key: str, value: str) -> None:
        await self._ask(due, "set", key, value, PROBE_TTL)
        rows = await self._ask(due, "get", key)
        if not rows or rows[0][0] != value:
            raise self._error(UNLIKE)

    async def _ask(self, due: float, statement: str, *parameters: Any) -> Any:
        """The rows of the answer, ``None`` where a statement has none."""
        link = self._link
        if link is None:
            link = await self._connected(due)
        left = due - self._reactor.seconds()
        if left <= 0:
            raise self._error(late(self._settings))
        answer: Deferred[Any] = Deferred()

        def answered(outcome: Any) -> None:
            """Called in any thread, with rows or an exception."""
            self._answers.append((answer, outcome))
            if not self._is_woken:  # To wake it for each would cost more than they.
                self._is_woken = True
                self._workers.to_reactor(self._settle_all)

        link.execute_async(
            getattr(link, statement), parameters, timeout=left
        ).add_callbacks(answered, answered)
        try:
            rows = await answer
        except CancelledError:
            raise
        except Exception as problem:
            trouble = explained(problem, self._settings)
            self._note_trouble(link, statement, trouble)
            raise self._error(trouble) from problem
        if self._troubles:
            self._note_success(statement)
        return rows

    def _settle_all(self) -> None:
        self._is_woken = False  # First: what comes from now on wakes it again.
        while self._answers:
            self._settle(*self._answers.popleft())

    def _settle(self, answer: Deferred[Any], outcome: Any) -> None:
        if answer.called:
            return  # Who waited has given up.
        if isinstance(outcome, Exception):
            answer.errback(outcome)
        else:
            answer.callback(outcome)

    def _error(self, trouble: Trouble) -> AriProxyError:
        return trouble.error(f"{self._server}: {trouble.text}")

    # The connection.

    async def _connected(self, due: float) -> Link:
        """The link when there is one; fails within the limit."""
        trouble = CLOSED if self._closed else self._down
        if trouble is not None:
            raise self._error(trouble)
        waiting: Deferred[Link] = Deferred()
        self._waiting.append(waiting)
        if not self._is_connecting:
            self._connect(None)
        waiting.addTimeout(due - self._reactor.seconds(), self._reactor)
        try:
            return await waiting
        except TimeoutError as problem:
            raise self._error(late(self._settings)) from problem

    def _connect(self, old: Link | None) -> None:
        self._is_connecting = True
        ensureDeferred(self._try_to_connect(old)).addErrback(self._defect)

    def _defect(self, failure: Failure) -> None:
        self._is_connecting, self._down = False, None
        if failure.check(TemporaryError):
            self._answer_waiting(CLOSED)  # The threads have ended.
        else:
            self._log.failure("{server}: connecting", failure, server=self._server)
            self._answer_waiting(Trouble(StoreUnavailable, "connecting failed"))

    async def _try_to_connect(self, old: Link | None) -> None:
        """Attempt after attempt until there is a link, or the store is closed.

        :param old: a link that is of no more use; it is closed first.
        """
        if old is not None:
            await self._workers.call(old.close)
        while True:
            try:
                link = await self._workers.call(self._open_link, self._settings)
            except ConnectTrouble as problem:
                self._not_made(problem.trouble)
            else:
                await self._made(link)
                return
            if self._closed:
                return
            self._pause = deferLater(self._reactor, RETRY_DELAY)
            try:
                await self._pause
            except CancelledError:
                return

    async def _made(self, link: Link) -> None:
        if self._closed:
            await self._workers.call(link.close)
            return
        self._is_connecting, self._link, self._down = False, link, None
        self._troubles.clear()
        self._log.info("{server}: connected", server=self._server)
        self._answer_waiting(link)

    def _not_made(self, trouble: Trouble) -> None:
        if self._closed:
            return
        if self._down is None or self._down.text != trouble.text:
            self._log.warn("{problem}", problem=str(self._error(trouble)))
        self._down = trouble
        self._answer_waiting(trouble)

    def _answer_waiting(self, outcome: Link | Trouble) -> None:
        waiting, self._waiting = self._waiting, []
        trouble = outcome if isinstance(outcome, Trouble) else None
        for each in waiting:
            self._settle(each, self._error(trouble) if trouble else outcome)

    def _note_trouble(self, link: Link, statement: str, trouble: Trouble) -> None:
        if self._closed:
            return
        if not trouble.lost:
            # One line, whatever statements have the same trouble.
            if not self._has_trouble(trouble.text):
                self._log.warn("{problem}", problem=str(self._error(trouble)))
            self._troubles[statement, trouble.text] = self._reactor.seconds()
        elif self._link is link:
            # The driver would connect again by itself, but not after a refused
            # password, which a node that starts may give for a while.
            self._link = None
            self._log.info("{server}: connection lost", server=self._server)
            self._connect(link)

    def _note_success(self, statement: str) -> None:
        now = self._reactor.seconds()
        for (troubled, text), seen in list(self._troubles.items()):
            if troubled == statement and now - seen >= QUIET:
                del self._troubles[troubled, text]
                if not self._has_trouble(text):
                    self._log.info(
                        "{server}: over since {seconds} s: {trouble}",
                        server=self._server,
                        seconds=int(now - seen),
                        trouble=text,
                    )

    def _has_trouble(self, text: str) -> bool:
        return any(each == text for _, each in self._troubles)
