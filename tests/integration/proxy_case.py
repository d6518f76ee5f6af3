"""The daemon between a scripted Asterisk, a real Kafka and a store."""

from __future__ import annotations

import json
import re
import threading
import time
from itertools import count
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from ariproxy.sandbox.asterisk import SimulatedAsterisk
from ariproxy.sandbox.operations import RestAnswer, RestRequest, json_answer
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard
from tests.integration.services import kafka
from tests.integration.services.ports import HOST
from tests.integration.services.proxy import Proxy
from tests.integration.test_kafka_confluent import real_cluster
from tests.integration.waiting import WaitingCase

APP = "demo"
KEY_PREFIX = "ari-proxy:call-context-provider:"
LIMIT = 10.0

_numbers = count()


class Sent(NamedTuple):
    """An event as it was sent: its number, resource, type and time."""

    number: int
    resource: str
    type: str
    time: float


class Received(NamedTuple):
    """A record as it came: its key, its JSON, and when it was here."""

    key: str | None
    record: dict[str, Any]
    time: float


class Records:
    """Reads a topic from its start, in a thread, until it is stopped."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.all: list[Received] = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "test",
                "fetch.wait.max.ms": 10,
                "log_level": 0,
            }
        )
        found = self._consumer.list_topics(topic, LIMIT).topics[topic]
        self._consumer.assign([TopicPartition(topic, n, 0) for n in found.partitions])
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                key = message.key()
                text = None if key is None else key.decode()
                record = json.loads(message.value())
                self.all.append(Received(text, record, time.monotonic()))
        self._consumer.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


class LiveProxy(Proxy):
    """Counts as started when it lives, whatever it thinks of its surroundings."""

    def is_ready(self) -> bool:
        return self.get("/health/live")[0] == 200


class ProxyCase(WaitingCase):
    """Sends events of our own making, and sees what comes out of Kafka.

    :ivar live: the ids of channels that Asterisk lists.
    """

    limit = LIMIT

    skip = kafka.missing()
    timeout = 120

    def setUp(self) -> None:
        ids = count()
        board = Switchboard(reactor, time.time, lambda: f"id-{next(ids)}", Settings())
        self.asterisk = SimulatedAsterisk(reactor, board, "asterisk", "s3cret-of-ari")
        self.asterisk.faults.replace = self.answered
        port = reactor.listenTCP(0, self.asterisk.site, interface=HOST)
        self.asterisk_port = port.getHost().port
        self.addCleanup(port.stopListening)
        number = next(_numbers)
        self.commands, self.events = f"out-commands-{number}", f"out-events-{number}"
        self.broker = real_cluster().broker
        self.broker.create_topics(self.commands, self.events, partitions=4)
        self.records = Records(self.broker.bootstrap, self.events)
        self.addCleanup(deferToThread, self.records.stop)
        self.sent: list[Sent] = []
        self.live: list[str] = []
        self.statuses: dict[str, int] = {}
        self._serial = count()

    # -- Asterisk -----------------------------------------------------------------

    def answered(self, request: RestRequest) -> RestAnswer | None:
        """What Asterisk says; creating things succeeds unless ``statuses`` says no."""
        if (request.method, request.path) == ("GET", "/channels"):
            return json_answer(200, [{"id": each} for each in self.live])
        if request.method == "POST":
            return json_answer(self.statuses.get(request.path, 201), {})
        return None

    def say(
        self, kind: str, resource: str, call_context: str | None = None, **more: Any
    ) -> Sent:
        """Send an event of a channel, or what ``more`` makes of it."""
        channel: dict[str, Any] = {"id": resource, "name": f"PJSIP/{resource}"}
        if call_context is not None:
            channel["channelvars"] = {"CALL_CONTEXT": call_context}
        sent = Sent(next(self._serial), resource, kind, time.monotonic())
        event = {"type": kind, "application": APP, "number": sent.number}
        event |= more or {"channel": channel}
        self.asterisk.send_raw(json.dumps(event).encode())
        self.sent.append(sent)
        return sent

    # -- the proxy ------------------------------------------------------------------

    async def start(
        self, store: str, kind: type[Proxy] = Proxy, **settings: str
    ) -> Proxy:
        """Start a proxy and wait for its websocket."""
        proxy = kind(self.settings(store, **settings))
        self.addCleanup(deferToThread, proxy.stop)
        await self.begin(proxy)
        return proxy

    async def begin(self, proxy: Proxy) -> None:
        """Start it, perhaps again."""
        await deferToThread(proxy.start)
        await self.until(lambda: self.asterisk.sockets)

    def settings(self, store: str, **more: str) -> str:
        lines = "\n".join(f"{name} = {value}" for name, value in more.items())
        return f"""
            stasis-app = {APP}
            asterisk {{
              server = "{HOST}:{self.asterisk_port}"
              user = asterisk
              password = s3cret-of-ari
            }}
            kafka {{
              bootstrap-servers = "{self.broker.bootstrap}"
              consumer-group = {self.commands}
              commands-topic = {self.commands}
              events-and-responses-topic = {self.events}
            }}
            {lines}
            {store}
        """

    # -- Kafka ----------------------------------------------------------------------

    def command(self, call_context: str, method: str, url: str, **body: str) -> str:
        """What a controller sends; gives the id of the command."""
        command_id = f"command-{next(self._serial)}"
        asked: dict[str, Any] = {"method": method, "url": url}
        if body:
            asked["body"] = body
        value = {
            "callContext": call_context,
            "commandId": command_id,
            "ariCommand": asked,
        }
        producer = Producer(
            {"bootstrap.servers": self.broker.bootstrap, "log_level": 0}
        )
        producer.produce(self.commands, json.dumps(value), call_context)
        self.assertEqual(producer.flush(LIMIT), 0)
        return command_id

    async def carried_out(
        self, call_context: str, method: str, url: str, **body: str
    ) -> int:
        """Send a command and wait for its answer; gives the status."""
        command_id = self.command(call_context, method, url, **body)

        def answers() -> list[int]:
            return [
                each.record["payload"]["status_code"]
                for each in list(self.records.all)
                if each.record.get("commandId") == command_id
            ]

        await self.until(answers)
        return answers()[0]

    def published(self) -> dict[int, Received]:
        """The events in Kafka by their number; none is there twice."""
        found: dict[int, Received] = {}
        for each in list(self.records.all):
            number = each.record["payload"].get("number")
            if number is not None:
                self.assertNotIn(number, found, "doubled")
                found[number] = each
        return found

    async def context_of(self, sent: Sent, limit: float = LIMIT) -> str | None:
        """Wait for the record of an event; gives its call context."""
        await self.until(lambda: sent.number in self.published(), limit)
        return self.published()[sent.number].record["callContext"]

    async def nothing_of(self, sent: Sent) -> None:
        """An event of a fresh call is published, and this earlier one is not."""
        call = f"fence-{next(self._serial)}"
        await self.context_of(self.say("StasisStart", call, call))
        self.assertNotIn(sent.number, self.published())

    # -- time, logs, health -------------------------------------------------------

    def warnings(self, proxy: Proxy, pattern: str = "") -> list[str]:
        """Its lines at level warn and above in which the pattern is found."""
        lines = proxy.log.read_text(errors="replace").splitlines()
        loud = [line for line in lines if re.search(r" (warn|error|critical) ", line)]
        return [line for line in loud if re.search(pattern, line)]

    async def health(self, proxy: Proxy) -> tuple[list[str], dict[str, Any]]:
        """The errors of the backing services, and the readiness."""
        first = await deferToThread(proxy.get, "/health/backing-services")
        second = await deferToThread(proxy.get, "/health/ready")
        return json.loads(first[1])["errors"], json.loads(second[1])
