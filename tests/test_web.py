"""Tests of ariproxy.web."""

from __future__ import annotations

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.errors import PublishFailed
from ariproxy.health import Condition, Health
from ariproxy.metrics import Metrics
from ariproxy.web import CONNECTIONS_LIMIT, IDLE_SECONDS, site
from tests.test_health import FakeService

PLAIN = "text/plain; charset=UTF-8"


class Response:
    """One answer, read from the bytes of a connection."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode("ascii").split("\r\n")
        self.code = int(status.split()[1])
        self.headers = {
            name.lower(): text for name, text in (line.split(": ", 1) for line in lines)
        }

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


class WebTestCase(SynchronousTestCase):
    """The real site, on memory transports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.kafka = FakeService("kafka")
        self.websocket: str | None = None
        self.health = Health(
            [self.kafka],
            [Condition("websocket", lambda: self.websocket)],
            clock=self.clock,
            now=self.clock.seconds,
        )
        self.metrics = Metrics(
            app="demo",
            common_tags={},
            availability_name="backing_service_availability",
            event_types={"DIAL": "NONE"},
            clock=self.clock,
        )
        self.metrics.availability(self.health.availability)
        self.site = site(self.metrics, self.health, self.clock)
        self.site.doStart()
        self.addCleanup(self.site.doStop)
        self.health.start()

    def connect(self) -> tuple[Any, StringTransport]:
        """A new connection to the site."""
        protocol = self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 40000))
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(self, path: str, method: str = "GET", more: bytes = b"") -> Response:
        """Send one request; ``more`` is what follows its first two lines."""
        protocol, transport = self.connect()
        head = f"{method} {path} HTTP/1.1\r\nHost: proxy\r\n".encode()
        protocol.dataReceived(head + (more or b"\r\n"))
        protocol.connectionLost(Failure(ConnectionDone()))
        return Response(transport.value())


class RouteTests(WebTestCase):
    """Tests of which path answers what."""

    def test_ok_pages(self) -> None:
        """/health, /health/smoke and whatever is below answer OK."""
        for path in (
            "/health",
            "/health/",
            "/health/smoke",
            "/health/backing-services/more",
            "/health/other/../../metrics",
            "/health?verbose=1",
        ):
            response = self.ask(path)
            self.assertEqual((response.code, response.body), (200, b"OK"), path)
            self.assertEqual(response.headers["content-type"], PLAIN)

    def test_ok_whatever_happens(self) -> None:
        """/health is about the process alone."""
        self.kafka.outcome = PublishFailed("refused")
        self.websocket = "refused"
        self.clock.advance(5)
        self.assertEqual(self.ask("/health").body, b"OK")

    def test_not_found(self) -> None:
        """There is nothing else, least of all a file."""
        for path in (
            "/",
            "/healthx",
            "/Health",
            "//health",
            "/../../etc/passwd",
            "/..%2f..%2fetc/passwd",
            "/%2e%2e/etc/passwd",
            "/favicon.ico",
            "*",
        ):
            response = self.ask(path)
            self.assertEqual(response.code, 404 if path != "*" else 405, path)
            self.assertNotIn(b"passwd", response.body)

    def test_not_allowed(self) -> None:
        """Other methods on a page are refused; without a page it is a 404."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            for path in ("/health", "/health/smoke", "/metrics", "/health/ready"):
                response = self.ask(path, method)
                self.assertEqual(response.code, 405, (method, path))
                self.assertEqual(response.headers["allow"], "GET, HEAD")
            self.assertEqual(self.ask("/none", method).code, 404)

    def test_head(self) -> None:
        """HEAD has the head of GET and no body, and leaves no line in the log."""
        for path in ("/health", "/metrics", "/health/ready", "/none"):
            got = self.ask(path)
            with capturedLogs() as lines:
                response = self.ask(path, "HEAD")
            self.assertEqual(response.code, got.code)
            self.assertEqual(response.body, b"")
            for name in ("content-type", "content-length"):
                self.assertEqual(response.headers[name], got.headers[name], path)
            self.assertEqual(lines, [])

    def test_escaped_path(self) -> None:
        """A path may be percent-encoded."""
        self.assertEqual(self.ask("/%68ealth").body, b"OK")


class BackingServicesTests(WebTestCase):
    """Tests of /health/backing-services."""

    def test_well(self) -> None:
        """The fields, their order and their names are as promised."""
        response = self.ask("/health/backing-services")
        self.assertEqual(response.code, 200)
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual(response.body, b'{"errors":[],"ok":true}')

    def test_not_well(self) -> None:
        """It answers 200 with the errors."""
        self.kafka.outcome = PublishFailed('"b1" ist für uns weg')
        self.clock.advance(5)
        response = self.ask("/health/backing-services")
        self.assertEqual(response.code, 200)
        self.assertEqual(
            response.body.decode(),
            '{"errors":["KafkaConnectionCheck: \\"b1\\" ist für uns weg"],"ok":false}',
        )

    def test_any_method(self) -> None:
        """Every method gets the same answer."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            self.assertEqual(
                self.ask("/health/backing-services", method).body,
                b'{"errors":[],"ok":true}',
            )


