"""Proxies that stop, die, join and leave while commands go on.

In the shape of Kafka Connect's bounce test: every command has a token of its own,
Asterisk counts the tokens, and Kafka tells the answers.

``ARI_PROXY_KILLS`` is how often the proxy is killed at a random moment, 10 by
default; ``ARI_PROXY_FLOOD`` how many commands a slow Asterisk gets at once, 5,000
by default. 100 and 20,000 are worth a try before a release.
"""

from __future__ import annotations

import os
import random
import time

from twisted.internet.threads import deferToThread

from tests.integration.bounce_case import (
    LIMIT,
    BounceCase,
    LooseProxy,
    Sent,
    has_ended,
    logarithmic,
    resident,
)
from tests.integration.services import redis
from tests.integration.services.processes import wait_until
from tests.integration.services.proxy import Proxy
from tests.integration.services.redis import RedisServer

KILLS = int(os.environ.get("ARI_PROXY_KILLS", "10"))
FLOOD = int(os.environ.get("ARI_PROXY_FLOOD", "5000"))
BOUNCES = 3
BETWEEN = 1.5
"""Seconds of load before each bounce."""

FLOWS_AGAIN = 5.0
"""Seconds from the start after a kill to the next answer."""


class CleanTests(BounceCase):
    """SIGTERM and a new start: nobody notices."""

    async def bounce(self, way: str) -> None:
        proxy = await self.started(asterisk__rest_over_websocket=way)
        self.load.start()
        for _ in range(BOUNCES):
            await self.pause(BETWEEN)
            await deferToThread(proxy.terminate)
            self.assertEqual(proxy.status, 0, proxy.log_tail())
            await deferToThread(proxy.start)
        await self.pause(BETWEEN)
        await self.load.stop()
        sent = self.load.sent
        await self.all_answered(sent)
        await deferToThread(proxy.terminate)
        print(f"\n{len(sent)} commands, {BOUNCES} clean bounces, websocket {way}")
        self.assertEqual(self.repeated_answers(sent), 0)
        self.assertEqual(self.repeated_requests(), {})
        self.check_true(sent)
        self.assertEqual(len(self.asterisk.asked), len(sent))
        self.check_order(sent, self.asterisk.asked)
        self.check_order(sent, self.answers.order)

    async def test_http(self) -> None:
        """Over HTTP: one request and one answer each, in order."""
        await self.bounce("off")

    async def test_websocket(self) -> None:
        """Over the websocket as soon as it is usable."""
        await self.bounce("auto")


