"""How long entries of the store live, who else reads and writes them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.threads import deferToThread

from ariproxy.store.cassandra_connection import connect
from ariproxy.store.cassandra_schema import schema
from tests.integration.proxy_case import KEY_PREFIX, ProxyCase, Sent
from tests.integration.services import cassandra, kafka, redis
from tests.integration.services.redis import RedisServer
from tests.integration.test_store_cassandra import KEYSPACES, reading, shared


class RedisCase(ProxyCase):
    """A Redis for each test."""

    skip = kafka.missing() or redis.missing()

    def setUp(self) -> None:
        super().setUp()
        self.server = RedisServer()
        self.addCleanup(self.server.stop)
        self.server.start()

    def store(self, *lines: str) -> str:
        own = [f"port = {self.server.port}", 'host = "127.0.0.1"', "db = 0", *lines]
        return f"redis {{ {', '.join(own)} }}"

    def entry(self, resource: str) -> str | None:
        answer = self.server.ask("GET", KEY_PREFIX + resource)
        return None if answer == "$-1" else answer.partition("\r\n")[2]

    def ttl(self, resource: str) -> int:
        return int(self.server.ask("TTL", KEY_PREFIX + resource)[1:])

    def keys(self, pattern: str) -> list[str]:
        return self.server.ask("KEYS", pattern).split("\r\n")[2::2]


class LifeTests(RedisCase):
    """Entries live as long as what they stand for, and no longer."""

    async def test_long_call(self) -> None:
        """A silent call outlives the ttl, and a restart of the proxy."""
        proxy = await self.start(self.store("ttl = 3s"))
        await self.context_of(self.say("StasisStart", "long", "of long"))
        await self.context_of(self.say("StasisStart", "lost", "of lost"))
        self.live = ["long"]
        began = time.monotonic()
        await self.until(lambda: self.entry("lost") is None)
        while time.monotonic() - began < 7:
            self.assertEqual(self.entry("long"), "of long")
            await self.pause(0.1)
        await deferToThread(proxy.terminate)
        self.assertEqual(proxy.status, 0)
        await self.begin(proxy)
        while time.monotonic() - began < 11:
            self.assertEqual(self.entry("long"), "of long")
            await self.pause(0.1)
        later = self.say("ChannelDtmfReceived", "long")
        self.assertEqual(await self.context_of(later), "of long")

    async def test_forgotten(self) -> None:
        """What has ended is known for ``service.forget-after``, for late events."""
        await self.start(self.store(), **{"forget-after": "2s"})
        for call in ("a", "b"):
            await self.context_of(self.say("StasisStart", call, f"of {call}"))
        await self.context_of(self.say("StasisEnd", "b"))
        end = self.say("ChannelDestroyed", "a")
        await self.context_of(end)
        self.assertEqual(self.entry("a"), "of a")
        late = self.say("ChannelVarset", "a")
        self.assertEqual(await self.context_of(late), "of a")
        await self.until(lambda: self.entry("a") is None)
        self.assertLess(abs(time.monotonic() - end.time - 2), 0.5)
        await self.nothing_of(self.say("ChannelVarset", "a"))
        # StasisEnd is no end: the channel may come back.
        self.assertEqual(self.entry("b"), "of b")


class NamesTests(RedisCase):
    """Ids that call-controllers choose, and use again."""

    def playback(self, kind: str, name: str) -> Sent:
        return self.say(kind, name, playback={"id": name, "target_uri": "channel:x"})

    def recording(self, kind: str, name: str) -> Sent:
        return self.say(kind, name, recording={"name": name, "target_uri": "bridge:x"})

    def bridge(self, kind: str, name: str) -> Sent:
        return self.say(kind, name, bridge={"id": name, "channels": []})

    async def use(self, call: str) -> None:
        """A call makes a bridge, plays and records, always by the same names."""
        for url, body in (
            ("/bridges/b", {}),
            ("/channels/x/play/p", {"media": "tone:ring"}),
            ("/channels/x/record", {"name": "r", "format": "wav"}),
        ):
            answer = await self.carried_out(call, "POST", url, **body)
            self.assertEqual(answer, 201)

    async def check(self, call: str, *ends: str) -> None:
        """Events of the three are of this call; ``ends`` are the last of them."""
        for sent in (
            self.bridge("BridgeCreated", "b"),
            self.playback("PlaybackStarted", "p"),
            self.recording("RecordingStarted", "r"),
        ):
            self.assertEqual(await self.context_of(sent), call)
        for sent in (
            self.bridge("BridgeDestroyed", "b"),
            self.playback("PlaybackFinished", "p"),
            self.recording("RecordingFinished", "r"),
        ):
            if sent.type in ends:
                self.assertEqual(await self.context_of(sent), call)

    async def test_used_again(self) -> None:
        """The names go to the next call, before and after they are forgotten."""
        await self.start(self.store(), **{"forget-after": "1s"})
        ends = ("BridgeDestroyed", "PlaybackFinished", "RecordingFinished")
        for call in ("first", "second"):
            await self.use(call)
            self.assertEqual(self.entry("p"), call)
            await self.check(call, *ends)
        await self.until(lambda: {self.entry(x) for x in "bpr"} == {None})
        await self.use("third")
        await self.pause(1.5)
        await self.check("third", *ends)

    async def test_taken_over(self) -> None:
        """Where its end was not heard, Asterisk's answer says whose a name is."""
        await self.start(self.store())
        self.server.ask("SET", f"{KEY_PREFIX}p", "elsewhere")
        self.statuses["/channels/x/play/p"] = 409
        status = await self.carried_out("mine", "POST", "/channels/x/play/p")
        self.assertEqual(status, 409)
        sent = self.playback("PlaybackStarted", "p")
        self.assertEqual(await self.context_of(sent), "elsewhere")
        self.statuses.clear()
        await self.carried_out("mine", "POST", "/channels/x/play/p")
        sent = self.playback("PlaybackStarted", "p")
        self.assertEqual(await self.context_of(sent), "mine")
        self.assertEqual(self.entry("p"), "mine")

    async def test_refused(self) -> None:
        """What Asterisk did not create leaves no entry behind."""
        await self.start(self.store())
        self.statuses["/bridges/b"] = 500
        await self.carried_out("call", "POST", "/bridges/b")
        self.assertIsNone(self.entry("b"))
        await self.nothing_of(self.bridge("BridgeCreated", "b"))


