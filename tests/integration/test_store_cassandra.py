"""The Cassandra store against a real Cassandra, also one that misbehaves."""

from __future__ import annotations

import io
import itertools
import time
from argparse import ArgumentParser
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import TestCase

from ariproxy.config.values import Secret
from ariproxy.errors import AriProxyError, StoreRefused, StoreUnavailable
from ariproxy.store import cassandra_schema
from ariproxy.store.cassandra import CassandraStore, open_cassandra
from ariproxy.store.cassandra_connection import ConnectTrouble, connect
from ariproxy.store.cassandra_settings import CassandraSettings, cassandra_settings
from ariproxy.threads import Workers
from tests.integration.services import cassandra
from tests.integration.services.cassandra import PASSWORD, USER, CassandraNode
from tests.integration.services.ports import free_port
from tests.integration.services.processes import wait_until
from tests.store_contract import StoreContract

TIMEOUT = 2.0
KEYSPACES = (f"test_{number}" for number in itertools.count())


@cache
def shared(passwords: bool = False, tls: bool = False) -> CassandraNode:
    """A node for all tests that want such a one, as a start takes 5 s.

    It ends with this process, see ``processes``.
    """
    node = CassandraNode(passwords=passwords, tls=tls)
    node.start()
    return node


def reading(node: CassandraNode, keyspace: str, **advanced: Any) -> CassandraSettings:
    """Settings as an existing file has them."""
    return cassandra_settings(
        {
            "basic": {
                "contact-points": [f"{node.host}:{node.port}"],
                "session-keyspace": keyspace,
                "load-balancing-policy": {"local-datacenter": node.datacentre},
                "request": {"timeout": f"{TIMEOUT} seconds"},
            },
            "advanced": {
                "connection": {"connect-timeout": "1 second"},
                **advanced,
            },
        }
    )


