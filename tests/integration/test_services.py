"""The helpers that start real servers do what other tests rely on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from confluent_kafka import Consumer, Producer
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.integration.services import asterisk, kafka, redis, sipp
from tests.integration.services.asterisk import RealAsterisk
from tests.integration.services.kafka import KafkaBroker
from tests.integration.services.ports import accepts, free_port, free_ports
from tests.integration.services.processes import Server, ServerFailed, wait_until
from tests.integration.services.redis import RedisServer
from tests.integration.services.sipp import Count, SippCalls


class Listener(Server):
    """A server of a few lines that shows the life cycle."""

    name = "listener"
    code = (
        "import socket, sys, time\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print('listening', flush=True)\n"
        "time.sleep(60)\n"
    )

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.code, str(self.port)]

    def is_ready(self) -> bool:
        return True


class Broken(Listener):
    """A server that says why it does not start."""

    code = "raise SystemExit('no such luck')"


class Mute(Listener):
    """A server that never gets ready."""

    code = "import time; print('thinking', flush=True); time.sleep(60)"
    ready_limit = 0.5


class Stubborn(Listener):
    """A server that does not heed SIGTERM."""

    code = (
        f"import signal; signal.signal(signal.SIGTERM, lambda *_: 0)\n{Listener.code}"
    )
    end_limit = 0.2


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


class ServerTests(SynchronousTestCase):
    """The life cycle that all servers share."""

    def test_life(self) -> None:
        """A stopped server leaves no process, no open port, no folder."""
        with Listener(free_port()) as server:
            pid = server.pid
            self.assertTrue(is_alive(pid))
            self.assertEqual(os.getpgid(pid), pid)
            self.assertTrue(accepts(server.port))
        self.assertFalse(is_alive(pid))
        self.assertFalse(accepts(server.port))
        self.assertFalse(server.folder.exists())

    def test_comes_back(self) -> None:
        """After a kill the same server starts on its port, in its folder."""
        with Listener(free_port()) as server:
            first = server.pid
            server.kill()
            self.assertIsNone(server.pid)
            self.assertFalse(accepts(server.port))
            server.start()
            self.assertNotEqual(server.pid, first)
            self.assertEqual(server.log_tail(), "listening\nlistening")

    def test_ends_while_starting(self) -> None:
        """A server that ends at once is reported with its last words."""
        server = Broken(free_port())
        self.addCleanup(server.stop)
        problem = self.assertRaises(ServerFailed, server.start)
        self.assertRegex(str(problem), r"(?s)ended with status 1.*no such luck")
        self.assertIsNone(server.pid)

    def test_never_ready(self) -> None:
        """A server that does not open its port in time is ended and reported."""
        server = Mute(free_port())
        problem = self.assertRaises(ServerFailed, server.__enter__)
        self.assertRegex(str(problem), r"(?s)not ready after 0.5 seconds.*thinking")
        self.assertIsNone(server.pid)
        self.assertFalse(server.folder.exists())

    def test_frozen(self) -> None:
        """A frozen server goes on, and can be stopped when it does not."""
        with Listener(free_port()) as server:
            server.pause()
            state = Path(f"/proc/{server.pid}/stat")
            stopped = wait_until(lambda: state.read_text().split()[2] == "T", 5)
            self.assertTrue(stopped)
            server.resume()
            self.assertTrue(wait_until(lambda: state.read_text().split()[2] == "S", 5))
            server.pause()
            pid = server.pid
        self.assertFalse(is_alive(pid))

    def test_stubborn(self) -> None:
        """A server that does not end when asked is killed."""
        with Stubborn(free_port()) as server:
            pid = server.pid
            server.terminate()
            self.assertFalse(is_alive(pid))

    def test_started_twice(self) -> None:
        """A running server is not started again over its own data."""
        with Listener(free_port()) as server:
            self.assertRaises(ServerFailed, server.start)
            self.assertTrue(is_alive(server.pid))

    def test_nothing_outlives_its_test(self) -> None:
        """A server and its folder go when the process that started it is killed."""
        code = (
            "from tests.integration.test_services import *\n"
            "server = Listener(free_port()); server.start()\n"
            "print(server.pid, server.folder, flush=True)\n"
            "time.sleep(60)\n"
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            starter = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            pid, folder = starter.stdout.readline().split()
            self.assertTrue(is_alive(int(pid)))
            starter.send_signal(number)
            starter.communicate()
            self.assertTrue(wait_until(lambda: not is_alive(int(pid)), 5))  # noqa: B023
            self.assertTrue(wait_until(lambda: not Path(folder).exists(), 5))  # noqa: B023


class PortTests(SynchronousTestCase):
    """Ports for servers."""

    def test_given_once(self) -> None:
        """No port is given twice."""
        rows = [free_ports(3) for _ in range(50)]
        ports = [port for first in rows for port in range(first, first + 3)]
        self.assertEqual(len(set(ports)), 150)


class KafkaTests(SynchronousTestCase):
    """A real Kafka broker."""

    skip = kafka.missing()

    def _produce(self, broker: KafkaBroker, value: bytes) -> None:
        producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
        producer.produce("events", value)
        self.assertEqual(producer.flush(20), 0)

    def _consume(self, broker: KafkaBroker, count: int) -> list[bytes]:
        consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "test",
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        consumer.subscribe(["events"])
        records = []
        limit = time.monotonic() + 20
        try:
            while len(records) < count and time.monotonic() < limit:
                record = consumer.poll(0.1)
                if record and not record.error():
                    records.append(record.value())
        finally:
            # Without its broker this takes 45 s.
            consumer.close()
        return records

    def test_records_outlive_a_kill(self) -> None:
        """A record that was acknowledged is there after a kill and a restart."""
        with KafkaBroker() as broker:
            broker.create_topics("events", partitions=4)
            self._produce(broker, b"before")
            port = broker.port
            broker.kill()
            broker.start()
            self.assertEqual(broker.port, port)
            self._produce(broker, b"after")
            values = self._consume(broker, 2)
        self.assertEqual(sorted(values), [b"after", b"before"])
        self.assertFalse(broker.folder.exists())

    def test_settings(self) -> None:
        """A broker's settings can be replaced."""
        with KafkaBroker({"auto.create.topics.enable": "true"}) as broker:
            self._produce(broker, b"made by itself")
            self.assertEqual(self._consume(broker, 1), [b"made by itself"])


