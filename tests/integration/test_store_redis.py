"""The Redis store against a real redis-server, also one that misbehaves."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from ariproxy.errors import AriProxyError, StoreRefused, StoreUnavailable
from ariproxy.store.redis import RedisStore
from ariproxy.tls import client_tls
from tests.integration.services import redis
from tests.integration.services.ports import free_port
from tests.integration.services.redis import RedisServer
from tests.store_contract import StoreContract

PASSWORD = "s3cret"
TIMEOUT = 0.5


class _RedisTests(TestCase):
    """Starts one server for each test."""

    skip = redis.missing()
    ttl: float = 100.0

    def setUp(self) -> None:
        self.server = self.make_server()
        self.addCleanup(self.server.stop)
        self.server.start()

    def make_server(self) -> RedisServer:
        return RedisServer()

    def restart_with(self, *lines: str) -> None:
        """Kill the server and start it with these lines in its configuration."""
        self.server.kill()
        with (self.server.folder / "redis.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self.server.start()

    def make(self, **settings: Any) -> RedisStore:
        arguments: dict[str, Any] = {
            "reactor": reactor,
            "host": "127.0.0.1",
            "port": self.server.port,
            "db": 0,
            "ttl": self.ttl,
            "username": None,
            "password": None,
            "tls": None,
            "timeout": TIMEOUT,
            "node": "n1",
        }
        store = RedisStore(**(arguments | settings))
        self.addCleanup(lambda: ensureDeferred(store.close()))
        return store

    async def trouble(self, call: Any, kind: type[AriProxyError]) -> str:
        """The one line of the error that the call fails with."""
        try:
            await call
        except kind as error:
            text = str(error)
            self.assertIn(f"Redis 127.0.0.1:{self.server.port}: ", text)
            self.assertNotIn("\n", text)
            self.assertNotIn(PASSWORD, text)
            return text
        self.fail("it did not fail")

    async def until_well(
        self,
        store: RedisStore,
        limit: float,
        passing: type[AriProxyError] = StoreUnavailable,
    ) -> list[str]:
        """Return when the store works, with the errors until then."""
        end = time.monotonic() + limit
        seen: list[str] = []
        while True:
            try:
                await store.check()
                return seen
            except passing as error:
                seen.append(str(error))
                if time.monotonic() > end:
                    raise
                await deferLater(reactor, 0.02)


class RedisStoreContractTests(StoreContract, _RedisTests):
    """RedisStore keeps the contract of IStore."""

    ttl = 2.0

    async def make_store(self) -> RedisStore:
        return self.make()

    async def pass_time(self, seconds: float) -> None:
        await deferLater(reactor, seconds)


class RedisFormTests(_RedisTests):
    """What stands in Redis is what the original reads and writes."""

    ttl = 21600.0

    async def test_form(self) -> None:
        """One string, plain text, with its ttl."""
        await self.make().set("ari-proxy:call-context-provider:1.2", "ctx")
        key = "ari-proxy:call-context-provider:1.2"
        self.assertEqual(self.server.ask("TYPE", key), "+string")
        self.assertEqual(self.server.ask("GET", key), "$3\r\nctx")
        self.assertEqual(self.server.ask("TTL", key), ":21600")

    async def test_one_command(self) -> None:
        """A write is one command, and there are no others beside it."""
        store = self.make()
        await store.check()
        self.server.ask("CONFIG", "RESETSTAT")
        await store.set("key", "value")
        stats = self.server.ask("INFO", "commandstats")
        self.assertIn("cmdstat_set:calls=1,", stats)
        self.assertNotIn("cmdstat_expire", stats)

    async def test_written_by_another(self) -> None:
        """What another program writes is seen at once, as text."""
        store = self.make()
        self.assertIsNone(await store.get("key"))
        self.server.ask("SET", "key", "007")
        self.assertEqual(await store.get("key"), "007")

    async def test_selected_database(self) -> None:
        """The database of the configuration is used, also after a reconnect."""
        store = self.make(db=3)
        await store.set("key", "value")
        self.server.ask("CLIENT", "KILL", "TYPE", "normal")
        await self.until_well(store, 2)
        self.assertEqual(await store.get("key"), "value")
        self.assertIn("db3:keys=2", self.server.ask("INFO", "keyspace"))
        self.assertNotIn("db0", self.server.ask("INFO", "keyspace"))

    async def test_probe(self) -> None:
        """However often it is asked, the probe leaves one key that goes by itself."""
        store = self.make(node="node-7")
        for _ in range(5):
            await store.check()
        answer = self.server.ask("KEYS", "*")
        self.assertEqual(answer.split()[::2], ["*1", "HEALTHCHECK_node-7"])
        ttl = self.server.ask("TTL", "HEALTHCHECK_node-7")
        self.assertIn(ttl, (":60", ":59"))

    async def test_few_connections(self) -> None:
        """Fifty calls at once, and probes, open one connection."""
        store = self.make()
        before = self.connections()
        await gatherResults(
            [ensureDeferred(store.set(f"k{i}", "v")) for i in range(50)]
            + [ensureDeferred(store.check()) for _ in range(5)]
        )
        self.assertEqual(self.connections() - before, 2)  # its own and INFO's

    def connections(self) -> int:
        line = self.server.ask("INFO", "stats").split("total_connections_received:")
        return int(line[1].split()[0])

    async def test_foreign_values(self) -> None:
        """A value that is no UTF-8, or no string, is refused, not absent."""
        store = self.make()
        self.server.ask("SETBIT", "key", "0", "1")
        await self.trouble(store.get("key"), StoreRefused)
        self.server.ask("LPUSH", "list", "x")
        text = await self.trouble(store.get("list"), StoreRefused)
        self.assertIn("WRONGTYPE", text)


class RedisOutageTests(_RedisTests):
    """The server is away, hangs or comes back."""

    async def test_down_at_start(self) -> None:
        """Building the store touches nothing; calls fail at once, then work."""
        self.server.kill()
        store = self.make()
        text = await self.trouble(store.get("key"), StoreUnavailable)
        self.assertIn("connection refused; start Redis", text)
        self.assertIn("service.redis.host", text)
        self.server.start()
        await self.until_well(store, 2)

    async def test_unknown_host(self) -> None:
        """A host that does not exist is named as such."""
        store = self.make(host="redis.invalid", timeout=5)
        with self.assertRaises(StoreUnavailable) as raised:
            await store.get("key")
        self.assertIn("service.redis.host", str(raised.exception))

    async def test_hanging(self) -> None:
        """A server that hangs fails calls within the limit, and works again after."""
        store = self.make()
        await store.set("key", "value")
        self.server.pause()
        end = time.monotonic() + 2
        longest = 0.0
        with capturedLogs() as logged:
            while time.monotonic() < end:
                started = time.monotonic()
                calls = [store.get("key"), store.set("other", "x"), store.check()]
                for answer in [ensureDeferred(call) for call in calls]:
                    text = await self.trouble(answer, StoreUnavailable)
                    self.assertIn(f"no answer within {TIMEOUT} s", text)
                longest = max(longest, time.monotonic() - started)
                await deferLater(reactor, 0.02)
            self.server.resume()
            await self.until_well(store, 2)
        self.assertLess(longest, TIMEOUT + 0.3)
        self.assertEqual(await store.get("key"), "value")
        levels = [event["log_level"] for event in logged if "log_source" in event]
        self.assertEqual(levels, [LogLevel.warn, LogLevel.info])

    async def test_killed_and_restarted(self) -> None:
        """Calls under way fail, later ones too, and all works after the restart."""
        store = self.make()
        await store.set("key", "value")
        self.server.pause()
        under_way = [ensureDeferred(store.set(f"k{i}", "v")) for i in range(20)]
        await deferLater(reactor, 0.05)
        self.server.kill()
        for call in under_way:
            await self.trouble(call, StoreUnavailable)
        await self.trouble(store.get("key"), StoreUnavailable)
        self.server.start()
        started = time.monotonic()
        await self.until_well(store, 2)
        self.assertLess(time.monotonic() - started, 1)
        self.assertIsNone(await store.get("key"))

    async def test_connection_killed(self) -> None:
        """A connection that Redis closes is opened again by the next call."""
        store = self.make()
        await store.set("key", "value")
        self.server.ask("CLIENT", "KILL", "TYPE", "normal")
        await deferLater(reactor, 0.05)
        self.assertEqual(await store.get("key"), "value")

    async def test_close_waits_for_answers(self) -> None:
        """What was asked before close is carried out and answered."""
        store = self.make()
        calls = [ensureDeferred(store.set(f"k{i}", "v")) for i in range(200)]
        await store.check()
        calls += [ensureDeferred(store.set(f"k{i}", "w")) for i in range(200)]
        await store.close()
        await gatherResults(calls)
        self.assertEqual(self.server.ask("GET", "k199"), "$1\r\nw")

    async def test_close_while_hanging(self) -> None:
        """Close ends within the limit also when the server hangs."""
        store = self.make()
        await store.set("key", "value")
        self.server.pause()
        answer = ensureDeferred(store.get("key"))
        started = time.monotonic()
        await store.close()
        self.assertLess(time.monotonic() - started, TIMEOUT + 0.3)
        await self.trouble(answer, StoreUnavailable)

    async def test_close_while_connecting(self) -> None:
        """Close ends an attempt to connect and those who wait for it."""
        self.server.pause()
        store = self.make()
        answer = ensureDeferred(store.get("key"))
        await deferLater(reactor, 0.05)
        await store.close()
        self.assertIn("closed", await self.trouble(answer, StoreUnavailable))


class SlowLine(Protocol):
    """Passes bytes on to Redis and back, each packet ``delay`` seconds later."""

    delay = 0.0

    def __init__(self, port: int) -> None:
        self.port = port
        self.peer: Deferred[SlowLine] = Deferred()

    def connectionMade(self) -> None:
        if self.port:
            onward = SlowLine(0)
            onward.peer.callback(self)
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            connectProtocol(endpoint, onward).chainDeferred(self.peer)

    def dataReceived(self, data: bytes) -> None:
        deferLater(reactor, self.delay, self.pass_on, data)

    def pass_on(self, data: bytes) -> None:
        self.peer.addCallback(lambda peer: peer.transport.write(data) or peer)

    def connectionLost(self, reason: Failure) -> None:
        self.peer.addCallback(lambda peer: peer.transport.loseConnection() or peer)


class RedisSlowLineTests(_RedisTests):
    """Redis at the far end of a slow line."""

    async def test_side_by_side(self) -> None:
        """Twenty look-ups take as long as one; logging in takes one round."""
        self.server.stop()
        self.server = RedisServer(PASSWORD)
        self.addCleanup(self.server.stop)
        self.server.start()
        factory = Factory()
        factory.buildProtocol = lambda address: SlowLine(self.server.port)
        line = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(line.stopListening)
        self.patch(SlowLine, "delay", 0.2)
        store = self.make(
            port=line.getHost().port, password=PASSWORD, db=1, timeout=2.0
        )
        started = time.monotonic()
        await store.set("k7", "value")
        self.assertLess(time.monotonic() - started, 2 * 0.4 + 0.3)
        started = time.monotonic()
        found = await gatherResults(
            [ensureDeferred(store.get(f"k{i}")) for i in range(20)]
        )
        self.assertLess(time.monotonic() - started, 0.4 + 0.3)
        self.assertEqual(found[7], "value")
        await store.close()
        await deferLater(reactor, 0.05)


class RedisAnswersTests(_RedisTests):
    """Refusals of a real server, each with its mend, and logged once."""

    def make_server(self) -> RedisServer:
        return RedisServer(
            users=(
                f"ari on >{PASSWORD} ~* -@all +get +set +expire +del +select",
                f"reader on >{PASSWORD} ~* -@all +get +ping",
            )
        )

    async def refused(
        self, kind: type[AriProxyError], *words: str, **settings: Any
    ) -> None:
        """Every call is refused in the same words, and the log says so once."""
        store = self.make(**settings)
        with capturedLogs() as logged:
            for _ in range(3):
                text = await self.trouble(store.set("key", "value"), kind)
                for word in words:
                    self.assertIn(word, text)
                await deferLater(reactor, 0.15)
        warnings = [e for e in logged if e["log_level"] >= LogLevel.warn]
        self.assertEqual(len(warnings), 1, logged)
        self.assertNotIn(PASSWORD, repr(logged))

    async def test_right_password(self) -> None:
        """User and password open the server, also without the right to PING."""
        store = self.make(username="ari", password=PASSWORD)
        await store.check()
        await store.set("key", "value")
        await store.refresh("key")
        self.assertEqual(await store.get("key"), "value")
        await store.forget("key")
        self.assertNotIn(PASSWORD, repr(store))

    async def test_wrong_password(self) -> None:
        """A wrong password names the two settings."""
        await self.refused(
            StoreRefused,
            "WRONGPASS",
            "service.redis.password",
            username="ari",
            password=f"{PASSWORD}x",
        )

    async def test_wrong_password_mended(self) -> None:
        """When the server takes the password at last, the store works by itself."""
        store = self.make(password="new")
        await self.trouble(store.get("key"), StoreRefused)
        self.server.ask("CONFIG", "SET", "requirepass", "new")
        await self.until_well(store, 2, StoreRefused)
        self.assertIsNone(await store.get("key"))

    async def test_needless_password(self) -> None:
        """A password for a server without one is to be removed."""
        await self.refused(
            StoreRefused, "remove service.redis.password", password=PASSWORD
        )

    async def test_missing_password(self) -> None:
        """A server with a password asks for the setting."""
        self.server.ask("CONFIG", "SET", "requirepass", PASSWORD)
        await self.refused(StoreRefused, "NOAUTH", "set service.redis.password")

    async def test_no_such_database(self) -> None:
        """A database that the server does not have names the setting."""
        await self.refused(StoreRefused, "correct service.redis.db", db=99)

    async def test_not_permitted(self) -> None:
        """A user who may only read, reads; writing names the rights."""
        await self.refused(
            StoreRefused,
            "SET was answered with NOPERM",
            "set",
            username="reader",
            password=PASSWORD,
        )
        store = self.make(username="reader", password=PASSWORD)
        self.assertIsNone(await store.get("key"))

    async def test_replica(self) -> None:
        """A replica is read; writing asks for the master."""
        self.server.ask("REPLICAOF", "127.0.0.1", str(free_port()))
        await self.refused(StoreUnavailable, "READONLY", "service.redis.host")

    async def test_cluster(self) -> None:
        """A node of a cluster names the setting."""
        self.restart_with("cluster-enabled yes")
        await self.refused(StoreUnavailable, "CLUSTERDOWN", "service.redis.host")

    async def test_out_of_memory(self) -> None:
        """A full Redis names its own setting."""
        self.server.ask("CONFIG", "SET", "maxmemory", "1")
        await self.refused(StoreUnavailable, "OOM", "maxmemory")

    async def test_too_many_clients(self) -> None:
        """A Redis without room for another client says so, and is tried again."""
        only = self.make()
        await only.check()
        self.server.ask("CONFIG", "SET", "maxclients", "1")
        store = self.make(username="ari", password=PASSWORD)
        text = await self.trouble(store.get("key"), StoreUnavailable)
        self.assertIn("raise maxclients", text)
        await only.close()
        await self.until_well(store, 2)

    async def test_loading(self) -> None:
        """A Redis that still reads its data is waited for."""
        self.restart_with("enable-debug-command yes")
        self.server.ask("DEBUG", "POPULATE", "500", "k", "10")
        self.server.ask("SAVE")
        started = deferToThread(
            self.restart_with,
            "key-load-delay 2000",
            "loading-process-events-interval-bytes 1024",
        )
        seen = await self.until_well(self.make(), 15)
        await started
        self.assertTrue([text for text in seen if "LOADING" in text], seen)


class RedisTlsTests(_RedisTests):
    """TLS is verified."""

    def make_server(self) -> RedisServer:
        return RedisServer(tls=True)

    def make_tls(self, ca: Any, host: str = "127.0.0.1") -> RedisStore:
        return self.make(tls=client_tls(host, ca and str(ca), "service.redis.ca"))

    async def test_right_ca(self) -> None:
        """With the right CA the store works, and again after a lost connection."""
        store = self.make_tls(self.server.ca_file)
        await store.set("key", "x" * 50_000)
        self.assertEqual(await store.get("key"), "x" * 50_000)
        self.server.ask("CLIENT", "KILL", "TYPE", "normal")
        await deferLater(reactor, 0.05)
        self.assertEqual(await store.get("key"), "x" * 50_000)

    async def test_wrong_ca(self) -> None:
        """A certificate of another CA is refused, and the setting named."""
        other = RedisServer(tls=True)
        self.addCleanup(other.stop)
        store = self.make_tls(other.ca_file)
        text = await self.trouble(store.get("key"), StoreRefused)
        self.assertIn("not trusted; correct service.redis.ca", text)

    async def test_system_cas(self) -> None:
        """Without a CA file the system's count, and they do not know this one."""
        text = await self.trouble(self.make_tls(None).get("key"), StoreRefused)
        self.assertIn("service.redis.ca", text)

    async def test_wrong_host(self) -> None:
        """A certificate for another host is refused."""
        store = self.make_tls(self.server.ca_file, "redis.example.org")
        text = await self.trouble(store.get("key"), StoreRefused)
        self.assertIn("for another host", text)

    async def test_plain_to_a_tls_port(self) -> None:
        """No TLS where the server wants it names the setting."""
        text = await self.trouble(self.make().get("key"), AriProxyError)
        self.assertIn("service.redis.tls", text)

    async def test_tls_to_a_plain_port(self) -> None:
        """TLS where the server speaks none names the setting."""
        tls = client_tls("127.0.0.1", str(self.server.ca_file), "service.redis.ca")
        self.server.stop()
        self.server = RedisServer()
        self.addCleanup(self.server.stop)
        self.server.start()
        text = await self.trouble(self.make(tls=tls).get("key"), AriProxyError)
        self.assertIn("service.redis.tls", text)

    async def test_hanging(self) -> None:
        """A server that hangs in mid-connection is cut off, also over TLS."""
        store = self.make_tls(self.server.ca_file)
        await store.set("key", "value")
        self.server.pause()
        await self.trouble(store.get("key"), StoreUnavailable)
        self.server.resume()
        await self.until_well(store, 2)
