"""From ``service.conf`` to the properties of librdkafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config import Config, load
from ariproxy.kafka.settings import (
    consumer_properties,
    producer_properties,
    secrets_hidden,
    translated,
)

SAMPLE = str(Path(__file__).parents[1] / "etc" / "ari-proxy" / "service.conf")
JAVA = "akka.kafka.producer.kafka-clients."
LIBRDKAFKA = "service.kafka.librdkafka."


def config(*overrides: str) -> Config:
    """The sample with a store that needs nothing, and these settings."""
    return load(SAMPLE, ["service.persistence-store=memory", *overrides], {})


def accepted(properties: dict[str, Any], client: Any = Producer) -> None:
    """Let librdkafka judge; it raises where it refuses. No broker is asked."""
    client({**properties, "bootstrap.servers": "127.0.0.1:1", "log_level": 0})


class ProducerTests(SynchronousTestCase):
    """What the original's producer promises, and what a site may change."""

    def test_promises(self) -> None:
        """acks=all, idempotent, one request at a time, the Java partitioner."""
        properties, left_out = producer_properties(config())
        expected = {
            "bootstrap.servers": "localhost:9092",
            "security.protocol": "PLAINTEXT",
            "acks": "all",
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 1,
            "request.timeout.ms": 4000,
            "partitioner": "murmur2_random",
            "message.max.bytes": 1048576,
        }
        self.assertEqual({name: properties[name] for name in expected}, expected)
        self.assertEqual(left_out, [])
        self.assertNotIn("compression.type", properties)
        accepted(properties)

    def test_buffer(self) -> None:
        """What waits for Kafka is bounded by ``service.events.buffer``."""
        properties, _ = producer_properties(config("service.events.buffer=7"))
        self.assertEqual(properties["queue.buffering.max.messages"], 7)

    def test_records_wait_as_long_as_it_takes(self) -> None:
        """No time limit loses a record, also not one that the Java client had."""
        properties, left_out = producer_properties(
            config(f"{JAVA}delivery.timeout.ms=20000")
        )
        self.assertEqual(properties["delivery.timeout.ms"], 0)
        self.assertEqual(left_out, ["delivery.timeout.ms"])

    def test_librdkafka_has_the_last_word(self) -> None:
        """Over the Java settings, which are over ours."""
        properties, _ = producer_properties(
            config(f"{JAVA}linger.ms=5", f"{LIBRDKAFKA}linger.ms=7")
        )
        self.assertEqual(properties["linger.ms"], "7")

    def test_every_translation_is_accepted(self) -> None:
        """librdkafka takes each Java setting with the Java client's own default."""
        defaults = {
            "acks": "all",
            "batch.size": "16384",
            "client.dns.lookup": "use_all_dns_ips",
            "client.id": "ari",
            "compression.type": "none",
            "connections.max.idle.ms": "540000",
            "enable.idempotence": "true",
            "linger.ms": "0",
            "max.in.flight.requests.per.connection": "5",
            "max.request.size": "1048576",
            "metadata.max.age.ms": "300000",
            "receive.buffer.bytes": "32768",
            "reconnect.backoff.max.ms": "1000",
            "reconnect.backoff.ms": "50",
            "request.timeout.ms": "30000",
            "retries": "2147483647",
            "retry.backoff.ms": "100",
            "send.buffer.bytes": "131072",
            "socket.connection.setup.timeout.ms": "10000",
        }
        properties, left_out = producer_properties(
            config(*(f"{JAVA}{name}={value}" for name, value in defaults.items()))
        )
        self.assertEqual(left_out, [])
        accepted(properties)
        self.assertEqual(properties["message.max.bytes"], "1048576")

    def test_one_by_one(self) -> None:
        """Settings that sites change alone do not contradict our own."""
        for setting in (
            "acks=1",
            "acks=0",
            "retries=0",
            "reconnect.backoff.ms=5000",
            "send.buffer.bytes=-1",
            "receive.buffer.bytes=-1",
            "request.timeout.ms=60000",
            "linger.ms=100",
            "batch.size=0",
            "max.request.size=5242880",
            "compression.type=gzip",
        ):
            with self.subTest(setting):
                properties, _ = producer_properties(config(JAVA + setting))
                accepted(properties)