class LiveAndReadyTests(WebTestCase):
    """Tests of the two routes that can fail."""

    def test_live(self) -> None:
        """200 while the rounds are made, 503 when they are overdue."""
        response = self.ask("/health/live")
        self.assertEqual((response.code, response.json), (200, {"live": True}))
        self.clock.rightNow += 60
        response = self.ask("/health/live")
        self.assertEqual((response.code, response.json), (503, {"live": False}))

    def test_ready(self) -> None:
        """200 and no reasons when all is well."""
        response = self.ask("/health/ready")
        self.assertEqual(response.code, 200)
        self.assertEqual(
            response.json, {"ready": True, "state": "ready", "reasons": []}
        )

    def test_not_ready(self) -> None:
        """503 and the reasons."""
        self.ask("/health/ready")
        self.websocket = "401 Unauthorized"
        response = self.ask("/health/ready")
        self.assertEqual(response.code, 503)
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual(
            response.json,
            {
                "ready": False,
                "state": "failing",
                "reasons": [
                    {
                        "part": "websocket",
                        "since": "1970-01-01T00:00:00Z",
                        "error": "401 Unauthorized",
                    }
                ],
            },
        )


class MetricsPageTests(WebTestCase):
    """Tests of /metrics."""

    def test_page(self) -> None:
        """The page is what Prometheus reads, here and below."""
        self.metrics.event_received("DIAL", "NONE")
        for path in ("/metrics", "/metrics/", "/metrics/more"):
            response = self.ask(path)
            self.assertEqual(response.code, 200)
            self.assertEqual(response.headers["content-type"], PLAIN)
            families = text_string_to_metric_families(response.body.decode())
            values = {f.name: f.samples[0].value for f in families}
            self.assertEqual(values["ari_proxy_events"], 1)

    def test_fresh_after_half_a_second(self) -> None:
        """Numbers are at most half a second old, also if the clock is set back."""
        line = b'ari_proxy_events_total{eventType="DIAL",resourceType="NONE"} %d.0\n'
        self.assertIn(line % 0, self.ask("/metrics").body)
        self.metrics.event_received("DIAL", "NONE")
        self.clock.advance(0.6)
        self.assertIn(line % 1, self.ask("/metrics").body)
        self.metrics.event_received("DIAL", "NONE")
        self.clock.rightNow -= 3600
        self.assertIn(line % 2, self.ask("/metrics").body)

    def test_a_hundred_scrapes(self) -> None:
        """A hundred at once ask no service and render one page."""
        rendered = []

        def waiting() -> float:
            rendered.append(1)
            return 0

        self.metrics.gauge("ari_proxy_kafka_waiting_records", waiting)
        connections = [self.connect() for _ in range(100)]
        for protocol, _ in connections:
            protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: proxy\r\n\r\n")
        for _, transport in connections:
            response = Response(transport.value())
            self.assertEqual(response.code, 200)
            self.assertIn(
                b'backing_service_availability{backing_service="kafka"} 1.0\n',
                response.body,
            )
        self.assertEqual(self.kafka.asked, 1)
        self.assertEqual(len(rendered), 1)