def login(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    """The block ``advanced.auth-provider``."""
    provider = "PlainTextAuthProvider"
    return {"class": provider, "username": user, "password": password}


class _CassandraTests(TestCase):
    """Gives each test a keyspace with the table, on a node that works."""

    skip = cassandra.missing()
    ttl: float = 21600.0
    advanced: dict[str, Any] = {}

    def setUp(self) -> None:
        self.node = self.make_node()
        self.addCleanup(self.mend)
        self.keyspace = next(KEYSPACES)
        self.settings = reading(self.node, self.keyspace, **self.advanced)
        cluster, self.session = connect(self.settings)
        self.addCleanup(cluster.shutdown)
        self.make_schema()

    def make_node(self) -> CassandraNode:
        return shared()

    def mend(self) -> None:
        """Leave the node as the next test wants it."""
        if self.node.pid is None:
            self.node.start()
        self.node.resume()

    def make_schema(self) -> None:
        for statement in cassandra_schema.schema(self.keyspace, "", 1):
            self.cql(statement)

    def cql(self, statement: str) -> list[Any]:
        """Run a statement; ``retel`` is the table of this test."""
        statement = statement.replace(" retel", f" {self.keyspace}.retel")
        return list(self.session.execute(statement, timeout=30))

    def make(self, settings: CassandraSettings | None = None) -> CassandraStore:
        workers = Workers(reactor, "store", 1)
        workers.start()
        store = open_cassandra(
            settings or self.settings, reactor, self.ttl, workers, "n1"
        )

        async def end() -> None:
            await store.close()
            self.assertTrue(await workers.stop(3))

        self.addCleanup(lambda: ensureDeferred(end()))
        return store

    async def trouble(self, call: Any, kind: type[AriProxyError]) -> str:
        """The one line of the error that the call fails with."""
        try:
            await call
        except kind as error:
            text = str(error)
            self.assertTrue(text.startswith("Cassandra "), text)
            self.assertNotIn("\n", text)
            self.assertNotIn("s3cret", text)
            return text
        self.fail("it did not fail")

    async def until_well(
        self,
        store: CassandraStore,
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

    async def refused(
        self,
        kind: type[AriProxyError],
        *words: str,
        settings: CassandraSettings | None = None,
    ) -> None:
        """Every call is refused in the same words, and the log says so once."""
        store = self.make(settings)
        with capturedLogs() as logged:
            for _ in range(4):
                text = await self.trouble(store.set("key", "value"), kind)
                for word in words:
                    self.assertIn(word, text)
                await deferLater(reactor, 0.6)
        warnings = [e for e in logged if e["log_level"] >= LogLevel.warn]
        self.assertEqual(len(warnings), 1, logged)
        self.assertNotIn("s3cret", repr(logged))


class CassandraStoreContractTests(StoreContract, _CassandraTests):
    """CassandraStore keeps the contract of IStore."""

    # Cassandra counts whole seconds, so an entry lives up to a second less.
    ttl = 4.0

    async def make_store(self) -> CassandraStore:
        return self.make()

    async def pass_time(self, seconds: float) -> None:
        await deferLater(reactor, seconds)


class CassandraFormTests(_CassandraTests):
    """What stands in Cassandra is what the original reads and writes."""

    async def test_form(self) -> None:
        """One row of plain text, with its ttl."""
        await self.make().set("ari-proxy:call-context-provider:1.2", "ctx")
        [row] = self.cql('SELECT "key", "value", TTL("value") FROM retel')
        self.assertEqual(row[:2], ("ari-proxy:call-context-provider:1.2", "ctx"))
        self.assertIn(row[2], range(21590, 21601))

    async def test_written_by_the_original(self) -> None:
        """A row without a ttl is read; refreshing gives it one."""
        store = self.make()
        self.assertIsNone(await store.get("1.2"))
        self.cql("ALTER TABLE retel WITH default_time_to_live = 0")
        self.cql("INSERT INTO retel (\"key\", \"value\") VALUES ('1.2', '007')")
        ttl = 'SELECT TTL("value") FROM retel WHERE "key" = \'1.2\''
        self.assertEqual(self.cql(ttl), [(None,)])
        self.assertEqual(await store.get("1.2"), "007")
        await store.refresh("1.2")
        self.assertEqual(await store.get("1.2"), "007")
        self.assertIn(self.cql(ttl)[0][0], range(21590, 21601))

    async def test_no_value(self) -> None:
        """A row without a value is absent, and refreshing leaves it so."""
        store = self.make()
        self.cql("INSERT INTO retel (\"key\") VALUES ('1.2')")
        self.assertIsNone(await store.get("1.2"))
        await store.refresh("1.2")
        self.assertIsNone(await store.get("1.2"))

    async def test_refresh_is_older_than_any_write(self) -> None:
        """A refresh is a microsecond newer than the value, so later writes win."""
        store = self.make()
        await store.set("key", "value")
        [(before,)] = self.cql('SELECT WRITETIME("value") FROM retel')
        await store.refresh("key")
        [(after,)] = self.cql('SELECT WRITETIME("value") FROM retel')
        self.assertEqual(after, before + 1)
        await store.forget("key")
        self.assertIsNone(await store.get("key"))

    async def test_probe(self) -> None:
        """However often it is asked, the probe leaves one row that goes by itself."""
        store = self.make()
        for _ in range(5):
            await store.check()
        [row] = self.cql('SELECT "key", "value", TTL("value") FROM retel')
        self.assertEqual(row[:2], ("HEALTHCHECK_n1", "1n_KCEHCHTLAEH"))
        self.assertIn(row[2], range(50, 61))

    async def test_few_connections(self) -> None:
        """Fifty calls at once, and probes, use two connections."""
        store = self.make()
        before = self.connections()
        await gatherResults(
            [ensureDeferred(store.set(f"k{i}", "v")) for i in range(50)]
            + [ensureDeferred(store.check()) for _ in range(5)]
        )
        self.assertEqual(self.connections() - before, 2)

    def connections(self) -> int:
        return len(self.cql("SELECT port FROM system_views.clients"))

    async def test_impossible_keys(self) -> None:
        """Keys that Cassandra cannot hold are refused, and nothing is lost by it."""
        store = self.make()
        for key, words in (("", "may not be empty"), ("x" * 70_000, "longer than")):
            self.assertIn(words, await self.trouble(store.get(key), StoreRefused))
        await store.check()


class CassandraOutageTests(_CassandraTests):
    """The node is away, hangs or comes back."""

    async def test_down_at_start(self) -> None:
        """Building the store touches nothing; calls fail at once, then work."""
        self.node.kill()
        store = self.make()
        for _ in range(3):
            started = time.monotonic()
            text = await self.trouble(store.get("key"), StoreUnavailable)
            self.assertIn("connection refused; start Cassandra", text)
            self.assertIn("datastax-java-driver.basic.contact-points", text)
        self.assertLess(time.monotonic() - started, 0.1)
        await deferToThread(self.node.start)
        await self.until_well(store, 3)

    async def test_hanging_at_start(self) -> None:
        """A node that accepts and says nothing is waited for up to the limit."""
        self.node.pause()
        store = self.make()
        with capturedLogs() as logged:
            started = time.monotonic()
            await self.trouble(store.get("key"), StoreUnavailable)
            self.assertLess(time.monotonic() - started, TIMEOUT + 0.3)
            await deferLater(reactor, 3)
            started = time.monotonic()
            text = await self.trouble(store.get("key"), StoreUnavailable)
            self.assertLess(time.monotonic() - started, 0.1)
        self.assertIn("no answer", text)
        warnings = [e for e in logged if e["log_level"] >= LogLevel.warn]
        self.assertEqual(len(warnings), 1, logged)
        self.node.resume()
        await self.until_well(store, 4)

    async def test_hanging(self) -> None:
        """Calls fail within the limit, the reactor runs on, and all works after."""
        store = self.make()
        await store.set("key", "value")
        longest_turn, longest_call = Longest(), Longest()
        turns = LoopingCall(longest_turn.mark)
        self.node.pause()
        longest_turn.mark()
        turns.start(0.01)
        end = time.monotonic() + 6
        with capturedLogs() as logged:
            while time.monotonic() < end:
                calls = [store.get(f"key {i}") for i in range(50)]
                longest_call.mark()
                for answer in [ensureDeferred(call) for call in calls]:
                    await self.trouble(answer, StoreUnavailable)
                longest_call.mark()
                await deferLater(reactor, 0.05)
            self.node.resume()
            await self.until_well(store, 4)
        turns.stop()
        self.assertLess(longest_call.seconds, TIMEOUT + 0.4)
        self.assertLess(longest_turn.seconds, 0.4)
        self.assertEqual(await store.get("key"), "value")
        levels = [event["log_level"] for event in logged if "log_source" in event]
        # No answer in time; the connection is lost; no node; connected.
        self.assertEqual(
            levels, [LogLevel.warn, LogLevel.info, LogLevel.warn, LogLevel.info]
        )

    async def test_short_pause(self) -> None:
        """After a pause that is too short for the heartbeat all works at once."""
        store = self.make()
        await store.set("key", "value")
        self.node.pause()
        text = await self.trouble(store.get("key"), StoreUnavailable)
        self.assertIn(f"no answer within {TIMEOUT:g} s", text)
        self.node.resume()
        await self.until_well(store, 1)
        self.assertEqual(await store.get("key"), "value")

    async def test_killed_and_restarted(self) -> None:
        """Calls under way fail, later ones too, and all works after the restart."""
        store = self.make()
        await store.set("key", "value")
        self.node.pause()
        under_way = [ensureDeferred(store.set(f"k{i}", "v")) for i in range(20)]
        await deferLater(reactor, 0.05)
        self.node.kill()
        for call in under_way:
            await self.trouble(call, StoreUnavailable)
        await self.trouble(store.get("key"), StoreUnavailable)
        await deferToThread(self.node.start)
        started = time.monotonic()
        await self.until_well(store, 4)
        self.assertLess(time.monotonic() - started, 2)

    async def test_close_waits_for_answers(self) -> None:
        """What was asked before close is carried out and answered."""
        store = self.make()
        await store.check()
        calls = [ensureDeferred(store.set(f"k{i}", "v")) for i in range(200)]
        await store.close()
        await gatherResults(calls)
        self.assertEqual(self.cql("SELECT COUNT(*) FROM retel"), [(201,)])

    async def test_close_while_hanging(self) -> None:
        """Close ends in time also when the node hangs."""
        store = self.make()
        await store.set("key", "value")
        self.node.pause()
        await self.trouble(store.get("key"), StoreUnavailable)
        answer = ensureDeferred(store.get("key"))
        started = time.monotonic()
        await store.close()
        self.assertLess(time.monotonic() - started, 2)
        await self.trouble(answer, StoreUnavailable)

    async def test_close_while_connecting(self) -> None:
        """Close ends at once for those who wait for a connection."""
        self.node.pause()
        store = self.make()
        answer = ensureDeferred(store.get("key"))
        await deferLater(reactor, 0.05)
        started = time.monotonic()
        await store.close()
        self.assertLess(time.monotonic() - started, 0.2)
        self.assertIn("closed", await self.trouble(answer, StoreUnavailable))


class Longest:
    """The longest time between two marks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: float | None = None

    def mark(self) -> None:
        """Now."""
        now = time.monotonic()
        if self._last is not None:
            self.seconds = max(self.seconds, now - self._last)
        self._last = now


class CassandraSettingsTests(_CassandraTests):
    """Settings that do not fit the real server, each with its mend."""

    async def test_unknown_host(self) -> None:
        """A host that does not exist is named as such."""
        settings = replaced(self.settings, contact_points=(("c.invalid", 9042),))
        text = await self.trouble(self.make(settings).get("key"), StoreUnavailable)
        self.assertIn("Cassandra c.invalid:9042: no such host; correct ", text)

    async def test_wrong_datacentre(self) -> None:
        """A datacentre that is none names the setting and the right one."""
        await self.refused(
            StoreRefused,
            "no datacentre 'dc1' but datacenter1; correct ",
            "basic.load-balancing-policy.local-datacenter",
            settings=replaced(self.settings, datacentre="dc1"),
        )

    async def test_no_datacentre(self) -> None:
        """Without a datacentre that of the contact point counts."""
        await self.make(replaced(self.settings, datacentre="")).check()

    async def test_wrong_keyspace(self) -> None:
        """A keyspace that is none names the setting and the tool that makes it."""
        await self.refused(
            StoreRefused,
            "no keyspace nowhere; correct ",
            "basic.session-keyspace",
            "ari-proxy cassandra-schema",
            settings=replaced(self.settings, keyspace="nowhere"),
        )

    async def test_table_made_late(self) -> None:
        """A missing table is named; when it is made the store works by itself."""
        self.cql("DROP TABLE retel")
        await self.refused(
            StoreRefused, f"no table {self.keyspace}.retel", "cassandra-schema"
        )
        store = self.make()
        await self.trouble(store.get("key"), StoreRefused)
        self.make_schema()
        await self.until_well(store, 3, StoreRefused)

    async def test_table_dropped(self) -> None:
        """A table that goes while the store works is named, and taken again."""
        store = self.make()
        await store.check()
        self.cql("DROP TABLE retel")
        with capturedLogs() as logged:
            for _ in range(3):
                text = await self.trouble(store.set("key", "value"), AriProxyError)
        self.assertIn("no table", text)
        self.assertEqual(len(logged), 1, logged)
        self.make_schema()
        await self.until_well(store, 3, AriProxyError)

    async def test_other_table(self) -> None:
        """A table with other columns is named with those that it must have."""
        self.cql("DROP TABLE retel")
        self.cql("CREATE TABLE retel (id text PRIMARY KEY)")
        await self.refused(StoreRefused, "Undefined column", '"key" text PRIMARY KEY')

    async def test_consistency(self) -> None:
        """Too few replicas for the wanted consistency names the setting."""
        self.cql(
            f"ALTER KEYSPACE {self.keyspace} WITH replication = "
            "{'class': 'SimpleStrategy', 'replication_factor': 3}"
        )
        await self.refused(
            StoreUnavailable,
            "too few replicas are alive for LOCAL_QUORUM",
            "basic.request.consistency",
            settings=replaced(self.settings, consistency="LOCAL_QUORUM"),
        )


def replaced(settings: CassandraSettings, **changes: Any) -> CassandraSettings:
    """The same settings but for these."""
    fields = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return CassandraSettings(**(fields | changes))


class CassandraSecurityTests(_CassandraTests):
    """Passwords, rights and TLS."""

    def make_node(self) -> CassandraNode:
        node = shared(passwords=True, tls=True)
        tls = {"class": "DefaultSslEngineFactory", "truststore-path": str(node.ca_file)}
        self.advanced = {"auth-provider": login(), "ssl-engine-factory": tls}
        # Cassandra makes the first user some seconds after its start.
        settings = reading(node, "system", **self.advanced)
        self.assertTrue(wait_until(lambda: can_connect(settings), 30))
        return node

    async def test_right_password_and_ca(self) -> None:
        """User, password and CA open the server, and are not shown."""
        store = self.make()
        await self.until_well(store, 3)
        await store.set("key", "x" * 50_000)
        self.assertEqual(await store.get("key"), "x" * 50_000)
        self.assertNotIn(PASSWORD, repr(self.settings.password))

    async def test_wrong_password(self) -> None:
        """A wrong password names the two settings."""
        await self.refused(
            StoreRefused,
            "user or password is wrong; correct ",
            "advanced.auth-provider.username",
            settings=replaced(self.settings, password=Secret("s3cret")),
        )

    async def test_wrong_password_mended(self) -> None:
        """When the server takes the password at last, the store works by itself."""
        user = f"user_{self.keyspace}"
        self.cql(f"CREATE ROLE {user} WITH PASSWORD = 'other' AND LOGIN = true")
        self.cql(f"GRANT SELECT ON retel TO {user}")
        self.cql(f"GRANT MODIFY ON retel TO {user}")
        store = self.make(
            replaced(self.settings, username=user, password=Secret("s3cret"))
        )
        await self.trouble(store.get("key"), StoreRefused)
        self.cql(f"ALTER ROLE {user} WITH PASSWORD = 's3cret'")
        await self.until_well(store, 10, StoreRefused)

    async def test_missing_password(self) -> None:
        """A server that asks for a password names the settings."""
        await self.refused(
            StoreRefused,
            "it asks for user and password; set ",
            "advanced.auth-provider.class",
            settings=replaced(self.settings, username=None, password=None),
        )

    async def test_not_permitted(self) -> None:
        """A user who may only read, reads; writing names the rights."""
        user = f"user_{self.keyspace}"
        self.cql(f"CREATE ROLE {user} WITH PASSWORD = 's3cret' AND LOGIN = true")
        self.cql(f"GRANT SELECT ON retel TO {user}")
        settings = replaced(self.settings, username=user, password=Secret("s3cret"))
        store = self.make(settings)
        # The log-in takes its time.
        await until_connected(store)
        self.assertIsNone(await store.get("key"))
        with capturedLogs() as logged:
            for _ in range(3):
                text = await self.trouble(store.set("key", "value"), StoreRefused)
        self.assertIn("GRANT SELECT, MODIFY", text)
        warnings = [e for e in logged if e["log_level"] >= LogLevel.warn]
        self.assertEqual(len(warnings), 1, logged)
        self.assertIsNone(await store.get("key"))

    async def test_restart(self) -> None:
        """A node that knows no passwords for a while after its start is tried on."""
        store = self.make()
        await self.until_well(store, 3)
        self.node.kill()
        await self.trouble(store.get("key"), StoreUnavailable)
        await deferToThread(self.node.start)
        await self.until_well(store, 20, AriProxyError)

    async def test_system_cas(self) -> None:
        """Without a truststore the system's CAs count; they do not know this one."""
        tls = {"class": "DefaultSslEngineFactory"}
        await self.refused(
            StoreRefused,
            "its certificate is not trusted; correct ",
            "advanced.ssl-engine-factory.truststore-path",
            settings=self.tls(tls),
        )

    def tls(self, block: dict[str, str] | None) -> CassandraSettings:
        blocks = {"auth-provider": login()}
        if block:
            blocks["ssl-engine-factory"] = block
        return reading(self.node, self.keyspace, **blocks)

    async def test_no_tls(self) -> None:
        """No TLS where the server wants it names the setting."""
        await self.refused(
            StoreUnavailable, "advanced.ssl-engine-factory", settings=self.tls(None)
        )

    async def test_needless_tls(self) -> None:
        """TLS where the server speaks none names the setting."""
        node = shared()
        here = ((node.host, node.port),)
        await self.refused(
            StoreRefused,
            "it speaks no TLS; remove ",
            settings=replaced(self.settings, contact_points=here),
        )


async def until_connected(store: CassandraStore) -> None:
    """Ask until the store is connected, whatever the answer."""
    with capturedLogs() as logged:
        while not any("connected" in str(event) for event in logged):
            try:
                await store.get("key")
            except AriProxyError:
                await deferLater(reactor, 0.05)


def can_connect(settings: CassandraSettings) -> bool:
    """Tell whether a node takes these settings."""
    try:
        cluster, _ = connect(settings)
    except Exception:
        return False
    cluster.shutdown()
    return True


class CassandraClientCertificateTests(TestCase):
    """A server that asks for a certificate."""

    skip = cassandra.missing()

    async def test_certificate(self) -> None:
        """The certificate of keystore-path opens it; without one it is named."""
        node = CassandraNode(client_tls=True)
        self.addCleanup(node.stop)
        node.start()
        both = Path(node.folder / "both.pem")
        key = node.folder / "server.key"
        both.write_text(key.read_text() + node.ca_file.read_text())  # type: ignore
        tls = {"class": "DefaultSslEngineFactory", "truststore-path": str(node.ca_file)}
        shown = tls | {"keystore-path": str(both)}
        self.assertTrue(
            can_connect(reading(node, "system", **{"ssl-engine-factory": shown}))
        )
        with self.assertRaises(ConnectTrouble) as raised:
            connect(reading(node, "system", **{"ssl-engine-factory": tls}))
        text = str(raised.exception)
        self.assertIn("advanced.ssl-engine-factory.keystore-path", text)


class CassandraSchemaTests(_CassandraTests):
    """``ari-proxy cassandra-schema`` on a real server."""

    def make_schema(self) -> None:
        pass

    def run_tool(self, *arguments: str, port: int | None = None) -> tuple[int, str]:
        """Its exit status, and all that it printed."""
        file = self.mktemp()
        original = Path(__file__).parents[1] / "configs" / "original.conf"
        Path(file).write_text(
            original.read_text()
            + f"""
            datastax-java-driver.basic {{
              contact-points = ["127.0.0.1:{port or self.node.port}"]
              session-keyspace = {self.keyspace}
              load-balancing-policy.local-datacenter = datacenter1
            }}
            """
        )
        parser = ArgumentParser()
        cassandra_schema.add_arguments(parser)
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            options = parser.parse_args([file, *arguments])
            status = cassandra_schema.run(options)
        return status, output.getvalue()

    async def test_apply(self) -> None:
        """It makes what is missing, says so, and is harmless when repeated."""
        apply = ("--apply", "--replication-factor", "1")
        status, text = self.run_tool(*apply)
        self.assertEqual(status, 0, text)
        self.assertEqual(
            text,
            f"keyspace {self.keyspace}: made\ntable {self.keyspace}.retel: made\n",
        )
        await self.make().check()
        status, text = self.run_tool(*apply)
        self.assertEqual(status, 0, text)
        self.assertEqual(text.count("was there already, nothing changed"), 2)

    async def test_printed(self) -> None:
        """What it prints can be run as it is."""
        status, text = self.run_tool("--replication-factor", "1")
        self.assertEqual(status, 0, text)
        for statement in filter(str.strip, text.split(";")):
            self.session.execute(statement, timeout=30)
        await self.make().check()

    async def test_other_table(self) -> None:
        """A table of that name with other columns is an error."""
        self.run_tool("--apply", "--replication-factor", "1")
        self.cql("DROP TABLE retel")
        self.cql("CREATE TABLE retel (id text PRIMARY KEY)")
        status, text = self.run_tool("--apply")
        self.assertEqual(status, 1, text)
        self.assertIn(f"table {self.keyspace}.retel is another one", text)

    async def test_away(self) -> None:
        """Without a server it says so in one line."""
        status, text = self.run_tool("--apply", port=free_port())
        self.assertEqual(status, 1, text)
        self.assertEqual(text.count("\n"), 1, text)
        self.assertIn("connection refused; start Cassandra", text)