class TranslationTests(SynchronousTestCase):
    """Java names."""

    def test_unknown(self) -> None:
        """What has no place is named."""
        properties, left_out = translated({"max.block.ms": "1", "linger.ms": "2"})
        self.assertEqual((properties, left_out), ({"linger.ms": "2"}, ["max.block.ms"]))

    def test_idempotence_given_up(self) -> None:
        """Where the Java client gives it up without a word."""
        for name, value in (("acks", "1"), ("acks", "0"), ("retries", "0")):
            properties, _ = translated({name: value})
            self.assertIs(properties["enable.idempotence"], False)
        for value in ("all", "-1"):
            properties, _ = translated({"acks": value})
            self.assertNotIn("enable.idempotence", properties)


class ConsumerTests(SynchronousTestCase):
    """The consumer of the commands."""

    def properties(self, *overrides: str) -> dict[str, Any]:
        return dict(consumer_properties(config(*overrides).kafka, "a-group"))

    def test_promises(self) -> None:
        """The group, commits by hand, the latest offset, Java's assignor."""
        properties = self.properties()
        expected = {
            "group.id": "a-group",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "latest",
            "partition.assignment.strategy": "range",
        }
        self.assertEqual({name: properties[name] for name in expected}, expected)
        accepted(properties, Consumer)

    def test_nothing_of_the_producer(self) -> None:
        """Properties for the producer alone are kept from it."""
        properties = self.properties(
            *(
                f"{LIBRDKAFKA}{setting}"
                for setting in ("linger.ms=3", "acks=1", "batch.size=9", "retries=2")
            ),
            f"{LIBRDKAFKA}session.timeout.ms=6000",
        )
        self.assertEqual(properties["session.timeout.ms"], "6000")
        for name in ("linger.ms", "acks", "batch.size", "retries"):
            self.assertNotIn(name, properties)


class SecurityTests(SynchronousTestCase):
    """``service.kafka.security``."""

    def common(self, *settings: str) -> dict[str, Any]:
        prefix = "service.kafka.security."
        properties, _ = producer_properties(
            config(*(prefix + each for each in settings))
        )
        return dict(properties)

    def test_none(self) -> None:
        """The original's PLAIN means no security at all."""
        for protocol in ("PLAIN", "PLAINTEXT"):
            properties = self.common(f"protocol={protocol}")
            self.assertEqual(properties["security.protocol"], "PLAINTEXT")
            self.assertNotIn("sasl.mechanism", properties)

    def test_sasl_ssl(self) -> None:
        """The original's SASL_SSL: SCRAM-SHA-256, and the system's CAs."""
        properties = self.common("protocol=SASL_SSL", "user=ari", "password=s3cret")
        self.assertEqual(properties["security.protocol"], "SASL_SSL")
        self.assertEqual(properties["sasl.mechanism"], "SCRAM-SHA-256")
        self.assertEqual(properties["sasl.username"], "ari")
        self.assertEqual(properties["sasl.password"], "s3cret")
        self.assertNotIn("ssl.ca.location", properties)
        accepted(properties)

    def test_files(self) -> None:
        """CA, certificate and key are paths."""
        properties = self.common(
            "protocol=SSL", "ca=/x/ca.pem", "certificate=/x/c.pem", "key=/x/k.pem"
        )
        self.assertEqual(properties["ssl.ca.location"], "/x/ca.pem")
        self.assertEqual(properties["ssl.certificate.location"], "/x/c.pem")
        self.assertEqual(properties["ssl.key.location"], "/x/k.pem")
        self.assertNotIn("sasl.mechanism", properties)

    def test_hidden(self) -> None:
        """For the log, passwords and keys are left out."""
        shown = dict(
            secrets_hidden(
                {
                    "sasl.password": "s3cret",
                    "ssl.key.password": "s3cret",
                    "ssl.key.pem": "s3cret",
                    "sasl.oauthbearer.client.secret": "s3cret",
                    "linger.ms": 1,
                }
            )
        )
        self.assertNotIn("s3cret", shown.values())
        self.assertEqual(shown["linger.ms"], 1)
