"""The store in an SQLite file, in the original's table.

SQLite blocks, so one worker thread does all of it. Operations that come while
it works wait, and are then carried out together, in order, in one transaction:
a transaction costs far more than the statements in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from ariproxy.errors import (
    AriProxyError,
    StoreRefused,
    StoreUnavailable,
    TemporaryError,
)
from ariproxy.interfaces import IStore, IWorkers

__all__ = ["SqliteStore"]

BUSY_SECONDS = 0.5
"""How long a lock held by another process is waited for."""

BATCH = 500
"""Operations in one transaction at most; it also bounds how long one lasts."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS ari_proxy("
    "key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, created_at INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ari_proxy_created_at_index "
    "ON ari_proxy(created_at DESC)",
)

# :now is the time in Unix seconds, :dead the created_at that has just expired.
GET = "SELECT value FROM ari_proxy WHERE key = :key AND created_at > :dead"
SET = (
    "INSERT INTO ari_proxy(key, value, created_at) VALUES(:key, :value, :now) "
    "ON CONFLICT(key) DO UPDATE "
    "SET value = excluded.value, created_at = excluded.created_at"
)
REFRESH = (
    "UPDATE ari_proxy SET created_at = :now WHERE key = :key AND created_at > :dead"
)
FORGET = "DELETE FROM ari_proxy WHERE key = :key"
# As many rows as one transaction writes, so that the file does not grow for
# ever, and no more, so that a large file's dead rows do not stop the calls.
PURGE = (
    "DELETE FROM ari_proxy WHERE rowid IN "
    f"(SELECT rowid FROM ari_proxy WHERE created_at <= :dead LIMIT {BATCH})"
)

PROBE = "HEALTHCHECK_"

TEMPORARY = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_INTERRUPT"}

MENDS = {
    "SQLITE_READONLY": "make the file and its folder writable for this user",
    "SQLITE_CANTOPEN": "make its folder, and let this user write there",
    "SQLITE_PERM": "make the file and its folder writable for this user",
    "SQLITE_FULL": "make room on its disk",
    "SQLITE_IOERR": "see whether its disk is full or broken",
    "SQLITE_NOTADB": "name another file, or move this one away",
    "SQLITE_CORRUPT": "restore the file, or move it away",
}

Parameters = dict[str, Any]
Statement = Callable[[sqlite3.Connection, Sequence[Parameters]], Sequence[str | None]]


def _get(
    connection: sqlite3.Connection, many: Sequence[Parameters]
) -> Sequence[str | None]:
    rows = [connection.execute(GET, parameters).fetchone() for parameters in many]
    return [row and row[0] for row in rows]


def _writing(sql: str) -> Statement:
    # executemany stays in C from row to row. Between single statements a busy
    # reactor thread takes the interpreter, up to 5 ms each time.
    def write(
        connection: sqlite3.Connection, many: Sequence[Parameters]
    ) -> Sequence[None]:
        connection.executemany(sql, many)
        return [None] * len(many)

    return write


_set, _refresh, _forget = _writing(SET), _writing(REFRESH), _writing(FORGET)


def _probe(
    connection: sqlite3.Connection, many: Sequence[Parameters]
) -> Sequence[None]:
    for parameters in many:
        _set(connection, [parameters])
        if _get(connection, [parameters]) != [parameters["value"]]:
            raise sqlite3.DatabaseError("a row that was just written reads otherwise")
        _forget(connection, [parameters])
    return [None] * len(many)


class _Operation(Struct, eq=False):
    """One statement, who waits for it, and its outcome once it is known."""

    statement: Statement
    key: str
    value: str
    waiting: Deferred[Any]
    result: str | None = None
    error: Exception | None = None


