"""The daemon as a process: how it starts, what it says, how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from ariproxy.sandbox.asterisk import SimulatedAsterisk
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard
from tests.integration.services import kafka
from tests.integration.services.kafka import KafkaBroker
from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import release, start_guarded
from tests.integration.services.proxy import CHECKOUT, twistd
from tests.integration.test_kafka_confluent import real_cluster

PASSWORD = "s3cret-of-ari"
KAFKA_PASSWORD = "s3cret-of-kafka"
SECRETS = (
    PASSWORD,
    KAFKA_PASSWORD,
    b64encode(f"asterisk:{PASSWORD}".encode()).decode(),
)
LIMIT = 20.0
START_LIMIT = 1.5
"""Seconds from the start of the process to an open websocket."""

_numbers = count()


class Daemon:
    """One ``twistd ari-proxy`` in a folder of its own."""

    def __init__(self, settings: str, *options: str, foreground: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ari-proxy-"))
        self.config = self.folder / "service.conf"
        self.config.write_text(settings)
        self.output = self.folder / "output"
        how = ["-n", "--pidfile="] if foreground else []
        self.began = time.monotonic()
        self.process, self._guard = start_guarded(
            [
                *("env", f"PYTHONPATH={CHECKOUT}", *twistd(), *how, *options),
                *("ari-proxy", "--config", str(self.config)),
            ],
            self.folder,
            self.output,
        )

    def lines(self, pattern: str = "") -> list[str]:
        """What it wrote, only lines in which the pattern is found."""
        text = self.output.read_text(errors="replace")
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def terminate(self) -> None:
        """Send SIGTERM to the process itself."""
        os.kill(self.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        release(self._guard)
        shutil.rmtree(self.folder, ignore_errors=True)


class DaemonCase(TestCase):
    """A simulated Asterisk in this process; topics of their own for each test."""

    skip = kafka.missing()
    timeout = 90

    def setUp(self) -> None:
        ids = count()
        board = Switchboard(reactor, time.time, lambda: f"id-{next(ids)}", Settings())
        self.asterisk = SimulatedAsterisk(reactor, board, "asterisk", PASSWORD)
        # HTTP connections that the proxy keeps would outlive the test.
        port = reactor.listenTCP(0, self.asterisk.site, interface=HOST)
        self.asterisk_port = port.getHost().port
        self.addCleanup(port.stopListening)
        number = next(_numbers)
        self.commands, self.events = f"commands-{number}", f"events-{number}"
        self.group = f"proxy-{number}"
        self.http_port = free_port()
        self.outputs: list[Path] = []

    def settings(self, bootstrap: str, more: str = "", level: str = "debug") -> str:
        """A configuration for this Asterisk and Kafka."""
        return f"""
            service {{
              stasis-app = demo
              httpport = {self.http_port}
              http.interface = "{HOST}"
              asterisk.server = "{HOST}:{self.asterisk_port}"
              asterisk.user = asterisk
              asterisk.password = "{PASSWORD}"
              asterisk.rest-over-websocket = off
              kafka.bootstrap-servers = "{bootstrap}"
              kafka.consumer-group = {self.group}
              kafka.commands-topic = {self.commands}
              kafka.events-and-responses-topic = {self.events}
              kafka.security.user = ari
              kafka.security.password = "{KAFKA_PASSWORD}"
              persistence-store = memory
              logging.level = {level}
              {more}
            }}
        """

    def start(self, settings: str, *options: str, foreground: bool = True) -> Daemon:
        """Start a daemon; it ends with the test, and must have told no secret."""
        daemon = Daemon(settings, *options, foreground=foreground)
        self.addCleanup(daemon.close)
        self.addCleanup(self.assert_no_secret, daemon)
        return daemon

    def assert_no_secret(self, daemon: Daemon) -> None:
        """In nothing that it wrote, nor in the list of processes."""
        for path in daemon.folder.iterdir():
            if path.name != "service.conf" and path.is_file():
                text = path.read_text(errors="replace")
                for secret in SECRETS:
                    self.assertNotIn(secret, text, path.name)

    async def until(self, condition: Callable[[], Any], limit: float = LIMIT) -> None:
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not within {limit} s")
            await deferLater(reactor, 0.005)

    async def ended(
        self, process: subprocess.Popen[bytes], limit: float = LIMIT
    ) -> int:
        """Its exit status."""
        await self.until(lambda: process.poll() is not None, limit)
        return int(process.returncode)

    async def refused(self, daemon: Daemon) -> str:
        """The only line with which it ends, with status 1."""
        self.assertEqual(await self.ended(daemon.process), 1)
        lines = daemon.lines(r"\S")
        said = [line for line in lines if not re.search(r" (debug|info) ", line)]
        self.assertEqual(len(said), 1, lines)
        self.assertEqual(daemon.lines("Traceback"), [])
        return said[0]

    # -- Kafka ------------------------------------------------------------------

    def send(self, bootstrap: str, command_id: str) -> None:
        """Put one command for the call ``call`` into the topic."""
        producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        command = {
            "callContext": "call",
            "commandId": command_id,
            "ariCommand": {"method": "GET", "url": "/channels"},
        }
        producer.produce(self.commands, json.dumps(command), "call")
        self.assertEqual(producer.flush(LIMIT), 0)

    def answers(self, bootstrap: str) -> dict[str, int]:
        """The status of each answer that is published by now, by command."""
        consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "test", "log_level": 0}
        )
        start = [TopicPartition(self.events, 0, 0)]
        end = consumer.get_watermark_offsets(start[0], LIMIT)[1]
        consumer.assign(start)
        found: dict[str, int] = {}
        seen = 0
        while seen < end:
            message = consumer.poll(LIMIT)
            record = json.loads(message.value())
            seen = message.offset() + 1
            if record["type"] == "RESPONSE":
                found[record["commandId"]] = record["payload"]["status_code"]
        consumer.close()
        return found

    def committed(self, bootstrap: str) -> int:
        """How many commands are done, as Kafka knows it."""
        consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": self.group, "log_level": 0}
        )
        [place] = consumer.committed([TopicPartition(self.commands, 0)], LIMIT)
        end = consumer.get_watermark_offsets(TopicPartition(self.commands, 0), LIMIT)[1]
        consumer.close()
        return int(place.offset) - int(end)

    async def serving(self, bootstrap: str) -> None:
        """Return when commands are answered."""
        for number in range(60):
            await deferToThread(self.send, bootstrap, f"probe-{number}")
            await deferLater(reactor, 0.3)
            if await deferToThread(self.answers, bootstrap):
                return
        self.fail("no command is answered")


class RunningTests(DaemonCase):
    """With Kafka and Asterisk there."""

    def setUp(self) -> None:
        super().setUp()
        cluster = real_cluster()
        self.bootstrap = cluster.bootstrap
        cluster.broker.create_topics(self.commands, self.events)

    async def test_start(self) -> None:
        """The websocket is open soon after the start; the best of three counts."""
        times = []
        for _ in range(3):
            daemon = self.start(self.settings(self.bootstrap))
            await self.until(lambda: self.asterisk.sockets)
            times.append(time.monotonic() - daemon.began)
            daemon.terminate()
            self.assertEqual(await self.ended(daemon.process), 0)
            await self.until(lambda: not self.asterisk.sockets)
        print(f"\nfrom start to open websocket: {min(times):.2f} s of {times}")
        self.assertLess(min(times), START_LIMIT)

    async def test_sigterm(self) -> None:
        """A command that is running is finished, answered and committed: status 0."""
        daemon = self.start(self.settings(self.bootstrap))
        await self.until(lambda: self.asterisk.sockets)
        await self.serving(self.bootstrap)
        self.asterisk.faults.delay = 1.5
        heard = len(self.asterisk.heard)
        await deferToThread(self.send, self.bootstrap, "last")
        await self.until(lambda: len(self.asterisk.heard) > heard)
        daemon.terminate()
        self.assertEqual(await self.ended(daemon.process), 0)
        answers = await deferToThread(self.answers, self.bootstrap)
        self.assertEqual(answers["last"], 200)
        self.assertEqual(await deferToThread(self.committed, self.bootstrap), 0)
        self.assertEqual(len(daemon.lines("Stopping: no new")), 1)
        self.assertEqual(len(daemon.lines(": Stopped$")), 1)
        self.assertEqual(daemon.lines("Traceback|Unhandled"), [])

    async def test_sigint(self) -> None:
        """Ctrl-C is as good."""
        daemon = self.start(self.settings(self.bootstrap))
        await self.until(lambda: self.asterisk.sockets)
        os.kill(daemon.process.pid, signal.SIGINT)
        self.assertEqual(await self.ended(daemon.process), 0)

    async def test_replaced(self) -> None:
        """Another client for our application ends it well; for another one, not."""
        daemon = self.start(self.settings(self.bootstrap))
        await self.until(lambda: self.asterisk.sockets)
        event = {"type": "ApplicationReplaced", "application": "other"}
        self.asterisk.send_raw(json.dumps(event).encode())
        await deferLater(reactor, 1)
        self.assertIsNone(daemon.process.poll())
        event["application"] = "demo"
        self.asterisk.send_raw(json.dumps(event).encode())
        self.assertEqual(await self.ended(daemon.process), 0)
        self.assertEqual(len(daemon.lines("has taken over application demo")), 1)

    async def test_in_the_background(self) -> None:
        """As a daemon with pid file and log file it works all the same."""
        daemon = self.start(
            self.settings(self.bootstrap),
            *("--pidfile=proxy.pid", "--logfile=proxy.log"),
            foreground=False,
        )
        self.assertEqual(await self.ended(daemon.process), 0)
        pid_file = daemon.folder / "proxy.pid"
        pid = int(pid_file.read_text())
        self.addCleanup(self._kill, pid)
        await self.until(lambda: self.asterisk.sockets)
        await self.serving(self.bootstrap)
        os.kill(pid, signal.SIGTERM)
        await self.until(lambda: not _is_alive(pid))
        self.assertFalse(pid_file.exists())
        log = (daemon.folder / "proxy.log").read_text()
        self.assertIn(": Stopped\n", log)
        self.assertNotIn("Traceback", log)

    def _kill(self, pid: int) -> None:
        if _is_alive(pid):
            os.kill(pid, signal.SIGKILL)

    async def test_nothing_on_stderr_but_the_log(self) -> None:
        """Every line has the log's form: no library writes past it."""
        daemon = self.start(self.settings(self.bootstrap))
        await self.until(lambda: self.asterisk.sockets)
        await self.serving(self.bootstrap)
        daemon.terminate()
        await self.ended(daemon.process)
        stamp = r"^\d{4}-\d\d-\d\dT\S+ (debug|info|warn|error|critical) |^    "
        odd = [line for line in daemon.lines() if not re.search(stamp, line)]
        self.assertEqual(odd, [])


