"""Stores that are stopped, killed, or slow, while calls go on.

``ARI_PROXY_OUTAGE`` is how many seconds an outage lasts, 6 by default: longer than a
time-out, the back-off and a round of health. The outage of 20 s that a site is promised
to survive is tried with it before a release; the figures are then printed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice

from cassandra.cluster import NoHostAvailable
from twisted.internet import reactor
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from ariproxy.store.cassandra_connection import connect
from ariproxy.store.cassandra_schema import schema
from tests.integration.proxy_case import KEY_PREFIX, ProxyCase, Sent
from tests.integration.services import cassandra, kafka, redis
from tests.integration.services.proxy import Proxy
from tests.integration.services.redis import RedisServer
from tests.integration.services.relay import Relay
from tests.integration.test_store_cassandra import KEYSPACES, reading, shared

OUTAGE = float(os.environ.get("ARI_PROXY_OUTAGE", "6"))
RATE = 200
"""Events in a second."""

PATIENCE = 1.0
"""Seconds that the store may delay an event."""

TOLERANCE = 0.5
"""Seconds more, for a busy machine."""


class Load:
    """Calls that begin, go on and end: ever more of them.

    :ivar contexts: what was given with the calls that brought a call context.
    """

    def __init__(self, case: ProxyCase) -> None:
        self.contexts: dict[str, str] = {}
        self._case = case
        self._steps = self._script()
        self._loop = LoopingCall.withCount(self._send)

    def start(self) -> None:
        self._ended = self._loop.start(1 / RATE)

    def stop(self) -> None:
        self._loop.stop()

    def _send(self, ticks: int) -> None:
        for step in islice(self._steps, ticks):
            step()

    def _script(self) -> Iterator[Callable[[], object]]:
        """In ten events one call begins; in forty one of the oldest ends."""
        say = self._case.say
        live: list[str] = []
        for number in count():
            call = f"call-{number}"
            if number % 10 == 0:
                context = f"given-{number}" if number % 20 == 0 else None
                if context is not None:
                    self.contexts[call] = context
                live.append(call)
                yield lambda c=call, x=context: say("StasisStart", c, x)
            elif number % 40 == 5 and len(live) > 10:
                call = live.pop(0)
                yield lambda c=call: say("StasisEnd", c)
                yield lambda c=call: say("ChannelDestroyed", c)
            else:
                # The newest call at times, so that some are known by nothing else.
                call = live[-1] if number % 10 == 1 else live[number * 7 % len(live)]
                yield lambda c=call: say("ChannelDtmfReceived", c)


class OutageCase(ProxyCase):
    """The load, an outage in the middle of it, and what must be true afterwards."""

    store_port: int

    def entries(self, channels: Iterable[str]) -> dict[str, str]:
        """What the store holds for these channels."""
        raise NotImplementedError

    async def through(
        self,
        store: str,
        begin: Callable[[], object],
        end: Callable[[], object],
    ) -> None:
        """Run it.

        :param begin: begins the outage, in a thread; ``end`` ends it.
        """
        proxy = await self.start(store)
        load = Load(self)
        load.start()
        await self.pause(2)
        await deferToThread(begin)
        began = len(self.sent)
        await self.pause(OUTAGE)
        await deferToThread(end)
        ended = len(self.sent)
        await self.pause(2)
        load.stop()
        self.assertGreater(ended - began, 0.8 * RATE * OUTAGE)
        await self.until(lambda: len(self.records.all) >= len(self.sent))
        contexts = self.check_events(load)
        await self.until(lambda: self.entries(contexts) == contexts, 20)
        await deferToThread(proxy.terminate)
        self.assertEqual(proxy.status, 0, proxy.log_tail())
        # Nothing came twice, also not at the end.
        self.assertEqual(len(self.published()), len(self.sent))
        self.check_log(proxy)

    def check_events(self, load: Load) -> dict[str, str]:
        """None lost, none late, each call in its order with one call context."""
        published = self.published()
        lost = [each for each in self.sent if each.number not in published]
        self.assertEqual(lost, [])
        late = max(published[each.number].time - each.time for each in self.sent)
        if "ARI_PROXY_OUTAGE" in os.environ:
            print(f"{len(self.sent)} events, the latest after {late:.3f} s")
        self.assertLess(late, PATIENCE + TOLERANCE)
        order: dict[str, list[int]] = defaultdict(list)
        keys: dict[str, set[str | None]] = defaultdict(set)
        for each in list(self.records.all):
            call = each.record["resources"][0]["id"]
            order[call].append(each.record["payload"]["number"])
            keys[call] |= {each.key, each.record["callContext"]}
        self.assertTrue(all(numbers == sorted(numbers) for numbers in order.values()))
        self.assertEqual([c for c, found in keys.items() if len(found) != 1], [])
        contexts = {call: str(found.pop()) for call, found in keys.items()}
        self.assertEqual(len(set(contexts.values())), len(contexts))
        self.assertEqual(contexts, contexts | load.contexts)
        return contexts

    def check_log(self, proxy: Proxy) -> None:
        """The outage is told, once for each change and not for each event."""
        lines = self.warnings(proxy)
        told = self.warnings(proxy, rf"127\.0\.0\.1:{self.store_port}: .*; ")
        # A connection that is closed, and then refused, are two.
        self.assertIn(len(told), (1, 2), lines)
        self.assertEqual(len(lines), len(told) + 1, lines)
        self.assertEqual(len(self.warnings(proxy, "entries; they are written")), 1)


class RedisOutageTests(OutageCase):
    """Redis without a file: after a restart it is empty."""

    skip = kafka.missing() or redis.missing()

    def setUp(self) -> None:
        super().setUp()
        self.server = RedisServer()
        self.addCleanup(self.server.stop)
        self.server.start()
        self.store_port = self.server.port

    def store(self) -> str:
        return f'redis {{ host = "127.0.0.1", port = {self.server.port}, db = 0 }}'

    def entries(self, channels: Iterable[str]) -> dict[str, str]:
        found = {}
        for channel in channels:
            answer = self.server.ask("GET", KEY_PREFIX + channel)
            if not answer.startswith("$-1"):
                found[channel] = answer.partition("\r\n")[2]
        return found

    async def test_stopped(self) -> None:
        """A Redis that hangs costs a call's start a second, and nothing is lost."""
        await self.through(self.store(), self.server.pause, self.server.resume)

    async def test_killed(self) -> None:
        """A Redis that dies and comes back costs nothing, and is filled again."""
        await self.through(self.store(), self.server.kill, self.server.start)


