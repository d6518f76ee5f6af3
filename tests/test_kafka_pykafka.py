"""pykafka, as far as it goes without a broker."""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config.keys import Kafka
from ariproxy.errors import ConfigError, TemporaryError
from ariproxy.kafka.settings import (
    Properties,
    consumer_properties,
    producer_properties,
)
from tests.test_kafka_settings import config

try:
    from ariproxy.kafka import pykafka_client, pykafka_group
    from ariproxy.kafka.pykafka_client import pykafka_settings
except ConfigError as error:
    skip = str(error)

PLAIN: Properties = {"bootstrap.servers": "a:9092, b:9092"}
SSL: Properties = {**PLAIN, "security.protocol": "SSL"}


class SettingsTests(SynchronousTestCase):
    """What pykafka can do of librdkafka's properties, and what it cannot."""

    def refused(self, properties: Properties) -> str:
        """The one problem, which names the mend."""
        error = self.assertRaises(ConfigError, pykafka_settings, properties)
        (problem,) = error.problems
        return problem

    def test_producer(self) -> None:
        """A publisher's properties, as they are made from a file."""
        properties, _ = producer_properties(config("service.events.buffer=7"))
        settings = pykafka_settings(properties)
        self.assertEqual(settings.hosts, "localhost:9092")
        self.assertEqual(settings.acks, -1)
        self.assertEqual(settings.compression, 0)
        self.assertEqual(settings.largest_record, 1024 * 1024)
        self.assertEqual(settings.buffer, 7)
        self.assertIsNone(settings.tls)

    def test_consumer(self) -> None:
        """A source's properties: its group, and from the latest offset on."""
        kafka = Kafka(
            bootstrap_servers="a:9092",
            commands_topic="c",
            events_and_responses_topic="e",
            consumer_group="unused",
        )
        settings = pykafka_settings(consumer_properties(kafka, "group"))
        self.assertEqual(settings.group, "group")
        self.assertEqual(settings.offset_reset, -1)

    def test_changed(self) -> None:
        """What a site may change."""
        settings = pykafka_settings(
            {
                **PLAIN,
                "acks": "1",
                "compression.type": "gzip",
                "auto.offset.reset": "earliest",
            }
        )
        self.assertEqual(settings.hosts, "a:9092,b:9092")
        self.assertEqual(settings.acks, 1)
        self.assertEqual(settings.compression, 1)
        self.assertEqual(settings.offset_reset, -2)

    def test_no_sasl(self) -> None:
        """SASL is not to be had, whatever the spelling; the secret is not shown."""
        for protocol in ("SASL_SSL", "SASL_PLAINTEXT", "sasl_ssl"):
            problem = self.refused(
                {
                    **PLAIN,
                    "security.protocol": protocol,
                    "sasl.username": "ari",
                    "sasl.password": "geheim",
                }
            )
            self.assertIn("service.kafka.security.protocol", problem)
            self.assertIn("client = confluent", problem)
            self.assertNotIn("geheim", problem)

    def test_ca_required(self) -> None:
        """Without comparing names, the system's CAs would prove nothing."""
        self.assertIn("service.kafka.security.ca", self.refused(SSL))

    def test_unusable_files(self) -> None:
        """A file that is not there, or holds something else, is named."""
        path = self.mktemp()
        self.assertIn(path, self.refused({**SSL, "ssl.ca.location": path}))
        with open(path, "w") as file:
            file.write("no certificate")
        self.assertIn(path, self.refused({**SSL, "ssl.ca.location": path}))

    def test_other_tls_properties(self) -> None:
        """A property of librdkafka's TLS is not left out silently."""
        problem = self.refused({**SSL, "ssl.key.password": "geheim"})
        self.assertIn("ssl.key.password", problem)
        self.assertNotIn("geheim", problem)

    def test_compression(self) -> None:
        """Only gzip needs no further library."""
        for name in ("compression.type", "compression.codec"):
            self.assertIn("lz4", self.refused({**PLAIN, name: "lz4"}))


