"""The bare loops of the stores' drivers: writes, then reads, as fast as they go.

``python -m benchmarks.drivers redis|cassandra PORT COUNT``, or ``sqlite PATH COUNT``;
prints how many a second of either. 64 are under way at once; SQLite carries out 64
in one transaction.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock
from typing import Any

AT_ONCE = 64
TTL = 21600


def key(number: int) -> str:
    """As long as the proxy's own."""
    return f"ari-proxy:call-context-provider:17955350.{number:08d}"


def rates(count: int, *runs: Callable[[], None]) -> str:
    """Carry out each; gives how many a second."""
    found = []
    for run in runs:
        began = time.perf_counter()
        run()
        found.append(count / (time.perf_counter() - began))
    return " ".join(f"{each:.0f}" for each in found)


# -- SQLite -------------------------------------------------------------------------


def sqlite(path: str, count: int) -> str:
    """``executemany`` and single SELECTs, in the store's own table and modes."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE ari_proxy(key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, "
        "created_at INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE INDEX ari_proxy_created_at_index ON ari_proxy(created_at DESC)"
    )

    def batches() -> Iterator[range]:
        for first in range(0, count, AT_ONCE):
            yield range(first, min(first + AT_ONCE, count))

    def write() -> None:
        for batch in batches():
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO ari_proxy VALUES(?, ?, 1) ON CONFLICT(key) DO UPDATE "
                "SET value = excluded.value, created_at = excluded.created_at",
                [(key(number), "value") for number in batch],
            )
            connection.execute("COMMIT")

    def read() -> None:
        for batch in batches():
            connection.execute("BEGIN")
            for number in batch:
                found = connection.execute(
                    "SELECT value FROM ari_proxy WHERE key = ?", (key(number),)
                )
                assert found.fetchone() == ("value",)
            connection.execute("COMMIT")

    return rates(count, write, read)


# -- Redis --------------------------------------------------------------------------


def redis(port: str, count: int) -> str:
    """txredisapi, one connection."""
    import txredisapi
    from twisted.internet import defer
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    found: list[str] = []

    async def each(numbers: Iterator[int], pool: Any, writes: bool) -> None:
        for number in numbers:
            if writes:
                await pool.set(key(number), "value", expire=TTL)
            else:
                assert await pool.get(key(number)) == "value"

    async def main() -> None:
        pool = txredisapi.lazyConnectionPool(
            "127.0.0.1", int(port), poolsize=1, convertNumbers=False
        )
        await pool.ping()
        for writes in (True, False):
            numbers = iter(range(count))
            began = time.perf_counter()
            await defer.gatherResults(
                defer.ensureDeferred(each(numbers, pool, writes))
                for _ in range(AT_ONCE)
            )
            found.append(f"{count / (time.perf_counter() - began):.0f}")

    def ended(failure: Any) -> None:
        if failure is not None:
            failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(
        lambda: defer.ensureDeferred(main()).addBoth(ended),
    )
    reactor.run()
    return " ".join(found)


# -- Cassandra ----------------------------------------------------------------------


class _Loop:
    """Keeps ``AT_ONCE`` queries under way; each answer sends the next."""

    def __init__(self, session: Any, statement: Any, rows: Iterator[tuple]) -> None:
        self._session = session
        self._statement = statement
        self._rows = rows
        self._lock = Lock()
        self._running = AT_ONCE
        self._ended = Event()
        self._error: Any = None

    def run(self) -> None:
        """Send all; return when all are answered."""
        for _ in range(AT_ONCE):
            self._next(None)
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def _next(self, answer: Any) -> None:
        with self._lock:
            row = next(self._rows, None)
            if row is None:
                self._running -= 1
                if not self._running:
                    self._ended.set()
                return
        future = self._session.execute_async(self._statement, row)
        future.add_callbacks(self._next, self._failed)

    def _failed(self, error: Any) -> None:
        self._error = error
        self._ended.set()


def cassandra(port: str, count: int) -> str:
    """cassandra-driver by libev, prepared statements."""
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
    from cassandra.io.libevreactor import LibevConnection
    from cassandra.policies import RoundRobinPolicy
    from cassandra.query import tuple_factory

    profile = ExecutionProfile(
        load_balancing_policy=RoundRobinPolicy(), row_factory=tuple_factory
    )
    cluster = Cluster(
        ["127.0.0.1"],
        port=int(port),
        connection_class=LibevConnection,
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    )
    session = cluster.connect()
    session.execute(
        "CREATE KEYSPACE IF NOT EXISTS bare WITH replication = "
        "{'class': 'SimpleStrategy', 'replication_factor': 1}"
    )
    session.execute(
        'CREATE TABLE IF NOT EXISTS bare.retel("key" text PRIMARY KEY, "value" text)'
    )
    insert = session.prepare(
        'INSERT INTO bare.retel("key", "value") VALUES (?, ?) USING TTL ?'
    )
    select = session.prepare('SELECT "value" FROM bare.retel WHERE "key" = ?')
    writes = ((key(number), "value", TTL) for number in range(count))
    reads = ((key(number),) for number in range(count))
    found = rates(
        count,
        _Loop(session, insert, writes).run,
        _Loop(session, select, reads).run,
    )
    cluster.shutdown()
    return found


if __name__ == "__main__":
    _name, _where, _count = sys.argv[1:]
    print(
        {"redis": redis, "cassandra": cassandra, "sqlite": sqlite}[_name](
            _where, int(_count)
        )
    )
