"""Measures what each store costs on the way of the events."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from msgspec import Struct

from ariproxy.store.cassandra_connection import connect
from ariproxy.store.cassandra_schema import schema
from ariproxy.store.cassandra_settings import cassandra_settings
from benchmarks.asterisk import Asterisk
from benchmarks.broker import Broker
from benchmarks.events import PART, Arrived, EventRun
from benchmarks.figures import Figures
from benchmarks.frames import GIVEN, LATER, NEW
from benchmarks.programs import Proxy
from tests.integration.services import cassandra, redis
from tests.integration.services.cassandra import CassandraNode
from tests.integration.services.redis import RedisServer

STORES = ("memory", "sqlite", "redis", "cassandra")

_CACHED = 1000
"""Entries in the proxy's cache: all calls, though not all channels."""

_LIMIT = 120.0
"""Seconds that a bare loop may take."""


class Store(Struct, frozen=True):
    """A store that runs.

    ``settings`` are the proxy's, ``bare`` the arguments of its bare loop, if there
    is one.
    """

    name: str
    settings: str
    bare: tuple[str, ...] = ()


class StoreRuns:
    """The measurements, each of which adds its lines to the table."""

    def __init__(
        self, asterisk: Asterisk, broker: Broker, figures: Figures, quick: bool
    ) -> None:
        self._asterisk = asterisk
        self._broker = broker
        self._figures = figures
        self._quick = quick
        self._channels = 0

    def run(self, names: Sequence[str], repeat: int, only: str) -> None:
        """Each store ``repeat`` times, in turn, beside its driver's bare loop."""
        names = [name for name in names if not _missing(name)]
        for _ in range(repeat):
            for name in names:
                with running_store(name) as store:
                    if only in ("", "proxy"):
                        self._proxy(store)
                    if only in ("", "bare") and store.bare:
                        self._bare(store)
        if "redis" in names and only != "bare":
            self._memory("redis")

    def _memory(self, name: str) -> None:
        """Of the daemon after a million channels, each with a call of its own."""
        count = 100_000 if self._quick else 1_000_000
        with running_store(name) as store, self._events(store, "") as (proxy, run):
            for _ in range(count // PART):
                self._starts(run, GIVEN, PART, name)
            time.sleep(3)
            memory = proxy.memory()
        self._figures.add(
            f"memory after {count} channels, {name}", "MB", "proxy", memory
        )

    @contextmanager
    def _events(self, store: Store, more: str) -> Iterator[tuple[Proxy, EventRun]]:
        proxy = Proxy(self._asterisk, self._broker)
        proxy.store = store.name
        proxy.settings = store.settings + more
        with proxy, closing(EventRun(self._asterisk, proxy)) as run:
            yield proxy, run

    def _proxy(self, store: Store) -> None:
        count = 5_000 if self._quick else 20_000
        name = store.name
        with self._events(store, f"service.cache.size = {_CACHED}\n") as (_, run):
            self._starts(run, GIVEN, 2_000, name)  # the first are slower
            first = self._channels
            given = self._starts(run, GIVEN, count, name)
            later = self._checked(run.channels(LATER, first, count), name)
            new = self._starts(run, NEW, count, name)
            self._checked(run.burst(5_000), name)
            cached = self._checked(run.burst(3 * count), name)
        add = self._figures.add
        add(f"StasisStart, written, {name}", "1/s", "proxy", count / given.seconds)
        add(f"CPU per StasisStart, {name}", "us", "proxy", given.cpu / count * 1e6)
        add(f"StasisStart, read, written, {name}", "1/s", "proxy", count / new.seconds)
        add(f"events looked up, {name}", "1/s", "proxy", count / later.seconds)
        add(f"events, cached, {name}", "1/s", "proxy", 3 * count / cached.seconds)
        cpu = cached.cpu / count / 3 * 1e6
        add(f"CPU per cached event, {name}", "us", "proxy", cpu)

    def _starts(self, run: EventRun, kind: str, count: int, name: str) -> Arrived:
        """StasisStarts of channels that nobody knows yet."""
        first, self._channels = self._channels, self._channels + count
        return self._checked(run.channels(kind, first, count), name)

    def _checked(self, arrived: Arrived, name: str) -> Arrived:
        if faults := str(arrived.faults):
            self._figures.fault(f"proxy, store {name}: {faults}")
        return arrived

    def _bare(self, store: Store) -> None:
        count = 5_000 if self._quick else 20_000
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(
                [sys.executable, "-m", "benchmarks.drivers", *store.bare, str(count)],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=True,
            )
        written, read = map(float, run.stdout.split())
        add = self._figures.add
        add(f"StasisStart, written, {store.name}", "1/s", "bare", written)
        add(f"events looked up, {store.name}", "1/s", "bare", read)


def _missing(name: str) -> str | None:
    servers = {"redis": redis.missing, "cassandra": cassandra.missing}
    reason = servers[name]() if name in servers else None
    if reason:
        print(f"  {name} is left out: {reason}")
    return reason


@contextmanager
def running_store(name: str) -> Iterator[Store]:
    """Run the server of a store, if it has one, for as long as the context lasts."""
    if name == "redis":
        with RedisServer() as server:
            where = f"host = {server.host}, port = {server.port}, db = 0"
            yield Store(
                name, f"service.redis {{ {where} }}\n", ("redis", str(server.port))
            )
    elif name == "cassandra":
        with CassandraNode() as node:
            yield Store(name, _keyspace(node), ("cassandra", str(node.port)))
    elif name == "sqlite":
        yield Store(name, "", ("sqlite", "bare.sqlite"))
    else:
        yield Store(name, "")


def _keyspace(node: CassandraNode) -> str:
    """Make keyspace and table; gives the settings that name them."""
    block = {
        "contact-points": [f"{node.host}:{node.port}"],
        "session-keyspace": "bench",
        "load-balancing-policy": {"local-datacenter": node.datacentre},
    }
    cluster, session = connect(cassandra_settings({"basic": block}))
    for statement in schema("bench", node.datacentre, 1):
        session.execute(statement, timeout=30)
    cluster.shutdown()
    return f"""
        datastax-java-driver.basic {{
          contact-points = ["{node.host}:{node.port}"]
          session-keyspace = bench
          load-balancing-policy.local-datacenter = {node.datacentre}
        }}
    """