class RedisTests(SynchronousTestCase):
    """A real Redis."""

    skip = redis.missing()

    def test_plain(self) -> None:
        """It keeps a value."""
        with RedisServer() as server:
            self.assertEqual(server.ask("SET", "key", "a value"), "+OK")
            self.assertEqual(server.ask("GET", "key"), "$7\r\na value")

    def test_password_and_tls(self) -> None:
        """It asks for the password, over TLS."""
        with RedisServer("s3cret", tls=True) as server:
            self.assertEqual(server.ask("SET", "key", "1"), "+OK")
            server.password = None
            self.assertIn("NOAUTH", server.ask("GET", "key"))

    def test_users(self) -> None:
        """A user may do what his rules allow, and no more."""
        with RedisServer(users=("reader on >pw ~* -@all +get",)) as server:
            rules = server.ask("ACL", "DRYRUN", "reader", "SET", "key", "1")
            self.assertIn("no permissions", rules)
            self.assertEqual(server.ask("ACL", "DRYRUN", "reader", "GET", "key"), "+OK")


class Events(WebSocketClientProtocol):
    """Keeps every event of the application."""

    def onOpen(self) -> None:
        self.factory.open = self

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.events.append(json.loads(payload))


class EventsFactory(WebSocketClientFactory):
    """The websocket of one Stasis application."""

    protocol = Events

    def __init__(self, server: RealAsterisk) -> None:
        keys = f"app={server.application}&api_key={server.user}:{server.password}"
        super().__init__(f"ws://127.0.0.1:{server.port}/ari/events?{keys}")
        self.events: list[dict] = []
        self.open: Events | None = None

    def of(self, kind: str) -> list[dict]:
        """Return the events of one type."""
        return [event for event in self.events if event["type"] == kind]


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Let the reactor run until a condition holds; fail when it does not in time."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"not in {seconds} seconds")
        await deferLater(reactor, 0.02)


