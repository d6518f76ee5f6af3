"""The store in Redis.

One connection carries all commands: Redis answers in the order of asking, so
no command waits for another's answer, and their order is kept. It is opened by
the first call and then kept open. A call waits for it within its limit; once
an attempt has failed, or took longer than that, calls fail at once until the
connection is there again.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.errors import (
    AriProxyError,
    StoreRefused,
    StoreUnavailable,
)
from ariproxy.interfaces import IStore
from ariproxy.store.redis_connection import (
    LATE,
    Connection,
    ConnectionTrouble,
    Trouble,
    late,
    open_connection,
    refusal,
)

__all__ = ["RedisStore"]

TIMEOUT = 1.0
"""Seconds in which a call is answered, or fails."""

PROBE_TTL = 60
"""Seconds until the key of the health probe is gone."""

CONNECT_LIMIT = 10.0
"""Seconds in which an attempt to connect succeeds, or is ended.

Longer than a call waits: a name server may be away, and its deputy asked late.
"""

FIRST_DELAY, LAST_DELAY = 0.05, 1.0
"""Seconds before the next attempt to connect; doubled from one to the other."""

ADDRESS_DELAY = 0.05
"""Seconds until the next address of the host is tried beside the first (RFC 8305).

The last address is also the soonest that a refusal is told."""

WAITING = 10_000
"""Calls that may wait for the connection at once."""

QUIET = 30.0
"""Seconds without a certain refusal after which it is said to have ended."""

CLOSED = Trouble(StoreUnavailable, "closed", "the store is closed")


@implementer(IStore)
class RedisStore:
    """Keys and values as they are, each written with its ttl in one ``SET``.

    :param reactor: an ``IReactorTCP`` and ``IReactorTime``.
    :param db: the number of the database.
    :param ttl: seconds from the last ``set`` or ``refresh`` to the expiry.
        Redis takes whole seconds; a part of one counts as one.
    :param username: a user of Redis' ACL (Redis 6); ``None`` for the default.
    :param tls: how TLS is set up; ``None`` for none.
    :param timeout: seconds in which a call is answered, or fails.
    :param node: names this proxy in the key of the health probe.
    """

    _log = Logger()

    name = "redis"

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        db: int,
        ttl: float,
        username: str | None,
        password: str | None,
        tls: IOpenSSLClientConnectionCreator | None,
        timeout: float,
        node: str,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._ttl = max(1, math.ceil(ttl))
        self._tls = tls
        self._timeout = timeout
        self._probe = f"HEALTHCHECK_{node}"
        self._server = f"Redis {host}:{port}"
        self._login: list[tuple[str, ...]] = []
        if password is not None:
            user = () if username is None else (username,)
            self._login.append(("AUTH", *user, password))
        if db:
            self._login.append(("SELECT", str(db)))
        self._connection: Connection | None = None
        self._connected_at = 0.0
        self._attempt: Deferred[Connection] | None = None
        self._retry: Any = None
        self._delay = FIRST_DELAY
        self._waiting: list[Deferred[Connection]] = []
        self._patience: Any = None
        # Why calls fail at once.
        self._down: Trouble | None = None
        # The code of what was last logged about the connection.
        self._logged: str | None = None
        self._closed = False
        # command and code of a refusal -> when it was last seen.
        self._refusals: dict[tuple[str, str], float] = {}

    async def get(self, key: str) -> str | None:
        """See ``IStore``."""
        value = await self._ask("GET", key)
        if isinstance(value, bytes):
            raise StoreRefused(f"{self._server}: the value of {key!r} is no UTF-8")
        return value

    async def set(self, key: str, value: str) -> None:
        """See ``IStore``."""
        await self._ask("SET", key, value, "EX", self._ttl)

    async def refresh(self, key: str) -> None:
        """See ``IStore``."""
        await self._ask("EXPIRE", key, self._ttl)

    async def forget(self, key: str) -> None:
        """See ``IStore``."""
        await self._ask("DEL", key)

    async def check(self) -> None:
        """Write and read a key of this node's own, gone after a minute."""
        value = self._probe[::-1]
        await self._ask("SET", self._probe, value, "EX", PROBE_TTL)
        if await self._ask("GET", self._probe) != value:
            raise StoreRefused(f"{self._server}: {self._probe} reads otherwise")

    async def close(self) -> None:
        """See ``IStore``; what was asked before is waited for."""
        self._closed = True
        self._give_up(CLOSED)
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        connection = self._connection
        if connection is not None:
            await connection.finish()
            connection.cut(CLOSED)
            await connection.ended

    async def _ask(self, *command: str | int) -> Any:
        started = self._reactor.seconds()
        connection = self._connection
        waited = connection is None or self._closed
        if connection is None or self._closed:
            connection = await self._connected()
        try:
            answer = connection.ask(*command)
            if waited:
                # Within the limit all the same, but no reason to cut the line.
                left = started + self._timeout - self._reactor.seconds()
                answer.addTimeout(max(left, 0.0), self._reactor)
            reply = await answer
        except CancelledError:
            raise
        except Exception as problem:
            trouble = self._explained(str(command[0]), connection, problem)
            raise self._error(trouble) from problem
        if self._refusals:
            self._note_success(str(command[0]))
        return reply

    def _explained(
        self, command: str, connection: Connection, problem: Exception
    ) -> Trouble:
        from txredisapi import InvalidData, ResponseError

        if isinstance(problem, InvalidData):
            text = "a key or value that is no valid Unicode"
            return Trouble(StoreRefused, "Unicode", text)
        if isinstance(problem, ResponseError):
            trouble = refusal(command, str(problem))
            self._note_refusal(command, trouble)
            return trouble
        return connection.gone or late(self._timeout)

    def _error(self, trouble: Trouble) -> AriProxyError:
        return trouble.error(f"{self._server}: {trouble.text}")

    # The connection.

    def _connected(self) -> Deferred[Connection]:
        """Fires with the connection when there is one, or fails within the limit."""
        waiting: Deferred[Connection] = Deferred()
        if self._down is not None:
            waiting.errback(self._error(self._down))
        elif len(self._waiting) >= WAITING:
            text = f"{WAITING} calls wait for the connection already"
            waiting.errback(StoreUnavailable(f"{self._server}: {text}"))
        else:
            self._waiting.append(waiting)
            if self._patience is None:
                self._patience = self._reactor.callLater(
                    self._timeout, self._give_up, late(self._timeout)
                )
            if self._attempt is None and self._retry is None:
                self._connect()
        return waiting

    def _connect(self) -> None:
        self._retry = None
        endpoint: Any = HostnameEndpoint(
            self._reactor, self._host, self._port, attemptDelay=ADDRESS_DELAY
        )
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls, endpoint)
        self._attempt = ensureDeferred(
            open_connection(
                self._reactor,
                endpoint,
                self._login,
                CONNECT_LIMIT,
                self._timeout,
                self._lost,
            )
        )
        self._attempt.addCallbacks(self._made, self._not_made)

    def _made(self, connection: Connection) -> None:
        self._attempt = None
        self._connection = connection
        self._connected_at = self._reactor.seconds()
        self._down = None
        self._logged = None
        self._log.info("{server}: connected", server=self._server)
        for each in self._released():
            each.callback(connection)

    def _not_made(self, failure: Any) -> None:
        self._attempt = None
        if self._closed:
            return
        # First, as those who wait may close the store in answer.
        self._connect_later()
        if failure.check(ConnectionTrouble):
            self._give_up(failure.value.trouble)
        else:
            self._log.failure(
                "{server}: connecting failed", failure, server=self._server
            )
            self._give_up(Trouble(StoreUnavailable, "bug", "connecting failed"))

    def _lost(self, trouble: Trouble) -> None:
        self._connection = None
        if self._closed:
            return
        self._log_down(trouble)
        if trouble.code == LATE:
            self._down = trouble
        # One that is lost again and again is not opened ever more often.
        if self._reactor.seconds() - self._connected_at >= LAST_DELAY:
            self._delay = FIRST_DELAY
        self._connect_later()

    def _connect_later(self) -> None:
        self._retry = self._reactor.callLater(self._delay, self._connect)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def _give_up(self, trouble: Trouble) -> None:
        """Calls that wait fail, and others at once, until there is a connection."""
        self._down = trouble
        if not self._closed:
            self._log_down(trouble)
        for each in self._released():
            each.errback(self._error(trouble))

    def _released(self) -> list[Deferred[Connection]]:
        """Those who wait for the connection, in order; they wait no more."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None
        waiting, self._waiting = self._waiting, []
        return [each for each in waiting if not each.called]

    def _log_down(self, trouble: Trouble) -> None:
        if self._logged != trouble.code:
            self._logged = trouble.code
            self._log.warn("{problem}", problem=str(self._error(trouble)))

    # What is logged of refusals. One command may be refused and the next one
    # of its kind not (another key, a smaller value), so the end is not at once.

    def _note_refusal(self, command: str, trouble: Trouble) -> None:
        # One line, whatever commands are refused for the same reason.
        if not self._is_refusing(trouble.code):
            self._log.warn("{problem}", problem=str(self._error(trouble)))
        self._refusals[command, trouble.code] = self._reactor.seconds()

    def _note_success(self, command: str) -> None:
        now = self._reactor.seconds()
        for (refused, code), seen in list(self._refusals.items()):
            if refused == command and now - seen >= QUIET:
                del self._refusals[refused, code]
                if not self._is_refusing(code):
                    self._log.info(
                        "{server}: {command} works again",
                        server=self._server,
                        command=command,
                    )

    def _is_refusing(self, code: str) -> bool:
        return any(each == code for _, each in self._refusals)