class HardTests(BounceCase):
    """SIGKILL: nothing lost, and what is repeated is known."""

    timeout = 200 + 5 * KILLS

    async def bounce(self, store: str, delivery: str) -> list[Sent]:
        """Kill and start under load; gives what was sent."""
        proxy = await self.started(store, commands__delivery=delivery)
        # A busy machine needs longer for everything.
        limit = max(FLOWS_AGAIN, 2 * proxy.ready_after)
        self.load.start()
        for _ in range(BOUNCES):
            await self.pause(BETWEEN)
            await self.kill_amid(proxy)
            self.assertLess(await self.flows_again(proxy), limit)
        await self.pause(BETWEEN)
        await self.load.stop()
        await self.all_answered(self.load.sent)
        self.report(f"{BOUNCES} hard bounces", delivery)
        self.check_order(self.load.sent, self.asterisk.asked)
        return self.load.sent

    async def kill_amid(self, proxy: Proxy) -> None:
        """Kill it while Asterisk owes it answers."""
        self.asterisk.delay = lambda: 0.2
        asked = len(self.asterisk.asked)
        await self.until(lambda: len(self.asterisk.asked) >= asked + 20)
        await deferToThread(proxy.kill)
        self.asterisk.delay = lambda: 0.0

    async def flows_again(self, proxy: Proxy) -> float:
        """Start it again; gives the seconds until a new command is answered."""
        seen = len(self.asterisk.asked)
        began = time.monotonic()
        starting = deferToThread(proxy.start)
        await self.until(lambda: len(self.asterisk.asked) > seen)
        asked = time.monotonic() - began
        [probe] = self.load.send(1)
        await self.all_answered([probe])
        answered = time.monotonic() - began
        await starting
        print(f"\nafter a kill: first request {asked:.2f} s, answers {answered:.2f} s")
        return answered

    def report(self, what: str, delivery: str) -> None:
        sent = self.load.sent
        again = self.repeated_requests()
        unknown = sum(
            answer.status == 500 for each in sent for answer in self.answers.of[each.id]
        )
        print(
            f"\n{delivery}: {len(sent)} commands, {what}: "
            f"{self.repeated_answers(sent)} answers repeated, "
            f"{sum(again.values()) - len(again)} requests repeated, "
            f"{unknown} answers with unknown outcome"
        )

    def check_at_most_once(self) -> None:
        """No change was asked for twice, and repetitions are marked as such."""
        sent = self.load.sent
        again = self.repeated_requests()
        twice = [each for each in sent if each.method != "GET" and each.id in again]
        self.assertEqual(twice, [])
        for each in sent:
            first, *others = self.answers.of[each.id]
            for answer in others:
                self.assertGreater(answer.delivery, 1, each)
            for answer in (first, *others):
                if answer.status == 500:
                    self.assertNotEqual(each.method, "GET")
                    self.assertEqual(answer.body["outcome"], "unknown")
                    self.assertGreater(answer.delivery, 1, each)
        self.assertTrue(
            any(a.delivery > 1 for each in sent for a in self.answers.of[each.id])
        )

    async def test_at_least_once(self) -> None:
        """Each command has its answer, be it twice."""
        sent = await self.bounce("persistence-store = memory", "at-least-once")
        self.check_true(sent)
        self.assertTrue(self.repeated_requests())

    async def test_at_most_once(self) -> None:
        """Marks in a file: no change is asked for twice."""
        path = self.mktemp()
        store = f"""
            persistence-store = sqlite
            sqlite {{ url = "jdbc:sqlite:{os.path.abspath(path)}", ttl = 6h }}
        """
        await self.bounce(store, "at-most-once")
        self.check_at_most_once()

    async def test_first_start(self) -> None:
        """What is sent as soon as it is ready is answered, were it killed at once."""
        proxy = await self.started()
        sent = self.load.send(10)
        await deferToThread(proxy.kill)
        await self.load.flush()
        await deferToThread(proxy.start)
        await self.all_answered(sent)

    async def kill_at_random(self, store: str, delivery: str) -> None:
        """Kill it, again and again, wherever it stands, also while it starts."""
        proxy = await self.started(store, LooseProxy, commands__delivery=delivery)
        self.assertTrue(await deferToThread(wait_until, proxy.is_ready, LIMIT))
        await deferToThread(proxy.kill)
        moments = random.Random(20)
        self.load.start()
        for _ in range(KILLS):
            await deferToThread(proxy.start)
            await self.pause(moments.uniform(0.3, 3.0))
            await deferToThread(proxy.kill)
        await self.load.stop()
        await deferToThread(proxy.start)
        await self.all_answered(self.load.sent, 2 * LIMIT)
        self.report(f"{KILLS} kills", delivery)
        self.check_order(self.load.sent, self.asterisk.asked)

    async def test_random_kills(self) -> None:
        """Each command has its answer, and only true ones."""
        await self.kill_at_random("persistence-store = memory", "at-least-once")
        self.check_true(self.load.sent)

    async def test_random_kills_at_most_once(self) -> None:
        """Marks in Redis: no change is asked for twice."""
        server = RedisServer()
        self.addCleanup(deferToThread, server.stop)
        await deferToThread(server.start)
        store = f'redis {{ host = "{server.host}", port = {server.port}, db = 0 }}'
        await self.kill_at_random(store, "at-most-once")
        self.check_at_most_once()

    test_random_kills_at_most_once.skip = redis.missing()  # type: ignore[attr-defined]


class RebalanceTests(BounceCase):
    """A second proxy of the same group comes and goes."""

    async def test_joins_and_leaves(self) -> None:
        """Nothing is lost, in no order but that of each call."""
        first = await self.started()
        self.load.start()
        await self.pause(BETWEEN)
        second = await self.started(name="second", stasis_app="other")
        await self.until(lambda: second.metric("ari_proxy_outgoing_requests_total"))
        await self.pause(BETWEEN)
        began = time.monotonic()
        await deferToThread(second.terminate)
        self.assertEqual(second.status, 0)
        await self.until(lambda: len(self.lines(first, "Consuming .* 0, 1, 2, 3")) > 1)
        taken_over = time.monotonic() - began
        await self.load.stop()
        sent = self.load.sent
        await self.all_answered(sent)
        print(
            f"\n{len(sent)} commands, one joined and left: all its partitions taken "
            f"over after {taken_over:.1f} s, {self.repeated_answers(sent)} answers and "
            f"{len(self.repeated_requests())} requests repeated"
        )
        self.check_true(sent)
        self.check_order(sent, self.asterisk.asked)