class AsteriskTests(TestCase):
    """A real Asterisk with real callers."""

    skip = asterisk.missing() or sipp.missing()
    timeout = 60

    def setUp(self) -> None:
        self.server = RealAsterisk()
        self.addCleanup(self.server.stop)
        self.server.start()

    async def _ask(self, method: str, path: str) -> int:
        status, _ = await deferToThread(self.server.request, method, path)
        return status

    async def _application(self) -> EventsFactory:
        factory = EventsFactory(self.server)
        connector = reactor.connectTCP("127.0.0.1", self.server.port, factory)

        async def leave() -> None:
            connector.disconnect()
            await until(lambda: connector.state == "disconnected")

        self.addCleanup(leave)
        await until(lambda: factory.open)
        return factory

    def test_comes_back(self) -> None:
        """After a kill the same server answers at the same place."""
        self.server.kill()
        self.assertEqual(self.server.request("GET", "/asterisk/ping"), (0, b""))
        self.server.start()
        self.assertEqual(self.server.request("GET", "/asterisk/ping")[0], 200)

    def test_side_by_side(self) -> None:
        """Two servers run at the same time; one ends without the other."""
        with RealAsterisk(application="other") as second:
            self.assertEqual(second.request("GET", "/asterisk/ping")[0], 200)
        self.assertEqual(self.server.request("GET", "/asterisk/ping")[0], 200)

    def test_sides_of_a_hangup(self) -> None:
        """A call goes well if the expected side hangs up, and only then."""
        port = self.server.sip_port
        with SippCalls(port, ["3000"] * 5, hangs_up="asterisk") as calls:
            self.assertEqual(calls.wait(20), Count(5, 0, 0), calls.errors())
        with SippCalls(port, ["3000"] * 5, talk_seconds=0.1) as calls:
            self.assertEqual(calls.wait(20), Count(5, 0, 0), calls.errors())
        with SippCalls(port, ["3000"], talk_seconds=5) as calls:
            self.assertEqual(calls.wait(20), Count(0, 1, 1))
            self.assertIn("BYE", calls.errors())

    async def test_stasis(self) -> None:
        """A call enters Stasis, hears a sound, is recorded, and hung up by ARI."""
        application = await self._application()
        dial = ["1000", "2my-context"]
        with SippCalls(self.server.sip_port, dial, hangs_up="asterisk") as calls:
            await until(lambda: len(application.of("StasisStart")) == 2)
            channels = [event["channel"] for event in application.of("StasisStart")]
            self.assertEqual(
                sorted(channel["channelvars"]["CALL_CONTEXT"] for channel in channels),
                ["", "my-context"],
            )
            for path in (f"/channels/{channel['id']}" for channel in channels):
                self.assertEqual(await self._ask("POST", f"{path}/answer"), 204)
                await self._media(application, path)
                self.assertEqual(await self._ask("DELETE", path), 204)
            await until(lambda: calls.is_done)
            self.assertEqual(calls.wait(1), Count(2, 0, 0), calls.errors())
        await until(lambda: len(application.of("StasisEnd")) == 2)

    async def _media(self, application: EventsFactory, path: str) -> None:
        """Play a sound to its end, and a tone and a recording until they are ended."""
        played = len(application.of("PlaybackFinished"))
        name = path.rpartition("/")[2]
        play = f"{path}/play/beep-{name}?media=sound:beep"
        self.assertEqual(await self._ask("POST", play), 201)
        await until(lambda: len(application.of("PlaybackFinished")) == played + 1)
        tone = f"{path}/play/tone-{name}?media=tone:1004/300"
        self.assertEqual(await self._ask("POST", tone), 201)
        await until(lambda: len(application.of("PlaybackStarted")) == played + 2)
        self.assertEqual(await self._ask("DELETE", f"/playbacks/tone-{name}"), 204)
        await until(lambda: len(application.of("PlaybackFinished")) == played + 2)
        states = {e["playback"]["state"] for e in application.of("PlaybackFinished")}
        self.assertEqual(states, {"done"})
        record = f"{path}/record?name={name}&format=wav"
        self.assertEqual(await self._ask("POST", record), 201)
        stop = f"/recordings/live/{name}/stop"
        self.assertEqual(await self._ask("POST", stop), 204)
        await until(lambda: application.of("RecordingFinished"))

    async def test_caller_hangs_up(self) -> None:
        """A caller that hangs up ends its call in Stasis."""
        application = await self._application()
        with SippCalls(self.server.sip_port, ["1000"], talk_seconds=0.1) as calls:
            await until(lambda: application.of("StasisStart"))
            channel = application.of("StasisStart")[0]["channel"]["id"]
            self.assertEqual(
                await self._ask("POST", f"/channels/{channel}/answer"), 204
            )
            await until(lambda: application.of("StasisEnd"))
            await until(lambda: calls.is_done)
            self.assertEqual(calls.wait(1), Count(1, 0, 0), calls.errors())
