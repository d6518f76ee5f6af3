"""Commands that cannot be read: buried by the daemon, mended from the console."""

from __future__ import annotations

import json
import subprocess
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from twisted.internet.threads import deferToThread

from tests.integration.proxy_case import LIMIT, ProxyCase
from tests.integration.services.proxy import CHECKOUT, Proxy

BROKEN = (b'{"callContext":', b"\xff\xfe", b"[1]")
MENDED = b"""
{"callContext": "call-1", "commandId": "mended",
 "ariCommand": {"method": "GET", "url": "/channels"}}
"""


class DeadLetterTests(ProxyCase):
    """The daemon, a real Kafka and ``ari-proxy dead-letters``."""

    def console(self, proxy: Proxy, *arguments: str, stdin: bytes = b"") -> str:
        """What the command says on stdout, when all is well."""
        status, out, err = self.attempt(proxy, *arguments, stdin=stdin)
        self.assertEqual((status, err), (0, ""))
        return out

    def attempt(
        self, proxy: Proxy, *arguments: str, stdin: bytes = b""
    ) -> tuple[int, str, str]:
        """Status, stdout and stderr."""
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "ariproxy.cli", "dead-letters"),
                *(str(proxy.config), *arguments),
            ],
            cwd=CHECKOUT,
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    def send_broken(self) -> None:
        producer = Producer(
            {"bootstrap.servers": self.broker.bootstrap, "log_level": 0}
        )
        for number, value in enumerate(BROKEN):
            producer.produce(self.commands, value, f"call-{number}")
        self.assertEqual(producer.flush(LIMIT), 0)

    def buried(self, letters: str) -> int:
        """How many records the topic has."""
        consumer = Consumer(
            {"bootstrap.servers": self.broker.bootstrap, "group.id": "test"}
        )
        found = [
            consumer.get_watermark_offsets(TopicPartition(letters, each), LIMIT)
            for each in range(4)
        ]
        consumer.close()
        return sum(end for _, end in found)

    def status_of(self, command_id: str) -> list[int]:
        """The status of each answer to this command."""
        return [
            each.record["payload"]["status_code"]
            for each in list(self.records.all)
            if each.record.get("commandId") == command_id
        ]

    async def test_mended(self) -> None:
        """Three are broken, one is good; a broken one is mended and answered."""
        letters = f"{self.commands}-letters"
        self.broker.create_topics(letters, partitions=4)
        store = f"persistence-store = memory\nkafka.dead-letter-topic = {letters}"
        proxy = await self.start(store)
        await self.until(lambda: "Consuming" in proxy.log.read_text())
        await deferToThread(self.send_broken)
        self.assertEqual(await self.carried_out("call-1", "GET", "/channels"), 200)

        # Partitions are read in any order: the good one need not be the last.
        await self.until(lambda: self.buried(letters) == len(BROKEN))
        out = await deferToThread(self.console, proxy, "list", "--json")
        found = {each["size"]: each for each in map(json.loads, out.splitlines())}
        self.assertEqual(sorted(found), sorted(map(len, BROKEN)))
        for each in found.values():
            self.assertEqual(each["from"]["topic"], self.commands)
            self.assertTrue(each["error"])
        place = f"{found[2]['partition']}/{found[2]['offset']}"
        out = await deferToThread(self.console, proxy, "show", place)
        self.assertIn("key:     call-1\n", out)
        self.assertTrue(out.endswith("\n\nbase64 //4=\n"), out)

        out = await deferToThread(
            lambda: self.console(proxy, "send", place, "--value", "-", stdin=MENDED)
        )
        self.assertIn(f"{place} sent again: {self.commands}/", out)
        await self.until(lambda: self.status_of("mended"))
        self.assertEqual(self.status_of("mended"), [200])
        # Nobody has joined the daemon's group, and the letters are still there.
        self.assertNotIn("No longer consuming", proxy.log.read_text())
        out = await deferToThread(self.console, proxy, "list")
        self.assertEqual(len(out.splitlines()), 3)

    async def test_no_such_topic(self) -> None:
        """The topic of the letters, or the one that a letter is sent to."""
        letters = f"{self.commands}-letters"
        store = f"persistence-store = memory\nkafka.dead-letter-topic = {letters}"
        proxy = Proxy(self.settings(store))
        self.addCleanup(proxy.stop)
        missing = "Kafka has no such topic\n"
        self.assertEqual(
            await deferToThread(self.attempt, proxy, "list"),
            (1, "", f"ari-proxy: {letters}: {missing}"),
        )
        self.broker.create_topics(letters)
        producer = Producer(
            {"bootstrap.servers": self.broker.bootstrap, "log_level": 0}
        )
        producer.produce(letters, b"x", headers=[("topic", b"no-such")])
        self.assertEqual(await deferToThread(producer.flush, LIMIT), 0)
        self.assertEqual(
            await deferToThread(self.attempt, proxy, "send", "0/0"),
            (1, "", f"ari-proxy: no-such: {missing}"),
        )