class RefusedTests(DaemonCase):
    """What an operator can mend is one line, and status 1."""

    def setUp(self) -> None:
        super().setUp()
        # Nobody listens there, and nobody needs to.
        self.bootstrap = f"{HOST}:1"

    async def test_port_in_use(self) -> None:
        """The line names key and address."""
        other = reactor.listenTCP(self.http_port, Factory(), interface=HOST)
        self.addCleanup(other.stopListening)
        line = await self.refused(self.start(self.settings(self.bootstrap)))
        self.assertIn(f"service.httpport: cannot listen on {HOST}:", line)

    async def test_bad_file(self) -> None:
        """The line names file, key, what was found and what is allowed."""
        daemon = self.start(self.settings(self.bootstrap, "cache.size = many"))
        line = await self.refused(daemon)
        for word in (str(daemon.config), "service.cache.size", "many", "number"):
            self.assertIn(word, line)

    async def test_property_of_librdkafka(self) -> None:
        """A property that librdkafka refuses is a fault of the configuration."""
        for setting, word in (
            ("no.such = 1", "no.such"),
            ("message.max.bytes = 1", "message.max.bytes"),
        ):
            more = f"kafka.librdkafka {{ {setting} }}"
            line = await self.refused(self.start(self.settings(self.bootstrap, more)))
            self.assertIn("service.kafka", line)
            self.assertIn(word, line)

    async def test_in_the_background(self) -> None:
        """A daemon that cannot start says so with its status, and leaves nothing."""
        other = reactor.listenTCP(self.http_port, Factory(), interface=HOST)
        self.addCleanup(other.stopListening)
        daemon = self.start(
            self.settings(self.bootstrap),
            *("--pidfile=proxy.pid", "--logfile=proxy.log"),
            foreground=False,
        )
        self.assertEqual(await self.ended(daemon.process), 1)
        log = (daemon.folder / "proxy.log").read_text()
        self.assertIn("service.httpport: cannot listen", log)