class SharedStoreTests(RedisCase):
    """Other proxies, of either kind, and the traces that ours leaves."""

    async def test_seen_at_once(self) -> None:
        """What was unknown a moment ago is known when another has entered it."""
        await self.start(self.store())
        await self.nothing_of(self.say("ChannelDtmfReceived", "c"))
        self.server.ask("SET", f"{KEY_PREFIX}c", "of another")
        sent = self.say("ChannelDtmfReceived", "c")
        self.assertEqual(await self.context_of(sent), "of another")

    async def test_few_keys_and_connections(self) -> None:
        """Health leaves one key that dies soon; fifty calls share a connection."""
        proxy = await self.start(self.store())
        sent = [self.say("StasisStart", f"c{number}") for number in range(50)]
        connections = self.server.ask("CLIENT", "LIST").count(" addr=")
        for each in sent:
            await self.context_of(each)
        for _ in range(20):
            await deferToThread(proxy.get, "/health/backing-services")
        # Its own, and the one that asks.
        self.assertLessEqual(connections, 2)
        self.assertLessEqual(self.server.ask("CLIENT", "LIST").count(" addr="), 2)
        probes = self.keys("HEALTHCHECK_*")
        self.assertEqual(len(probes), 1)
        self.assertIn(int(self.server.ask("TTL", probes[0])[1:]), range(1, 61))
        self.assertEqual(self.server.ask("DBSIZE"), ":51")
        # The next round of health uses it again.
        self.server.ask("DEL", probes[0])
        await self.until(lambda: self.keys("HEALTHCHECK_*"))
        self.assertEqual(self.keys("HEALTHCHECK_*"), probes)

    async def test_form(self) -> None:
        """Entries of the original are read, and ours are what it would write."""
        await self.start(self.store())
        self.server.ask("SET", f"{KEY_PREFIX}old", "ctx-ü", "EX", "21600")
        sent = self.say("ChannelDtmfReceived", "old")
        self.assertEqual(await self.context_of(sent), "ctx-ü")
        await self.context_of(self.say("StasisStart", "new", "given-ü"))
        self.assertEqual(self.entry("new"), "given-ü")
        self.assertIn(self.ttl("new"), range(21590, 21601))
        self.assertEqual(self.server.ask("TYPE", f"{KEY_PREFIX}new"), "+string")


