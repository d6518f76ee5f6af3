"""The whole job: callers, a real Asterisk, a real Kafka, the daemon, a controller."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.resources import EVENT_TYPES, match
from ariproxy.sandbox.controller import Controller, Observer, Settings
from tests.integration.services import asterisk, kafka, sipp
from tests.integration.services.asterisk import RealAsterisk
from tests.integration.services.kafka import KafkaBroker
from tests.integration.services.processes import wait_until
from tests.integration.services.proxy import Proxy
from tests.integration.services.sipp import SippCalls

APP = "demo"
COMMANDS, EVENTS = "ari-commands", "ari-events"
PARTITIONS = 4


class CallTests(SynchronousTestCase):
    """Calls by SIPp, served by the sample controller over Kafka."""

    skip = kafka.missing() or asterisk.missing() or sipp.missing()

    def setUp(self) -> None:
        self.asterisk = self.started(RealAsterisk(APP))
        self.broker = self.started(KafkaBroker())
        self.broker.create_topics(COMMANDS, EVENTS, partitions=PARTITIONS)
        self.proxy = Proxy(
            f"""
            stasis-app = {APP}
            asterisk {{
              server = "127.0.0.1:{self.asterisk.port}"
              user = {self.asterisk.user}
              password = {self.asterisk.password}
            }}
            kafka {{
              bootstrap-servers = "{self.broker.bootstrap}"
              consumer-group = ari-proxy
              commands-topic = {COMMANDS}
              events-and-responses-topic = {EVENTS}
            }}
            persistence-store = sqlite
            sqlite {{ url = "jdbc:sqlite::memory:", ttl = 6h }}
            """
        )
        self.started(self.proxy)
        self.sent: list[dict[str, Any]] = []
        self.ended: list[tuple[str, bool]] = []
        self.serve()

    def started(self, server: Any) -> Any:
        self.addCleanup(server.stop)
        server.start()
        return server

    def serve(self) -> None:
        """Run the controller, and return when its commands are answered."""
        answered = threading.Event()
        probe: list[str] = []

        def received(record: dict[str, Any]) -> None:
            if record.get("commandId") in probe:
                answered.set()

        controller = Controller(
            Settings(
                bootstrap_servers=self.broker.bootstrap,
                commands_topic=COMMANDS,
                events_topic=EVENTS,
                app=APP,
                callee="Local/3001@calls/n",
            ),
            Observer(
                self.sent.append,
                received,
                lambda context, well: self.ended.append((context, well)),
            ),
        )
        thread = threading.Thread(target=controller.run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(controller.stop)

        def asked() -> bool:
            # What is answered before the consumer has its partitions is missed.
            probe.append(controller.send(None, "GET", "/asterisk/ping"))
            return answered.wait(0.5)

        self.assertTrue(wait_until(asked, 15))

    def read_all(self) -> list[Any]:
        """Every record of the events topic, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.broker.bootstrap, "group.id": "checker"}
        )
        try:
            partitions = [TopicPartition(EVENTS, n, 0) for n in range(PARTITIONS)]
            end = sum(consumer.get_watermark_offsets(each)[1] for each in partitions)
            consumer.assign(partitions)
            records: list[Any] = []
            while len(records) < end:
                message = consumer.poll(5)
                self.assertIsNotNone(message, f"only {len(records)} of {end} records")
                self.assertIsNone(message.error())
                records.append(message)
            return records
        finally:
            consumer.close()

    def test_calls(self) -> None:
        """Every record of every call is as it should be, from start to end."""
        contexts = [f"given-{number}" for number in range(5)]
        numbers = ["1000"] * 5 + [f"2{context}" for context in contexts]
        with SippCalls(
            self.asterisk.sip_port,
            numbers,
            hangs_up="asterisk",
            rate=5,
            limit_seconds=30,
        ) as calls:
            count = calls.wait(40)
        self.assertEqual((count.successful, count.failed), (10, 0), calls.errors())
        self.assertTrue(wait_until(lambda: len(self.ended) == 10, 10), self.ended)
        self.assertEqual([well for _, well in self.ended], [True] * 10)
        self.proxy.terminate()
        self.assertEqual(self.proxy.status, 0, self.proxy.log_tail())
        calls_of = self.by_call_context(self.read_all())
        self.assertEqual(len(calls_of), 10)
        self.assertTrue(set(contexts) <= set(calls_of))
        for context, records in calls_of.items():
            self.check_call(context, records)

    def by_call_context(self, messages: list[Any]) -> dict[str, list[dict[str, Any]]]:
        """The records of each call in their order; one partition holds them all."""
        calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        partitions = defaultdict(set)
        for message in messages:
            record = json.loads(message.value())
            context = record.get("callContext")
            key = None if message.key() is None else message.key().decode()
            self.assertEqual(key, context)
            if context is not None:
                calls[context].append(record)
                partitions[context].add(message.partition())
        self.assertTrue(all(len(each) == 1 for each in partitions.values()))
        return calls

    def check_call(self, context: str, records: list[dict[str, Any]]) -> None:
        types = [record["type"] for record in records]
        self.assertEqual(types[0], "STASIS_START")
        for kind, times in {
            "STASIS_START": 2,
            "STASIS_END": 2,
            "PLAYBACK_STARTED": 1,
            "PLAYBACK_FINISHED": 1,
            "CHANNEL_ENTERED_BRIDGE": 2,
            "CHANNEL_LEFT_BRIDGE": 2,
            "RECORDING_STARTED": 1,
            "RECORDING_FINISHED": 1,
        }.items():
            self.assertEqual(types.count(kind), times, (kind, types))
        known = {each.name: each for each in EVENT_TYPES.values()}
        for record in records:
            self.assertEqual(record["commandsTopic"], COMMANDS)
            if record["type"] == "RESPONSE":
                continue
            self.assertEqual(record["commandId"], None)
            self.assertEqual(record["commandRequest"], None)
            kind = known[record["type"]].kind
            found = [each["type"] for each in record["resources"]]
            self.assertEqual(found, [kind] if kind else [])
        self.check_order(records)
        self.check_answers(context, records)

    def check_order(self, records: list[dict[str, Any]]) -> None:
        """Asterisk's own times never go back within one resource."""
        last: dict[str, str] = {}
        for record in records:
            if record["type"] != "RESPONSE" and record["resources"]:
                resource = record["resources"][0]["id"]
                time = record["payload"]["timestamp"]
                self.assertGreaterEqual(time, last.get(resource, ""))
                last[resource] = time

    def check_answers(self, context: str, records: list[dict[str, Any]]) -> None:
        """Each command has one answer, in order, with what it names."""
        commands = [each for each in self.sent if each.get("callContext") == context]
        answers = [each for each in records if each["type"] == "RESPONSE"]
        self.assertEqual(
            [each["commandId"] for each in answers],
            [each["commandId"] for each in commands],
        )
        for command, answer in zip(commands, answers, strict=True):
            asked = command["ariCommand"]
            self.assertEqual(
                answer["commandRequest"],
                {"method": asked["method"], "url": asked["url"]},
            )
            self.assertIn(answer["payload"]["status_code"], (200, 201, 204))
            named = [
                {"type": each.type, "id": each.id} for each in match(asked["url"])[1]
            ]
            created = asked["body"] or {}
            for kind, field in ("PLAYBACK", "playbackId"), ("RECORDING", "name"):
                if field in created:
                    named.insert(0, {"type": kind, "id": created[field]})
            self.assertEqual(answer["resources"], named)
