"""Commands under load, an Asterisk that counts them, and all answers to them."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Producer
from twisted.internet import reactor
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.policies import WrappingFactory

from ariproxy.sandbox.asterisk import SimulatedAsterisk
from ariproxy.sandbox.operations import RestAnswer, RestRequest, json_answer
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard
from tests.integration.proxy_case import Records
from tests.integration.services import kafka
from tests.integration.services.ports import HOST, free_port
from tests.integration.services.proxy import Proxy
from tests.integration.test_kafka_confluent import real_cluster
from tests.integration.waiting import WaitingCase

CALLS = 100
RATE = 200
"""Commands in a second."""

LIMIT = 20.0
USER, PASSWORD = "asterisk", "s3cret-of-ari"

_numbers = count()


class Sent(NamedTuple):
    """A command: its id, which is also the token in its url."""

    id: str
    call: str
    method: str


class CountingAsterisk:
    """Answers each request at once or late, and counts it by its token.

    :ivar asked: the tokens of all requests, in the order in which they came.
    :ivar delay: gives the seconds until the answer to the next request.
    """

    def __init__(self) -> None:
        ids = count()
        board = Switchboard(reactor, time.time, lambda: f"id-{next(ids)}", Settings())
        self.server = SimulatedAsterisk(reactor, board, USER, PASSWORD)
        self.server.faults.replace = self._answer
        self.port = free_port()
        self.asked: list[str] = []
        self.delay: Callable[[], float] = lambda: 0.0
        self._connections: Any = WrappingFactory(self.server.site)
        self._listening: Any = None

    def start(self) -> None:
        # Room for all connections at once, as this process has other work than to
        # accept them.
        self._listening = reactor.listenTCP(
            self.port, self._connections, backlog=500, interface=HOST
        )

    async def stop(self) -> None:
        """As killed: nobody listens, and all connections are cut."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        for each in list(self._connections.protocols):
            each.transport.abortConnection()

    def _answer(self, request: RestRequest) -> RestAnswer | None:
        token = request.query.get("variable")
        if request.path != "/asterisk/variable" or token is None:
            self.server.faults.delay = 0
            return None
        self.asked.append(token)
        # The delay that the server reads next is the one of this answer.
        self.server.faults.delay = self.delay()
        if request.method == "GET":
            return json_answer(200, {"value": token})
        return RestAnswer(204, "No Content")


