"""The daemon and the real Asterisk's https and wss."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.services import asterisk, kafka
from tests.integration.services.asterisk import RealAsterisk
from tests.integration.services.certificates import Certificates
from tests.integration.services.kafka import KafkaBroker
from tests.integration.services.ports import HOST
from tests.integration.services.processes import wait_until
from tests.integration.services.proxy import Proxy

LIMIT = 15.0
COMMANDS, EVENTS = "commands", "events"


class Server(RealAsterisk):
    """One Asterisk with TLS for all tests of this module."""

    running: Server | None = None


class AsteriskTlsTests(SynchronousTestCase):
    """Certificates are verified, and what is wrong with one is told."""

    skip = asterisk.missing() or kafka.missing()

    asterisk: RealAsterisk
    broker: KafkaBroker

    @classmethod
    def setUpClass(cls) -> None:
        if cls.skip:
            return
        cls.asterisk = RealAsterisk(tls=True)
        cls.addClassCleanup(cls.asterisk.stop)
        cls.asterisk.start()
        cls.broker = KafkaBroker()
        cls.addClassCleanup(cls.broker.stop)
        cls.broker.start()
        cls.broker.create_topics(COMMANDS, EVENTS)

    def proxy(self, port: int, *settings: str, host: str = HOST) -> Proxy:
        """A daemon for Asterisk at this port; not started yet."""
        lines = (
            "stasis-app = demo",
            f'asterisk.server = "{host}:{port}"',
            f"asterisk.user = {self.asterisk.user}",
            f"asterisk.password = {self.asterisk.password}",
            f'kafka.bootstrap-servers = "{self.broker.bootstrap}"',
            "kafka.consumer-group = proxy",
            f"kafka.commands-topic = {COMMANDS}",
            f"kafka.events-and-responses-topic = {EVENTS}",
            "persistence-store = memory",
            *settings,
        )
        proxy = Proxy("\n".join(lines))
        self.addCleanup(proxy.stop)
        return proxy

    def secure(self, ca: Path | None, *settings: str, host: str = HOST) -> Proxy:
        """A daemon that uses TLS, and trusts this CA or the system's."""
        if ca:
            settings = (*settings, f'asterisk.ca = "{ca}"')
        return self.proxy(
            self.asterisk.tls_port, "asterisk.tls = true", *settings, host=host
        )

    @property
    def ca(self) -> Path:
        return self.asterisk.certificates.ca

    def answer(self, command_id: str) -> tuple[int, str]:
        """Ask for a ping by way of Kafka; the status and ``ping`` of the answer."""
        bootstrap = {"bootstrap.servers": self.broker.bootstrap}
        producer = Producer(bootstrap)
        request = {"method": "GET", "url": "/asterisk/ping"}
        command = {"callContext": "c", "commandId": command_id, "ariCommand": request}
        producer.produce(COMMANDS, json.dumps(command))
        self.assertEqual(producer.flush(LIMIT), 0)
        consumer = Consumer({**bootstrap, "group.id": "test"})
        self.addCleanup(consumer.close)
        consumer.assign([TopicPartition(EVENTS, 0, OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(LIMIT)
            assert message is not None, "no answer"
            record = json.loads(message.value() or b"")
            if record.get("commandId") == command_id:
                payload = record["payload"]
                return payload["status_code"], payload["body"]["ping"]

    def refused(self, proxy: Proxy, text: str, limit: float = LIMIT) -> None:
        """Every attempt has one line with this text, and the proxy is not ready."""
        pattern = re.compile(rf"Websocket to \S+ is down: .*{re.escape(text)}")
        # It never gets ready, so it is not waited for.
        proxy.ready_limit = 0.0
        with self.assertRaisesRegex(Exception, "was not ready"):
            proxy.start()

    def test_over_the_websocket(self) -> None:
        """With the CA the websocket opens, and carries a command."""
        proxy = self.secure(self.ca)
        proxy.start()
        self.assertEqual(self.answer("socket"), (200, "pong"))
        self.assertIn(f"Websocket to wss://{HOST}:", proxy.log.read_text())

    def test_over_https(self) -> None:
        """Commands over HTTP use the same CA."""
        proxy = self.secure(self.ca, "asterisk.rest-over-websocket = off")
        proxy.start()
        self.assertEqual(self.answer("https"), (200, "pong"))

    def test_addresses(self) -> None:
        """The CA is also that of addresses which are given whole, by name."""
        server = f"localhost:{self.asterisk.tls_port}"
        proxy = self.proxy(
            self.asterisk.port,
            f'asterisk.ca = "{self.ca}"',
            f'websocket-uri = "wss://{server}/ari/events?app=demo"',
            f'rest.uri = "https://{server}/ari"',
            "asterisk.rest-over-websocket = off",
        )
        proxy.start()
        self.assertEqual(self.answer("addresses"), (200, "pong"))