class CassandraFleetTests(ProxyCase):
    """Cassandra, with rows of the original, which have no ttl."""

    skip = kafka.missing() or cassandra.missing()

    async def test_form(self) -> None:
        """Its rows are read, and ours are the same, with a ttl."""
        node, keyspace = shared(), f"fleet_{next(KEYSPACES)}"
        cluster, session = connect(reading(node, keyspace))
        self.addCleanup(cluster.shutdown)
        for statement in schema(keyspace, "", 1):
            session.execute(statement, timeout=30)
        session.execute(
            f'INSERT INTO {keyspace}.retel ("key", "value") VALUES (%s, %s) '
            "USING TTL 0",
            (f"{KEY_PREFIX}old", "ctx-ü"),
        )
        await self.start(
            f"""
            persistence-store = io.retel.ariproxy.persistence.plugin.\
CassandraPersistenceStore
            }}
            datastax-java-driver.basic {{
              contact-points = ["127.0.0.1:{node.port}"]
              session-keyspace = {keyspace}
              load-balancing-policy.local-datacenter = {node.datacentre}
            """
        )
        sent = self.say("ChannelDtmfReceived", "old")
        self.assertEqual(await self.context_of(sent), "ctx-ü")
        await self.context_of(self.say("StasisStart", "new", "given-ü"))
        rows = session.execute(
            f'SELECT "value", TTL("value") FROM {keyspace}.retel WHERE "key" = %s',
            (f"{KEY_PREFIX}new",),
        )
        ((value, ttl),) = rows
        self.assertEqual(value, "given-ü")
        self.assertIn(ttl, range(21590, 21601))


class SqliteFleetTests(ProxyCase):
    """SQLite, with the file of the original, which another program has open."""

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            with connection:
                yield connection

    async def test_form(self) -> None:
        """Its rows are read, and ours are the same."""
        path = Path(self.mktemp()).absolute()
        with self.opened(path) as file:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute(
                "CREATE TABLE ari_proxy(key TEXT not null primary key, "
                "value TEXT not null, created_at integer not null)"
            )
            file.execute(
                "CREATE INDEX ari_proxy_created_at_index ON ari_proxy(created_at desc)"
            )
            row = (f"{KEY_PREFIX}old", "ctx-ü", int(time.time()))
            file.execute("INSERT INTO ari_proxy VALUES (?, ?, ?)", row)
        await self.start(
            f"""
            persistence-store = \
io.retel.ariproxy.persistence.plugin.SQLitePersistenceStore
            sqlite {{ url = "jdbc:sqlite:{path}", ttl = 6h }}
            """
        )
        sent = self.say("ChannelDtmfReceived", "old")
        self.assertEqual(await self.context_of(sent), "ctx-ü")
        await self.context_of(self.say("StasisStart", "new", "given-ü"))
        with self.opened(path) as file:
            query = "SELECT key, value, created_at FROM ari_proxy WHERE value = ?"
            ((key, value, created),) = file.execute(query, ("given-ü",))
        self.assertEqual((key, value), (f"{KEY_PREFIX}new", "given-ü"))
        self.assertLess(abs(created - time.time()), 10)
