"""Stores that are set up wrongly, or refuse: one clear line, and calls go on."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from ariproxy.store.cassandra_connection import connect
from tests.integration.proxy_case import LiveProxy, ProxyCase
from tests.integration.services import cassandra, kafka, redis
from tests.integration.services.ports import HOST, free_port
from tests.integration.services.proxy import Proxy
from tests.integration.services.redis import RedisServer
from tests.integration.services.scripted_redis import ScriptedRedis
from tests.integration.test_store_cassandra import KEYSPACES, reading, shared

PASSWORD = "s3cret-of-store"
CHECK = "PersistenceStoreCheck"
_calls = itertools.count()


class TroubleCase(ProxyCase):
    """What is common to all troubles."""

    async def start_in_trouble(self, store: str) -> Proxy:
        """Start a proxy that does not count as ready."""
        return await self.start(store, LiveProxy)

    async def calls_go_on(self) -> None:
        """Ten calls, each with a few events, some with a call context of their own."""
        for number in range(10):
            call = f"call-{next(_calls)}"
            given = f"of {call}" if number % 2 else None
            start = self.say("StasisStart", call, given)
            kinds = ("ChannelDtmfReceived", "ChannelVarset", "StasisEnd")
            others = [self.say(kind, call) for kind in kinds]
            context = await self.context_of(start)
            self.assertEqual(context, given or context)
            for each in others:
                self.assertEqual(await self.context_of(each), context)

    async def told(self, proxy: Proxy, server: str, *words: str) -> None:
        """Calls go on; one line of the log, and health, name server and words."""
        await self.calls_go_on()

        async def checked() -> bool:
            errors, _ = await self.health(proxy)
            return [each.partition(":")[0] for each in errors] == [CHECK]

        while not await checked():
            await self.pause(0.1)
        await self.calls_go_on()
        lines = self.warnings(proxy, server)
        self.assertEqual(len(lines), 1, lines)
        # That entries are written later is all that is told beside.
        self.assertLessEqual(len(self.warnings(proxy)), 2)
        (error,), readiness = await self.health(proxy)
        # A store that was well may be away for a while.
        while readiness["ready"]:
            await self.pause(0.1)
            (error,), readiness = await self.health(proxy)
        reason = readiness["reasons"][0]
        self.assertFalse(readiness["ready"])
        for word in (server, *words):
            self.assertIn(word, lines[0])
            self.assertIn(word, error)
            self.assertIn(word, reason["error"])
        self.assertNotIn(PASSWORD, proxy.log.read_text())

    async def well_again(self, proxy: Proxy) -> None:
        """Health says so, and one line; what was not written is."""
        while (await self.health(proxy))[0]:
            await self.pause(0.1)
        await self.until(lambda: "taken all late entries" in proxy.log.read_text())


class RedisTroubleTests(TroubleCase):
    """Redis, real and scripted."""

    skip = kafka.missing() or redis.missing()

    def store(self, port: int, *lines: str, host: str = HOST) -> str:
        own = [f"port = {port}", f'host = "{host}"', "db = 0", *lines]
        return f"redis {{ {', '.join(own)} }}"

    async def test_wrong_port(self) -> None:
        """Nothing listens there."""
        port = free_port()
        proxy = await self.start_in_trouble(self.store(port))
        where = ("service.redis.host", "service.redis.port")
        await self.told(proxy, f"Redis {HOST}:{port}", "refused", *where)

    async def test_wrong_host(self) -> None:
        """There is no such name."""
        proxy = await self.start_in_trouble(self.store(6379, host="nowhere.invalid"))
        await self.told(proxy, "Redis nowhere.invalid:6379", "service.redis.host")

    async def test_wrong_password(self) -> None:
        """It is not told, and the right one neither."""
        server = RedisServer(f"right-{PASSWORD}")
        self.addCleanup(server.stop)
        server.start()
        proxy = await self.start_in_trouble(
            self.store(server.port, f'password = "wrong-{PASSWORD}"')
        )
        where = f"Redis {HOST}:{server.port}"
        await self.told(proxy, where, "WRONGPASS", "service.redis.password")

    async def refused(self, code: str, text: str, *commands: str) -> ScriptedRedis:
        """A Redis that refuses these commands from the start, and then no more."""
        server = ScriptedRedis()
        server.refusals = dict.fromkeys(commands, f"{code} {text}")
        port = server.listen(reactor)
        self.addCleanup(port.stopListening)
        proxy = await self.start_in_trouble(self.store(server.port))
        mend = self.MENDS[code]
        await self.told(proxy, f"Redis {HOST}:{server.port}", code, mend)
        server.refusals.clear()
        await self.well_again(proxy)
        await deferToThread(proxy.terminate)
        return server

    MENDS = {
        "LOADING": "wait until it has",
        "READONLY": "name its master in service.redis.host",
        "MOVED": "name a server that is no cluster in service.redis.host",
        "NOAUTH": "set service.redis.password",
    }

    async def test_loading(self) -> None:
        """It has just been started."""
        text = "Redis is loading the dataset in memory"
        await self.refused("LOADING", text, "*")

    async def test_readonly(self) -> None:
        """A replica: reading works, writing does not."""
        text = "You can't write against a read only replica."
        await self.refused("READONLY", text, "SET", "EXPIRE", "DEL")

    async def test_moved(self) -> None:
        """One of a cluster."""
        await self.refused("MOVED", "3999 127.0.0.1:6381", "GET", "SET", "DEL")

    async def test_noauth(self) -> None:
        """It asks for a password, and none is set."""
        await self.refused("NOAUTH", "Authentication required.", "*")


class CassandraTroubleTests(TroubleCase):
    """Cassandra without what the proxy needs in it."""

    skip = kafka.missing() or cassandra.missing()

    def store(self, port: int, keyspace: str) -> str:
        return f"""
            persistence-store = cassandra
            }}
            datastax-java-driver.basic {{
              contact-points = ["{HOST}:{port}"]
              session-keyspace = {keyspace}
              load-balancing-policy.local-datacenter = datacenter1
            """

    async def test_wrong_port(self) -> None:
        """Nothing listens there."""
        port = free_port()
        proxy = await self.start_in_trouble(self.store(port, "retel"))
        await self.told(proxy, f"Cassandra {HOST}:{port}", "refused", "contact-points")

    async def test_wrong_keyspace(self) -> None:
        """It has another name."""
        port = shared().port
        proxy = await self.start_in_trouble(self.store(port, "nowhere"))
        where = ("no keyspace nowhere", "basic.session-keyspace", "cassandra-schema")
        await self.told(proxy, f"Cassandra {HOST}:{port}", *where)

    async def test_no_table(self) -> None:
        """The keyspace was made, and the table forgotten."""
        node, keyspace = shared(), f"bare_{next(KEYSPACES)}"
        cluster, session = connect(reading(node, keyspace))
        self.addCleanup(cluster.shutdown)
        strategy = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        session.execute(
            f"CREATE KEYSPACE {keyspace} WITH replication = {strategy}", timeout=30
        )
        proxy = await self.start_in_trouble(self.store(node.port, keyspace))
        where = (f"no table {keyspace}.retel", "cassandra-schema --apply")
        await self.told(proxy, f"Cassandra {HOST}:{node.port}", *where)
        session.execute(
            f'CREATE TABLE {keyspace}.retel ("key" text PRIMARY KEY, "value" text)',
            timeout=30,
        )
        await self.well_again(proxy)


class SqliteTroubleTests(TroubleCase):
    """A file that cannot be written."""

    def store(self, path: Path) -> str:
        url = f"jdbc:sqlite:{path}"
        return f'persistence-store = sqlite\nsqlite {{ url = "{url}", ttl = 6h }}'

    def disk(self, size: str) -> Path:
        """A disk of its own, for which one has to be root."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.mount("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
        self.addCleanup(self.mount, "umount", "--lazy", str(folder))
        return folder

    def mount(self, *command: str) -> None:
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SkipTest(f"{' '.join(command[:3])}: {run.stderr.strip()}")

    async def test_readonly(self) -> None:
        """The file and its folder may only be read."""
        if os.geteuid():
            folder = Path(self.mktemp()).absolute()
            folder.mkdir(0o555)
            self.addCleanup(folder.chmod, 0o755)
        else:
            folder = self.disk("1m")
            self.mount("mount", "-o", "remount,ro", str(folder))
        path = folder / "calls.db"
        proxy = await self.start_in_trouble(self.store(path))
        await self.told(proxy, str(path), "service.sqlite.url", "this user")

    async def test_readonly_file(self) -> None:
        """As before, with a file that is there and has its table."""
        if not os.geteuid():
            folder = self.disk("1m")
        else:
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
        path = folder / "calls.db"
        proxy = await self.start(self.store(path))
        await self.context_of(self.say("StasisStart", "before", "of before"))
        await deferToThread(proxy.terminate)
        if not os.geteuid():
            self.mount("mount", "-o", "remount,ro", str(folder))
        else:
            path.chmod(0o444)
            folder.chmod(0o555)
            self.addCleanup(folder.chmod, 0o755)
        proxy = await self.start_in_trouble(self.store(path))
        await self.told(proxy, str(path), "service.sqlite.url", "this user")

    async def test_full_disk(self) -> None:
        """The disk fills while the proxy runs, and is given room again."""
        folder = self.disk("512k")
        path = folder / "calls.db"
        proxy = await self.start(self.store(path))
        await self.calls_go_on()
        with (folder / "full").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        await self.told(proxy, str(path), "service.sqlite.url", "disk")
        (folder / "full").unlink()
        await self.well_again(proxy)
