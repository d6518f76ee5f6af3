"""The store in Redis.

One connection carries all commands: Redis answers in the order of asking, so
no command waits for another's answer, and their order is kept. It is opened
when a call needs it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

from OpenSSL import crypto
from twisted.internet import ssl
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.errors import (
    AriProxyError,
    ConfigError,
    StoreRefused,
    StoreUnavailable,
)
from ariproxy.interfaces import IStore
from ariproxy.store.redis_connection import (
    Connection,
    ConnectionTrouble,
    Trouble,
    late,
    open_connection,
    refusal,
)

__all__ = ["RedisSettings", "RedisStore", "client_tls", "open_redis"]

DEFAULT_TTL = 21600.0
"""Seconds; what the original sets where ``service.redis.ttl`` is absent."""

TIMEOUT = 1.0
"""Seconds in which a call is answered, or fails."""

PROBE_TTL = 60
"""Seconds until the key of the health probe is gone."""

RETRY_DELAY = 0.25
"""Seconds after a failed attempt to connect in which no other one is made."""

WAITING = 10_000
"""Calls that may wait for the connection at once."""

QUIET = 30.0
"""Seconds without a certain refusal after which it is said to have ended."""

CLOSED = Trouble(StoreUnavailable, "closed", "the store is closed")


class _Secret(Protocol):
    def reveal(self) -> str: ...


class RedisSettings(Protocol):
    """``service.redis`` of the configuration; ``ttl`` in seconds."""

    host: str
    port: int
    db: int
    ttl: float | None
    username: str | None
    password: _Secret | None
    tls: bool
    ca: str | None


def open_redis(settings: RedisSettings, reactor: Any, node: str) -> RedisStore:
    """The store that the configuration asks for; it is not connected yet.

    Raises ``ConfigError`` when the file of ``service.redis.ca`` cannot be used.
    """
    return RedisStore(
        reactor,
        settings.host,
        settings.port,
        settings.db,
        DEFAULT_TTL if settings.ttl is None else settings.ttl,
        settings.username,
        settings.password.reveal() if settings.password else None,
        client_tls(settings.host, settings.ca) if settings.tls else None,
        TIMEOUT,
        node,
    )


def client_tls(host: str, ca: str | None) -> IOpenSSLClientConnectionCreator:
    """TLS that verifies the certificate of ``host``.

    :param ca: a PEM file with the certificates to trust; ``None`` for those of
        the system. Raises ``ConfigError`` when it cannot be used.
    """
    if ca is None:
        return ssl.optionsForClientTLS(host)
    begin = b"-----BEGIN CERTIFICATE-----"
    try:
        parts = Path(ca).read_bytes().split(begin)[1:]
        trusted = [ssl.Certificate.loadPEM(begin + part) for part in parts]
    except (OSError, ValueError, crypto.Error) as problem:
        raise ConfigError(f"service.redis.ca: {ca}: {problem}") from problem
    if not trusted:
        raise ConfigError(f"service.redis.ca: {ca}: holds no certificate in PEM form")
    return ssl.optionsForClientTLS(host, ssl.trustRootFromCertificates(trusted))


@implementer(IStore)
class RedisStore:
    """Keys and values as they are, each written with its ttl in one ``SET``.

    :param reactor: an ``IReactorTCP`` and ``IReactorTime``.
    :param db: the number of the database.
    :param ttl: seconds from the last ``set`` or ``refresh`` to the expiry.
        Redis takes whole seconds; a part of one counts as one.
    :param username: a user of Redis' ACL (Redis 6); ``None`` for the default.
    :param tls: how TLS is set up, see ``client_tls``; ``None`` for none.
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
        self._attempt: Deferred[Connection] | None = None
        self._waiting: list[Deferred[Connection]] = []
        # Why there is no connection, and when the next attempt may be made.
        self._down: Trouble | None = None
        self._retry_at = 0.0
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
        if self._closed:
            waiting.errback(self._error(CLOSED))
        elif self._down is not None and self._reactor.seconds() < self._retry_at:
            waiting.errback(self._error(self._down))
        elif len(self._waiting) >= WAITING:
            text = f"{WAITING} calls wait for the connection already"
            waiting.errback(StoreUnavailable(f"{self._server}: {text}"))
        else:
            self._waiting.append(waiting)
            if self._attempt is None:
                self._connect()
        return waiting

    def _connect(self) -> None:
        endpoint: Any = HostnameEndpoint(self._reactor, self._host, self._port)
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls, endpoint)
        self._attempt = ensureDeferred(
            open_connection(
                self._reactor, endpoint, self._login, self._timeout, self._lost
            )
        )
        self._attempt.addTimeout(self._timeout, self._reactor)
        self._attempt.addCallbacks(self._made, self._not_made)

    def _made(self, connection: Connection) -> None:
        self._attempt = None
        self._connection = connection
        self._down = None
        self._log.info("{server}: connected", server=self._server)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(connection)

    def _not_made(self, failure: Any) -> None:
        self._attempt = None
        self._retry_at = self._reactor.seconds() + RETRY_DELAY
        if self._closed:
            trouble = CLOSED
        elif failure.check(ConnectionTrouble):
            trouble = failure.value.trouble
        else:
            trouble = late(self._timeout)
        self._lost(trouble)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.errback(self._error(trouble))

    def _lost(self, trouble: Trouble) -> None:
        self._connection = None
        if trouble is CLOSED:
            return
        if self._down is None or self._down.code != trouble.code:
            self._log.warn("{problem}", problem=str(self._error(trouble)))
        self._down = trouble

    # What is logged of refusals. One command may be refused and the next one
    # of its kind not (another key, a smaller value), so the end is not at once.

    def _note_refusal(self, command: str, trouble: Trouble) -> None:
        if (command, trouble.code) not in self._refusals:
            self._log.warn("{problem}", problem=str(self._error(trouble)))
        self._refusals[command, trouble.code] = self._reactor.seconds()

    def _note_success(self, command: str) -> None:
        now = self._reactor.seconds()
        for (refused, code), seen in list(self._refusals.items()):
            if refused == command and now - seen >= QUIET:
                del self._refusals[refused, code]
                self._log.info(
                    "{server}: {command} works again",
                    server=self._server,
                    command=command,
                )