@implementer(IStore)
class SqliteStore:
    """One file, opened at the first call and, after an error, at the next one.

    :param path: the file, made when it is missing; or ``:memory:``.
    :param ttl: seconds from the last ``set`` or ``refresh`` to the expiry.
    :param now: the time in Unix seconds; the file outlives the process.
    :param workers: where the calls block; one call is made at a time.
    """

    _log = Logger()

    name = "sqlite"

    def __init__(
        self, path: str, ttl: float, now: Callable[[], float], workers: IWorkers
    ) -> None:
        self._path = path
        self._ttl = ttl
        self._now = now
        self._workers = workers
        self._queue: list[_Operation] = []
        self._working = False
        self._closed = False
        self._idle: Deferred[None] = Deferred()
        # What is wrong with reading, and with writing, as it was logged.
        self._troubles: dict[bool, str] = {}
        # Touched by the worker only.
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> Deferred[str | None]:
        """See ``IStore``."""
        return self._enqueue(_get, key)

    def set(self, key: str, value: str) -> Deferred[None]:
        """See ``IStore``."""
        return self._enqueue(_set, key, value)

    def refresh(self, key: str) -> Deferred[None]:
        """See ``IStore``."""
        return self._enqueue(_refresh, key)

    def forget(self, key: str) -> Deferred[None]:
        """See ``IStore``."""
        return self._enqueue(_forget, key)

    def check(self) -> Deferred[None]:
        """Write, read and remove a row, in one transaction."""
        return self._enqueue(_probe, PROBE, PROBE[::-1])

    async def close(self) -> None:
        """See ``IStore``; operations that were taken before are carried out."""
        if self._closed:
            return
        self._closed = True
        if self._working:
            await self._idle
        # Else the workers need not even have started.
        if self._connection is not None:
            await self._workers.call(self._drop_connection)

    def _enqueue(
        self, statement: Statement, key: str, value: str = ""
    ) -> Deferred[Any]:
        if self._closed:
            return fail(StoreUnavailable(f"the store in {self._path} is closed"))
        try:
            (key + value).encode()
        except UnicodeEncodeError:
            return fail(StoreRefused("a key or value that is no valid Unicode"))
        operation = _Operation(statement, key, value, Deferred())
        self._queue.append(operation)
        if not self._working:
            self._working = True
            ensureDeferred(self._work())
        return operation.waiting

    async def _work(self) -> None:
        """Hand what waits to the worker, batch after batch, until none waits."""
        while self._queue:
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            try:
                await self._workers.call(self._carry_out, batch)
            except TemporaryError as error:
                for operation in batch:
                    operation.error = StoreUnavailable(str(error))
            except Exception as error:
                for operation in batch:
                    operation.error = error
            for operation in batch:
                self._settle(operation)
        self._working = False
        if self._closed:
            self._idle.callback(None)

    def _settle(self, operation: _Operation) -> None:
        self._note(operation.statement is _get, operation.error)
        if operation.waiting.called:
            return  # Who waited has given up.
        if operation.error is None:
            operation.waiting.callback(operation.result)
        else:
            operation.waiting.errback(operation.error)

    def _note(self, reading: bool, error: Exception | None) -> None:
        """Log once when reading or writing begins to fail, or works again."""
        trouble = None if error is None else str(error)
        if self._troubles.get(reading) == trouble:
            return
        before = self._troubles.pop(reading, None)
        # One line, if the same is wrong with reading and with writing.
        others = self._troubles.values()
        if trouble is None:
            if before not in others:
                self._log.info("{path} works again", path=self._path)
            return
        if trouble not in others:
            self._log.warn("{trouble}", trouble=trouble)
        self._troubles[reading] = trouble

    # What follows runs in the worker's thread.

    def _carry_out(self, batch: list[_Operation]) -> None:
        try:
            self._transaction(batch)
        except sqlite3.Error as error:
            self._give_up()
            for operation in batch:
                operation.error = self._translated(error)
            reads = [operation for operation in batch if operation.statement is _get]
            # Reading may work where writing does not.
            if reads and len(reads) < len(batch):
                self._carry_out(reads)

    def _transaction(self, batch: list[_Operation]) -> None:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        now = int(self._now())
        times = {"now": now, "dead": now - self._ttl}
        writes = any(operation.statement is not _get for operation in batch)
        if writes:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(PURGE, times)
        for statement, run in groupby(batch, attrgetter("statement")):
            operations = list(run)
            parameters = [{"key": o.key, "value": o.value, **times} for o in operations]
            results = statement(connection, parameters)
            for operation, result in zip(operations, results, strict=True):
                operation.result = result
                operation.error = None
        if writes:
            connection.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        # One call at a time, but not always from the same thread.
        connection = sqlite3.connect(
            self._path,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # NORMAL: in WAL mode a loss of power may take the last
            # transactions, but never the file (sqlite.org/wal.html).
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in SCHEMA:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _give_up(self) -> None:
        """Undo what has begun. The file may be another one at the next call."""
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()
        if self._path != ":memory:":
            self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _translated(self, error: sqlite3.Error) -> AriProxyError:
        # Extended codes begin like their base code: SQLITE_READONLY_DBMOVED.
        code = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
        where = f"service.sqlite.url: {self._path}: {error}"
        if code in TEMPORARY:
            return StoreUnavailable(f"{where}; another process holds the file for long")
        mend = MENDS.get(code, "see whether another program has changed its table")
        return StoreRefused(f"{where}; {mend}")