class ConnectionTests(WebTestCase):
    """Tests of clients that behave badly."""

    def test_no_version(self) -> None:
        """No answer tells what it is made with."""
        for path in ("/health", "/metrics", "/none", "*"):
            for method in ("GET", "OPTIONS"):
                response = self.ask(path, method)
                self.assertNotIn("server", response.headers)
                self.assertNotRegex(repr(response.headers), re.compile("twisted", re.I))

    def test_no_access_log(self) -> None:
        """Requests leave no line in the log."""
        with capturedLogs() as lines:
            self.ask("/health")
            self.ask("/none", "POST")
        self.assertEqual(lines, [])

    def test_a_large_body(self) -> None:
        """A body of any size is taken and thrown away."""
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"POST /health/backing-services HTTP/1.1\r\nHost: proxy\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n"
            b"Content-Length: 20000000\r\n\r\n"
        )
        request = protocol.requests[0]
        for _ in range(19):
            protocol.dataReceived(b"x" * 1_000_000)
            self.assertEqual(request.content.getvalue(), b"")
        protocol.dataReceived(b"x" * 1_000_000)
        self.assertEqual(Response(transport.value()).code, 200)

    def test_a_chunked_body(self) -> None:
        """So is one whose length is not told."""
        response = self.ask(
            "/health/backing-services",
            "POST",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        )
        self.assertEqual(response.code, 200)

    def test_large_heads(self) -> None:
        """Endless lines and headers are cut off."""
        for more in (
            b"X: " + b"x" * 40_000 + b"\r\n\r\n",
            b"".join(b"X%d: y\r\n" % n for n in range(3000)) + b"\r\n",
        ):
            protocol, transport = self.connect()
            protocol.dataReceived(b"GET /health HTTP/1.1\r\n" + more)
            self.assertTrue(transport.disconnecting)
            self.assertNotIn(b" 200 ", transport.value())

    def test_garbage(self) -> None:
        """What is not HTTP is answered 400 and cut off."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"\x16\x03\x01\x02\x00\r\n\r\n")
        self.assertTrue(transport.disconnecting)
        self.assertIn(b" 400 ", transport.value())

    def test_odd_hosts(self) -> None:
        """The Host header changes nothing."""
        for host in (b"", b"evil.example\x00", b"a" * 5000, b"[::1]:http"):
            protocol, transport = self.connect()
            protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: " + host)
            protocol.dataReceived(b"\r\n\r\n")
            self.assertNotIn(host or b"Host", transport.value())

    def test_idle(self) -> None:
        """A connection on which nothing comes is closed after a minute."""
        _, transport = self.connect()
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertFalse(transport.disconnecting)
        self.clock.advance(1)
        self.assertTrue(transport.disconnecting)

    def test_never_reads(self) -> None:
        """A client that does not take its answer is cut off in the end."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"GET /metrics HTTP/1.1\r\nHost: proxy\r\n\r\n")
        protocol.pauseProducing()
        self.clock.advance(IDLE_SECONDS)
        self.clock.advance(protocol.abortTimeout)
        self.assertTrue(transport.disconnected)

    def test_too_many(self) -> None:
        """Beyond the limit connections are closed; later there is room again."""
        connections = [self.connect() for _ in range(CONNECTIONS_LIMIT)]
        address = IPv4Address("TCP", "127.0.0.1", 40000)
        self.assertIsNone(self.site.buildProtocol(address))
        connections[0][0].connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.ask("/health").code, 200)

    def test_a_defect(self) -> None:
        """A fault while answering is a 500 without a traceback, and is logged."""

        def errors() -> list[str]:
            raise ZeroDivisionError

        self.health.errors = errors  # type: ignore[method-assign]
        response = self.ask("/health/backing-services")
        self.assertEqual(response.code, 500)
        self.assertNotIn(b"ZeroDivision", response.body)
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
