"""The daemon and the real Asterisk's https and wss."""

from __future__ import annotations

import atexit
import json
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.services import asterisk, kafka
from tests.integration.services.asterisk import RealAsterisk
from tests.integration.services.certificates import Certificates
from tests.integration.services.ports import HOST
from tests.integration.services.processes import ServerFailed
from tests.integration.services.proxy import Proxy
from tests.integration.test_kafka_confluent import real_cluster

LIMIT = 15.0
TLS = "asterisk.tls = true"
HTTP = "asterisk.rest-over-websocket = off"

_numbers = count()


class Daemon(Proxy):
    """A daemon that may also count as started when it told what is wrong."""

    refuses = False

    def is_ready(self) -> bool:
        return bool(self.lines(" is down: ")) if self.refuses else super().is_ready()

    def lines(self, text: str) -> list[str]:
        """What it wrote, only lines that hold this text."""
        written = self.log.read_text(errors="replace").splitlines()
        return [line for line in written if text in line]


@cache
def real_asterisk() -> RealAsterisk:
    """One for all tests of this module."""
    server = RealAsterisk(tls=True)
    atexit.register(server.stop)
    server.start()
    return server


class TlsCase(SynchronousTestCase):
    """An Asterisk with TLS, and topics of their own for each test."""

    skip = asterisk.missing() or kafka.missing()

    def setUp(self) -> None:
        self.asterisk = real_asterisk()
        self.bootstrap = f"{HOST}:1"
        number = next(_numbers)
        self.commands, self.events = f"tls-commands-{number}", f"tls-events-{number}"

    def daemon(self, server: str, *settings: str) -> Daemon:
        """A daemon for Asterisk at this address; not started yet."""
        lines = (
            "stasis-app = demo",
            f'asterisk.server = "{server}"',
            f"asterisk.user = {self.asterisk.user}",
            f"asterisk.password = {self.asterisk.password}",
            f'kafka.bootstrap-servers = "{self.bootstrap}"',
            f"kafka.consumer-group = {self.commands}",
            f"kafka.commands-topic = {self.commands}",
            f"kafka.events-and-responses-topic = {self.events}",
            "persistence-store = memory",
            *settings,
        )
        daemon = Daemon("\n".join(lines))
        self.addCleanup(daemon.stop)
        return daemon

    @property
    def secure(self) -> str:
        """Where Asterisk has TLS."""
        return f"{HOST}:{self.asterisk.tls_port}"

    @property
    def ca(self) -> str:
        """The setting for the CA of Asterisk's certificate."""
        return f'asterisk.ca = "{self.asterisk.certificates.ca}"'


class ServingTests(TlsCase):
    """A command goes by Kafka to Asterisk and back."""

    def setUp(self) -> None:
        super().setUp()
        self.bootstrap = real_cluster().bootstrap
        real_cluster().broker.create_topics(self.commands, self.events)

    def assert_serves(self, daemon: Daemon, address: str) -> None:
        daemon.start()
        [line] = daemon.lines(" is open")
        self.assertIn(f"Websocket to wss://{address}/ari/events?", line)
        self.assertEqual(self.pinged(), (200, "pong"))
        self.assertEqual(daemon.lines(" is down: "), [])

    def pinged(self) -> tuple[int, str]:
        """Have Asterisk pinged; the status and ``ping`` of the answer."""
        producer = Producer({"bootstrap.servers": self.bootstrap})
        request = {"method": "GET", "url": "/asterisk/ping"}
        producer.produce(self.commands, json.dumps({"ariCommand": request}))
        self.assertEqual(producer.flush(LIMIT), 0)
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test"})
        self.addCleanup(consumer.close)
        consumer.assign([TopicPartition(self.events, 0, OFFSET_BEGINNING)])
        message = consumer.poll(LIMIT)
        assert message is not None, "no answer"
        payload = json.loads(message.value() or b"")["payload"]
        return payload["status_code"], payload["body"]["ping"]

    def test_websocket(self) -> None:
        """With the CA the websocket opens, and carries the command."""
        self.assert_serves(self.daemon(self.secure, TLS, self.ca), self.secure)

    def test_https(self) -> None:
        """A command over HTTP trusts the same CA."""
        self.assert_serves(self.daemon(self.secure, TLS, self.ca, HTTP), self.secure)

    def test_addresses(self) -> None:
        """So do addresses that are given whole; here with a name."""
        server = f"localhost:{self.asterisk.tls_port}"
        daemon = self.daemon(
            f"{HOST}:{self.asterisk.port}",
            self.ca,
            HTTP,
            f'websocket-uri = "wss://{server}/ari/events?app=demo"',
            f'rest.uri = "https://{server}/ari"',
        )
        self.assert_serves(daemon, server)


class RefusalTests(TlsCase):
    """What is wrong is told in one line, with the setting; the proxy is not ready."""

    def assert_refuses(self, daemon: Daemon, text: str) -> None:
        daemon.refuses = True
        daemon.start()
        line = daemon.lines(" is down: ")[0]
        self.assertIn(f" is down: {text}", line)
        status, body = daemon.get("/health/ready")
        self.assertEqual(status, 503)
        self.assertIn(text, body)
        _, body = daemon.get("/health/backing-services")
        self.assertIn("AriConnectionCheck: ", body)
        self.assertEqual(daemon.lines("Traceback"), [])
        self.assertEqual(daemon.lines(" is open"), [])

    def test_wrong_ca(self) -> None:
        """Another CA than that of Asterisk's certificate."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        other = f'asterisk.ca = "{Certificates(folder).ca}"'
        text = "its certificate is not trusted; correct service.asterisk.ca"
        self.assert_refuses(self.daemon(self.secure, TLS, other), text)

    def test_system(self) -> None:
        """Without a CA those of the system are trusted, who do not know it."""
        text = "its certificate is not trusted; correct service.asterisk.ca"
        self.assert_refuses(self.daemon(self.secure, TLS), text)

    def test_other_host(self) -> None:
        """A name of the same address that is not in the certificate."""
        server = f"127.1:{self.asterisk.tls_port}"
        self.assert_refuses(
            self.daemon(server, TLS, self.ca),
            "its certificate is for another host; correct the host in "
            "service.asterisk.server (or service.websocket-uri)",
        )

    def test_port_without_tls(self) -> None:
        """TLS is expected where there is none."""
        server = f"{HOST}:{self.asterisk.port}"
        text = "TLS failed (wrong version number); correct service.asterisk.tls"
        self.assert_refuses(self.daemon(server, TLS, self.ca), text)

    def test_port_with_tls(self) -> None:
        """No TLS is tried where there is."""
        text = "no answer to the upgrade; see Asterisk's log, and whether "
        self.assert_refuses(self.daemon(self.secure), f"{text}service.asterisk.tls")

    def test_unusable_ca(self) -> None:
        """A file that holds no certificate ends the start."""
        daemon = self.daemon(self.secure, TLS, 'asterisk.ca = "/dev/null"')
        with self.assertRaises(ServerFailed):
            daemon.start()
        self.assertEqual(daemon.status, 1)
        [line] = daemon.lines("service.asterisk.ca")
        text = "service.asterisk.ca: /dev/null: holds no certificate in PEM form"
        self.assertIn(text, line)
        self.assertEqual(daemon.lines("Traceback"), [])