class CassandraOutageTests(OutageCase):
    """The same with Cassandra."""

    skip = kafka.missing() or cassandra.missing()

    def setUp(self) -> None:
        super().setUp()
        self.node = shared()
        self.store_port = self.node.port
        self.addCleanup(self.mend)
        self.keyspace = f"calls_{next(KEYSPACES)}"
        cluster, self.session = connect(reading(self.node, self.keyspace))
        self.addCleanup(cluster.shutdown)
        for statement in schema(self.keyspace, "", 1):
            self.session.execute(statement, timeout=30)

    def mend(self) -> None:
        """Leave the node as the next test wants it."""
        if self.node.pid is None:
            self.node.start()
        self.node.resume()

    def store(self) -> str:
        return f"""
            persistence-store = cassandra
            }}
            datastax-java-driver.basic {{
              contact-points = ["127.0.0.1:{self.node.port}"]
              session-keyspace = {self.keyspace}
              load-balancing-policy.local-datacenter = {self.node.datacentre}
        """

    def entries(self, channels: Iterable[str]) -> dict[str, str]:
        table = f"{self.keyspace}.retel"
        try:
            rows = self.session.execute(f"SELECT key, value FROM {table}", timeout=5)
        except Exception as error:
            # The session of this test has to come back too.
            self.assertIsInstance(error, NoHostAvailable)
            return {}
        found = {key.removeprefix(KEY_PREFIX): value for key, value in rows}
        return {each: found[each] for each in channels if each in found}

    async def test_stopped(self) -> None:
        """A Cassandra that hangs costs a call's start a second, and loses nothing."""
        await self.through(self.store(), self.node.pause, self.node.resume)

    async def test_killed(self) -> None:
        """Nor one that dies, and has lost what it acknowledged at the end."""
        await self.through(self.store(), self.node.kill, self.node.start)