class GenericTests(BounceCase):
    """Commands that any node may run."""

    async def test_asterisk_stops(self) -> None:
        """The other node runs all of them, until this one's Asterisk is back."""
        asterisks = self.asterisk, self.new_asterisk()
        nodes = []
        for name, asterisk in zip(("first", "second"), asterisks, strict=True):
            commands = f"{self.commands}-{name}"
            await deferToThread(self.broker.create_topics, commands)
            nodes.append(
                await self.started(
                    asterisk=asterisk,
                    name=name,
                    stasis_app=name,
                    kafka__commands_topic=commands,
                    kafka__generic_commands_topic=self.generic,
                )
            )
        self.load = self.new_load(self.generic)
        await self.until(lambda: self.shared(nodes), 30)
        self.load.start()
        await self.until(lambda: all(each.asked for each in asterisks))
        await self.pause(BETWEEN)
        await asterisks[0].stop()
        away = time.monotonic()
        await self.until(
            lambda: self.lines(nodes[1], f"Consuming {self.generic}.* 0, 1, 2, 3")
        )
        print(f"\ntaken over by the other node after {time.monotonic() - away:.1f} s")
        before = len(asterisks[0].asked)
        while_away = self.load.send(200)
        await self.load.flush()
        await self.all_answered(while_away)
        self.assertEqual(len(asterisks[0].asked), before)
        for each in while_away:
            [answer] = self.answers.of[each.id]
            self.assertEqual(
                answer.record["commandsTopic"], f"{self.commands}-second", each
            )
        asterisks[0].start()
        back = await self.until(lambda: len(asterisks[0].asked) > before, 40)
        print(f"its share again after {back:.1f} s")
        await self.load.stop()
        await self.all_answered(self.load.sent)
        # None was told that Asterisk is away: also what was read by then is run.
        unknown = self.check_true(self.load.sent, unknown=True)
        print(
            f"{len(self.load.sent)} generic commands: "
            f"{self.repeated_answers(self.load.sent)} answers repeated, "
            f"{unknown} with unknown outcome"
        )

    def shared(self, nodes: list[Proxy]) -> bool:
        """Whether each node has two of the four partitions."""
        pattern = rf"Consuming {self.generic}, partitions \d, \d$"
        return all(self.lines(each, pattern) for each in nodes)


class AwayTests(BounceCase):
    """No Asterisk, or none for us any more."""

    async def test_away(self) -> None:
        """A thousand commands are told why at once; the next one works at once."""
        await self.started()
        await self.asterisk.stop()
        began = time.monotonic()
        sent = self.load.send(1000)
        await self.load.flush()
        await self.all_answered(sent)
        took = time.monotonic() - began
        for each in sent:
            [answer] = self.answers.of[each.id]
            self.assertEqual((answer.status, answer.body["proxy"]), (500, True))
            self.assertIn("no connection to", answer.body["message"])
        self.asterisk.start()
        began = time.monotonic()
        [one] = self.load.send(1)
        await self.load.flush()
        await self.all_answered([one])
        next_one = time.monotonic() - began
        print(f"\n1,000 told in {took:.2f} s, the next one run in {next_one:.3f} s")
        self.check_true([one])
        self.assertLess(took, 10)
        self.assertLess(next_one, 1)

    async def test_replaced(self) -> None:
        """After ApplicationReplaced nothing is consumed; a new start goes on."""
        proxy = await self.started()
        self.load.start()
        await self.pause(BETWEEN)
        self.asterisk.server.send_raw(
            b'{"type": "ApplicationReplaced", "application": "demo"}'
        )
        await self.until(lambda: self.lines(proxy, "Stopping: no new"))
        later = self.load.send(100)
        await self.load.stop()
        await self.until(lambda: has_ended(proxy))
        asked = set(self.asterisk.asked)
        self.assertEqual([each for each in later if each.id in asked], [])
        await deferToThread(proxy.terminate)
        self.assertEqual(proxy.status, 0)
        await deferToThread(proxy.start)
        sent = self.load.sent
        await self.all_answered(sent)
        self.assertEqual(self.repeated_answers(sent), 0)
        self.assertEqual(self.repeated_requests(), {})
        self.check_true(sent)


class FloodTests(BounceCase):
    """More than a slow Asterisk can do."""

    timeout = 100 + FLOOD // 20

    async def test_slow_asterisk(self) -> None:
        """All answers are true, memory is bounded, the group is not left."""
        proxy = await self.started()
        idle = resident(proxy)
        self.asterisk.delay = logarithmic(8, 0.02, 3.0)
        self.load = self.new_load(self.commands, 1000)
        sent = self.load.send(FLOOD)
        began = time.monotonic()
        await self.load.flush()
        most = idle
        while len(self.answers.order) < FLOOD:
            most = max(most, resident(proxy))
            await self.pause(0.2)
            self.assertLess(time.monotonic() - began, FLOOD / 20)
        took = time.monotonic() - began
        print(
            f"\n{FLOOD} commands in {took:.1f} s; memory {idle:.0f} MB idle, "
            f"{most:.0f} MB at most"
        )
        self.assertEqual(self.repeated_answers(sent), 0)
        self.assertEqual(self.repeated_requests(), {})
        self.check_true(sent)
        self.check_order(sent, self.asterisk.asked)
        self.assertLess(most - idle, 60)
        self.assertEqual(len(self.lines(proxy, "onsuming ")), 1)