class AwayTests(DaemonCase):
    """Kafka is away when it starts."""

    async def test_kafka_comes_later(self) -> None:
        """It runs, says once that Kafka is away, and works when Kafka is there."""
        broker = KafkaBroker()
        self.addCleanup(broker.stop)
        await deferToThread(broker.start)
        await deferToThread(broker.create_topics, self.commands, self.events)
        await deferToThread(broker.terminate)
        daemon = self.start(self.settings(broker.bootstrap, level="info"))
        await self.until(lambda: self.asterisk.sockets)
        await deferLater(reactor, 4)
        self.assertIsNone(daemon.process.poll())
        self.assertEqual(len(daemon.lines("is away for the producer")), 1)
        self.assertEqual(len(daemon.lines("is away for the consumer")), 1)
        # A third line is the health check's.
        loud = daemon.lines(" (warn|error|critical) ")
        self.assertEqual(len(loud), 3, loud)
        self.assertEqual(len(daemon.lines("kafka does not answer its check")), 1)
        await deferToThread(broker.start)
        await self.serving(broker.bootstrap)
        self.assertEqual(len(daemon.lines("answers the producer again")), 1)
        self.assertEqual(len(daemon.lines("answers the consumer again")), 1)
        daemon.terminate()
        self.assertEqual(await self.ended(daemon.process), 0)

    async def test_ends_while_kafka_is_frozen(self) -> None:
        """An answer that nobody takes is told as lost, and the process ends."""
        broker = KafkaBroker()
        self.addCleanup(broker.stop)
        await deferToThread(broker.start)
        await deferToThread(broker.create_topics, self.commands, self.events)
        daemon = self.start(self.settings(broker.bootstrap, level="info"))
        await self.until(lambda: self.asterisk.sockets)
        await self.serving(broker.bootstrap)
        self.asterisk.faults.delay = 1
        heard = len(self.asterisk.heard)
        await deferToThread(self.send, broker.bootstrap, "last")
        await self.until(lambda: len(self.asterisk.heard) > heard)
        broker.pause()
        began = time.monotonic()
        daemon.terminate()
        self.assertEqual(await self.ended(daemon.process, 40), 0)
        print(f"\nended with a frozen broker after {time.monotonic() - began:.1f} s")
        self.assertEqual(len(daemon.lines("1 records lost: Kafka is away")), 1)
        self.assertEqual(daemon.lines("Traceback"), [])

    async def test_ends_without_kafka(self) -> None:
        """SIGTERM ends it, though nobody answers."""
        daemon = self.start(self.settings(f"{HOST}:1"))
        await self.until(lambda: self.asterisk.sockets)
        daemon.terminate()
        self.assertEqual(await self.ended(daemon.process), 0)


def _is_alive(pid: int) -> bool:
    """A process that ended and was not waited for is not alive."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