class SlowRedisTests(ProxyCase):
    """A line to Redis that is slow, silent or cut."""

    skip = kafka.missing() or redis.missing()

    async def begin_behind(self) -> None:
        """Start a proxy behind a relay, with one call that it knows.

        Twenty more are known to Redis only: another proxy has entered them.
        """
        self.server = RedisServer()
        self.addCleanup(self.server.stop)
        self.server.start()
        self.relay = Relay(reactor, self.server.port)
        self.relay.accept()
        self.addCleanup(self.relay.refuse)
        await self.start(
            f'redis {{ host = "127.0.0.1", port = {self.relay.port}, db = 0 }}'
        )
        for number in range(20):
            self.server.ask("SET", f"{KEY_PREFIX}other-{number}", f"of-{number}")
        await self.context_of(self.say("StasisStart", "known", "mine"))

    def say_of_all(self) -> tuple[list[Sent], Sent]:
        """An event of each of the twenty calls, and one of the known one."""
        others = [
            self.say("ChannelDtmfReceived", f"other-{number}") for number in range(20)
        ]
        return others, self.say("ChannelDtmfReceived", "known")

    def waited(self, sent: Sent) -> float:
        return self.published()[sent.number].time - sent.time

    async def arrived(self, others: list[Sent], known: Sent) -> None:
        """All of them come, under the right call context."""
        for number, each in enumerate(others):
            self.assertEqual(await self.context_of(each), f"of-{number}")
        self.assertEqual(await self.context_of(known), "mine")

    async def test_slow(self) -> None:
        """Twenty look-ups run side by side, and hold up the others for one only."""
        await self.begin_behind()
        self.relay.delay = 0.45
        others, known = self.say_of_all()
        await self.arrived(others, known)
        waits = [self.waited(each) for each in others]
        self.assertGreater(min(waits), 0.85)
        self.assertLess(max(waits), 2)
        self.assertLess(self.waited(known), PATIENCE + TOLERANCE)

    async def test_silent(self) -> None:
        """What must be looked up steps aside after a second, and comes later."""
        await self.begin_behind()
        self.relay.stall()
        others, known = self.say_of_all()
        await self.context_of(known)
        self.assertLess(self.waited(known), PATIENCE + TOLERANCE)
        again = self.say("ChannelDtmfReceived", "known")
        await self.context_of(again)
        self.assertLess(self.waited(again), TOLERANCE)
        self.assertEqual([e for e in others if e.number in self.published()], [])
        self.relay.resume()
        await self.arrived(others, known)

    async def test_cut(self) -> None:
        """A connection that is cut in the middle costs nothing but time."""
        await self.begin_behind()
        self.relay.delay = 0.2
        others, known = self.say_of_all()
        await self.pause(0.3)
        self.relay.cut()
        self.relay.delay = 0
        await self.arrived(others, known)
        self.assertLess(self.waited(known), PATIENCE + TOLERANCE)

    async def test_refused(self) -> None:
        """While connections are refused only what must be looked up waits."""
        await self.begin_behind()
        await self.relay.refuse()
        others, known = self.say_of_all()
        await self.context_of(known)
        self.assertLess(self.waited(known), TOLERANCE)
        self.relay.accept()
        await self.arrived(others, known)