class Answers(Records):
    """All responses of a topic: as they came, with their headers."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.of: dict[str, list[Answer]] = defaultdict(list)
        self.order: list[str] = []
        super().__init__(bootstrap, topic)

    def _read(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            record = json.loads(message.value())
            if record["type"] == "RESPONSE":
                headers = dict(message.headers() or ())
                self.order.append(record["commandId"])
                self.of[record["commandId"]].append(Answer(record, headers))
        self._consumer.close()


class Answer(NamedTuple):
    """A response and the headers of its record."""

    record: dict[str, Any]
    headers: dict[str, bytes]

    @property
    def status(self) -> int:
        return int(self.record["payload"]["status_code"])

    @property
    def body(self) -> Any:
        return self.record["payload"].get("body")

    @property
    def delivery(self) -> int:
        return int(self.headers.get("delivery", b"1"))


class Load:
    """Commands for many calls, of one producer that keeps their order.

    :ivar sent: all of them, as sent.
    """

    def __init__(self, bootstrap: str, topic: str, calls: int) -> None:
        self.sent: list[Sent] = []
        self._topic = topic
        self._calls = calls
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "max.in.flight.requests.per.connection": 1,
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        self._loop = LoopingCall.withCount(self._due)

    def start(self) -> None:
        """Send ``RATE`` commands a second from now on."""
        self._loop.start(1 / RATE)

    async def stop(self) -> None:
        """Send no more; return when Kafka has all."""
        if self._loop.running:
            self._loop.stop()
        await self.flush()

    async def flush(self) -> None:
        left = await deferToThread(self._producer.flush, LIMIT)
        assert left == 0, f"{left} commands not taken by Kafka"

    def send(self, number: int) -> list[Sent]:
        """Send so many at once."""
        for _ in range(number):
            place = len(self.sent)
            turn, call = divmod(place, self._calls)
            method = ("GET", "POST", "PUT", "DELETE")[turn % 4]
            command = Sent(f"command-{place}", f"call-{call}", method)
            url = f"/asterisk/variable?variable={command.id}"
            value = {
                "callContext": command.call,
                "commandId": command.id,
                "ariCommand": {"method": method, "url": url},
            }
            self._producer.produce(self._topic, json.dumps(value), command.call)
            self.sent.append(command)
        return self.sent[-number:]

    def _due(self, ticks: int) -> None:
        self.send(ticks)
        self._producer.poll(0)


class LooseProxy(Proxy):
    """Counts as started as soon as there is a process."""

    def _answers(self) -> bool:
        return True


class BounceCase(WaitingCase):
    """One Asterisk in this process, the daemon as a process, a real Kafka."""

    limit = LIMIT

    skip = kafka.missing()
    timeout = 300

    async def setUp(self) -> None:
        number = next(_numbers)
        self.commands = f"bounce-commands-{number}"
        self.generic = f"bounce-generic-{number}"
        self.events = f"bounce-events-{number}"
        self.broker = real_cluster().broker
        await deferToThread(
            self.broker.create_topics,
            *(self.commands, self.generic, self.events),
            partitions=4,
        )
        self.asterisk = self.new_asterisk()
        self.answers = Answers(self.broker.bootstrap, self.events)
        self.addCleanup(deferToThread, self.answers.stop)
        self.load = self.new_load(self.commands)

    def new_asterisk(self) -> CountingAsterisk:
        asterisk = CountingAsterisk()
        asterisk.start()
        self.addCleanup(asterisk.stop)
        return asterisk

    def new_load(self, topic: str, calls: int = CALLS) -> Load:
        load = Load(self.broker.bootstrap, topic, calls)
        self.addCleanup(load.stop)
        return load

    def proxy(
        self,
        store: str = "persistence-store = memory",
        kind: type[Proxy] = Proxy,
        asterisk: CountingAsterisk | None = None,
        **settings: str,
    ) -> Proxy:
        """A proxy that has not started; ``settings`` with ``__`` for a dot."""
        values = {
            "name": "first",
            "stasis-app": "demo",
            "asterisk.server": f"{HOST}:{(asterisk or self.asterisk).port}",
            "asterisk.user": USER,
            "asterisk.password": PASSWORD,
            "kafka.bootstrap-servers": self.broker.bootstrap,
            "kafka.consumer-group": self.commands,
            "kafka.commands-topic": self.commands,
            "kafka.events-and-responses-topic": self.events,
        }
        values |= {
            name.replace("__", ".").replace("_", "-"): value
            for name, value in settings.items()
        }
        lines = (f'{name} = "{value}"' for name, value in values.items())
        proxy = kind("\n".join([*lines, store]))
        self.addCleanup(deferToThread, proxy.stop)
        return proxy

    async def started(self, *args: Any, **settings: Any) -> Proxy:
        """A proxy that does its work."""
        proxy = self.proxy(*args, **settings)
        await deferToThread(proxy.start)
        return proxy

    # -- what came out of it --------------------------------------------------------

    async def all_answered(self, sent: Iterable[Sent], limit: float = LIMIT) -> None:
        """Wait until each command has an answer at least."""
        missing = {each.id for each in sent}

        def done() -> bool:
            missing.difference_update(self.answers.of.keys())
            return not missing

        began = time.monotonic()
        while not done():
            if time.monotonic() - began > limit:
                some = sorted(missing)[:5]
                self.fail(f"{len(missing)} commands without an answer: {some}")
            await deferLater(reactor, 0.01)

    def repeated_answers(self, sent: Iterable[Sent]) -> int:
        return sum(len(self.answers.of[each.id]) - 1 for each in sent)

    def repeated_requests(self, *asterisks: CountingAsterisk) -> Counter[str]:
        """Which tokens came more than once, and how often."""
        asked = Counter(
            token for each in asterisks or (self.asterisk,) for token in each.asked
        )
        return Counter({token: n for token, n in asked.items() if n > 1})

    def check_true(self, sent: Iterable[Sent], unknown: bool = False) -> int:
        """Each answer is Asterisk's own, to this very command.

        :param unknown: whether a change may have an unknown outcome instead.
        :returns: how many have.
        """
        lost = 0
        for each in sent:
            right = (200, {"value": each.id}) if each.method == "GET" else (204, None)
            for answer in self.answers.of[each.id]:
                found = (answer.status, answer.body)
                if unknown and found != right and each.method != "GET":
                    self.assertEqual(answer.status, 500, each)
                    self.assertEqual(answer.body.get("outcome"), "unknown", answer)
                    lost += 1
                else:
                    self.assertEqual(found, right, each)
        return lost

    def check_order(self, sent: Iterable[Sent], tokens: Iterable[str]) -> None:
        """Commands of each call came in the order in which they were sent.

        Of what came more than once, the first time counts.
        """
        calls = {each.id: each.call for each in sent}
        expected: dict[str, list[str]] = defaultdict(list)
        for token, call in calls.items():
            expected[call].append(token)
        found: dict[str, list[str]] = defaultdict(list)
        for token in dict.fromkeys(tokens):
            if token in calls:
                found[calls[token]].append(token)
        for call, wanted in expected.items():
            self.assertEqual(found[call], [t for t in wanted if t in found[call]])

    # -- time and logs ----------------------------------------------------------------

    def lines(self, proxy: Proxy, pattern: str) -> list[str]:
        """The lines of its log in which the pattern is found."""
        text = proxy.log.read_text(errors="replace")
        return [line for line in text.splitlines() if re.search(pattern, line)]


def has_ended(proxy: Proxy) -> bool:
    """Whether it ended by itself; its status is there for whoever ends it."""
    assert proxy.pid is not None
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, proxy.pid, options) is not None


def resident(proxy: Proxy) -> float:
    """Its resident memory in MB."""
    text = Path(f"/proc/{proxy.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def logarithmic(seed: int, least: float, most: float) -> Callable[[], float]:
    """Seeded numbers, as many between 1 and 2 as between 2 and 4."""
    numbers = random.Random(seed)
    return lambda: least * (most / least) ** numbers.random()