class ImportTests(SynchronousTestCase):
    """Where pykafka cannot be imported."""

    def without(self, module: str) -> str:
        """What an operator is told when this module is not there."""
        for name in [*sys.modules]:
            if name.partition(".")[0] in ("pykafka", "pkg_resources"):
                self.patch_module(name)
        self.patch_module("ariproxy.kafka.pykafka_client")
        sys.modules[module] = None  # type: ignore[assignment]
        error = self.assertRaises(
            ConfigError, importlib.import_module, "ariproxy.kafka.pykafka_client"
        )
        return str(error)

    def patch_module(self, name: str) -> None:
        """Forget it until the test ends."""
        before = sys.modules.pop(name)
        self.addCleanup(sys.modules.__setitem__, name, before)

    def test_not_installed(self) -> None:
        """One line names the extra and the other client."""
        text = self.without("pykafka")
        self.assertIn("ari-proxy[pykafka]", text)
        self.assertIn("confluent", text)

    def test_setuptools_too_new(self) -> None:
        """setuptools 82 has no pkg_resources, which pykafka imports."""
        text = self.without("pkg_resources")
        self.assertIn("pkg_resources", text)
        self.assertIn("setuptools below 82", text)


class RangeTests(SynchronousTestCase):
    """Who gets which partitions."""

    def test_as_java(self) -> None:
        """In ranges, the first members one more; only what is subscribed to."""
        shares = pykafka_group.in_ranges(
            {b"b": [b"t"], b"a": [b"t", b"u"], b"c": [b"t"]},
            {b"t": 7, b"u": 1}.__getitem__,
        )
        self.assertEqual(
            shares,
            {
                b"a": [(b"t", [0, 1, 2]), (b"u", [0])],
                b"b": [(b"t", [3, 4])],
                b"c": [(b"t", [5, 6])],
            },
        )

    def test_more_members_than_partitions(self) -> None:
        """The last ones get nothing, and are told so."""
        shares = pykafka_group.in_ranges(
            {b"a": [b"t"], b"b": [b"t"]}, {b"t": 1}.__getitem__
        )
        self.assertEqual(shares, {b"a": [(b"t", [0])], b"b": []})

    @given(st.sets(st.binary(max_size=5), min_size=1), st.integers(0, 50))
    def test_each_once(self, members: set[bytes], partitions: int) -> None:
        """Every partition is somebody's, and nobody has much more than another."""
        shares = pykafka_group.in_ranges(
            {member: [b"t"] for member in members}, lambda topic: partitions
        )
        given_out = [n for share in shares.values() for _, part in share for n in part]
        self.assertEqual(sorted(given_out), list(range(partitions)))
        sizes = {sum(len(part) for _, part in share) for share in shares.values()}
        self.assertLessEqual(max(sizes) - min(sizes), 1)


class MembershipTests(SynchronousTestCase):
    """Errors of the group, by their code."""

    def test_codes(self) -> None:
        """Each has its meaning; what is unknown is told with the group's name."""
        expected: dict[int, Any] = {
            27: pykafka_group.Rebalancing,
            22: pykafka_group.PlaceLost,
            25: pykafka_group.PlaceLost,
            23: TemporaryError,
            30: TemporaryError,
            999: TemporaryError,
        }
        for code, kind in expected.items():
            member = pykafka_group.Membership("calls", "commands")
            error = self.assertRaises(kind, member.heartbeat, _Answers(code))
            if kind is TemporaryError:
                self.assertIn("consumer group calls", str(error))
        pykafka_group.Membership("calls", "commands").heartbeat(_Answers(0))


class _Answers:
    """A coordinator that answers a heartbeat with a code."""

    def __init__(self, code: int) -> None:
        self.error_code = code

    def heartbeat(self, *request: object) -> _Answers:
        return self


class WordsTests(SynchronousTestCase):
    """What is said of errors."""

    def test_names(self) -> None:
        """Codes have names, those too that pykafka does not know."""
        self.assertEqual(pykafka_client.named(3), "UnknownTopicOrPartition")
        self.assertEqual(pykafka_client.named(19), "NotEnoughReplicas")
        self.assertEqual(pykafka_client.named(9999), "error 9999")

    def test_one_line(self) -> None:
        """An error without words shows its class; none has a second line."""
        line = pykafka_client.in_one_line
        self.assertEqual(line(KeyError()), "KeyError")
        self.assertEqual(line(ValueError("a\nb")), "ValueError: a b")
        self.assertEqual(line(OSError("refused")), "refused")

    def test_hushed(self) -> None:
        """pykafka logs where the logger that it is given would."""
        pykafkas = logging.getLogger("pykafka")
        self.addCleanup(pykafkas.setLevel, pykafkas.level)
        given_one = logging.getLogger("tests.hushed")
        for disabled in (True, False):
            given_one.disabled = disabled
            pykafka_client.hush(given_one)
            shown = logging.getLogger("pykafka.cluster").isEnabledFor(logging.CRITICAL)
            self.assertEqual(shown, not disabled)
