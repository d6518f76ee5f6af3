"""The composition root: what it builds, and that it stops as it started."""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ariproxy.ari.resources import EVENT_TYPES
from ariproxy.config import Config, load
from ariproxy.errors import ConfigError
from ariproxy.parts import Surroundings
from ariproxy.service import Proxy
from tests.integration.services.ports import free_port
from tests.test_kafka_confluent import mock_cluster

SAMPLE = str(Path(__file__).parents[1] / "etc" / "ari-proxy" / "service.conf")


def config(*settings: str) -> Config:
    """The sample with these settings."""
    return load(SAMPLE, settings, {})


def proxy(settings: Config, using: Any, end: Any = lambda: None) -> Proxy:
    """A proxy whose ids are numbers."""
    ids = count()
    return Proxy(
        settings,
        Surroundings(
            reactor=using,
            now=time.time,
            steady=time.monotonic,
            new_id=lambda: str(next(ids)),
            jitter=lambda: 0.0,
            node="here",
            end=end,
        ),
    )


class BuildTests(SynchronousTestCase):
    """To build is only to build."""

    def build(self, *settings: str) -> tuple[Proxy, MemoryReactorClock]:
        using = MemoryReactorClock()
        return proxy(config(*settings), using), using

    def test_nothing_happens(self) -> None:
        """No socket, no thread, no timer, whatever the store."""
        for store in ("redis", "memory", "sqlite"):
            with self.subTest(store):
                threads = threading.active_count()
                _, using = self.build(
                    f"service.persistence-store={store}",
                    "service.sqlite.url=jdbc:sqlite::memory:",
                    "service.sqlite.ttl=6h",
                )
                self.assertEqual(using.tcpClients, [])
                self.assertEqual(using.tcpServers, [])
                self.assertEqual(using.getDelayedCalls(), [])
                self.assertEqual(threading.active_count(), threads)

    def test_binds_first(self) -> None:
        """The HTTP port is bound on the configured interface."""
        built, using = self.build("service.http.interface=127.0.0.1")
        built.privilegedStartService()
        [(port, _, _, interface)] = using.tcpServers
        self.assertEqual((port, interface), (8080, "127.0.0.1"))

    def test_metrics_know_every_type(self) -> None:
        """All types of events are there from the start."""
        built, _ = self.build()
        names = {each.name for each in EVENT_TYPES.values()}
        found = {
            sample.labels["eventType"]
            for family in built.metrics.collect()
            for sample in family.samples
            if sample.name == "ari_proxy_events_total"
        }
        self.assertLessEqual(names, found)

    def test_settings_without_meaning(self) -> None:
        """Are named once, for those who debug."""
        with capturedLogs() as log:
            self.build("akka.kafka.producer.kafka-clients.max.block.ms=1")
        [line] = [formatEvent(e) for e in log if e["log_level"] is LogLevel.debug]
        self.assertIn("max.block.ms", line)


class ReplacedTests(SynchronousTestCase):
    """Another client takes over our application."""

    def test_ends_once(self) -> None:
        """The process is asked to end, once; another application does nothing."""
        ends: list[None] = []
        built = proxy(config(), MemoryReactorClock(), lambda: ends.append(None))
        other = b'{"type":"ApplicationReplaced","application":"another"}'
        ours = b'{"type":"ApplicationReplaced","application":"my-application"}'
        with capturedLogs() as log:
            built.events.receive(other)
            self.assertEqual(ends, [])
            built.events.receive(ours)
            built.events.receive(ours)
        self.assertEqual(len(ends), 1)
        lines = [formatEvent(e) for e in log if e["log_level"] is LogLevel.info]
        self.assertEqual(len(lines), 1)


class RunTests(TestCase):
    """Start and stop on the real reactor, against a Kafka inside this process."""

    timeout = 60

    def settings(self, *more: str) -> Config:
        return config(
            "service.persistence-store=memory",
            "service.http.interface=127.0.0.1",
            f"service.httpport={free_port()}",
            # Nobody listens there.
            "service.asterisk.server=127.0.0.1:1",
            f"service.kafka.bootstrap-servers={mock_cluster().bootstrap}",
            *more,
        )

    async def test_start_and_stop(self) -> None:
        """Everything that was started is gone when it has stopped."""
        threads = set(threading.enumerate())
        built = proxy(self.settings(), reactor)
        with capturedLogs() as log:
            built.privilegedStartService()
            built.startService()
            await deferLater(reactor, 0.5)
            began = time.monotonic()
            await built.stopService()
        self.assertLess(time.monotonic() - began, 15)
        lines = [formatEvent(event) for event in log]
        self.assertEqual(lines[-1], "Stopped")
        self.assertIn("Stopping: no new commands are taken", lines)
        # The last threads tell that they end a moment before they do.
        await deferLater(reactor, 0.5)
        left = [
            each.name
            for each in threading.enumerate()
            if each not in threads and not each.name.startswith("PoolThread-twisted")
        ]
        self.assertEqual(left, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_stop_without_kafka(self) -> None:
        """It stops too where Kafka never answered."""
        built = proxy(
            self.settings("service.kafka.bootstrap-servers=127.0.0.1:1"), reactor
        )
        built.privilegedStartService()
        built.startService()
        await deferLater(reactor, 0.5)
        began = time.monotonic()
        await built.stopService()
        self.assertLess(time.monotonic() - began, 10)

    async def test_no_secret_is_logged(self) -> None:
        """No line at any level holds a password."""
        settings = self.settings(
            "service.asterisk.password=s3cret-of-ari",
            "service.kafka.security.user=x",
            "service.kafka.security.password=s3cret-of-kafka",
            "service.logging.level=debug",
        )
        with capturedLogs() as log:
            built = proxy(settings, reactor)
            built.privilegedStartService()
            built.startService()
            await deferLater(reactor, 0.3)
            await built.stopService()
        self.assertNotIn("s3cret", "".join(map(formatEvent, log)))
        self.assertNotIn("s3cret", repr(settings))

    def test_port_in_use(self) -> None:
        """A port that is taken is a fault of the configuration, named with its key."""
        other = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(other.stopListening)
        number = other.getHost().port
        built = proxy(self.settings(f"service.httpport={number}"), reactor)
        with self.assertRaises(ConfigError) as caught:
            built.privilegedStartService()
        [line] = caught.exception.problems
        self.assertIn(f"service.httpport: cannot listen on 127.0.0.1:{number}", line)

    async def test_property_that_librdkafka_refuses(self) -> None:
        """Is a fault of the configuration, told at once in one line."""
        for setting in ("no.such=1", "linger.ms=abc", "message.max.bytes=1"):
            built = proxy(self.settings(f"service.kafka.librdkafka.{setting}"), reactor)
            with self.assertRaises(ConfigError) as caught:
                built.startService()
            [line] = caught.exception.problems
            self.assertIn("service.kafka", line)
            self.assertNotIn("\n", line)
            await built.stopService()

    async def test_property_of_the_consumer_that_is_refused(self) -> None:
        """The same for a property that only the consumer minds."""
        built = proxy(
            self.settings(
                "service.kafka.librdkafka.session.timeout.ms=60000",
                "service.kafka.librdkafka.max.poll.interval.ms=1000",
            ),
            reactor,
        )
        with self.assertRaises(ConfigError):
            built.startService()
        await built.stopService()
