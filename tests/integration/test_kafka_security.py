"""Logging in to a real broker, with TLS and without, and doing it wrong."""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from ariproxy.errors import PublishFailed, TemporaryError
from ariproxy.kafka.confluent_publisher import ConfluentPublisher
from ariproxy.kafka.confluent_source import ConfluentSource
from ariproxy.kafka.records import OutgoingRecord
from ariproxy.kafka.settings import (
    consumer_properties,
    producer_properties,
    secrets_hidden,
)
from tests.integration.services import kafka
from tests.integration.services.kafka import PASSWORD, USER, SecuredKafkaBroker
from tests.integration.services.processes import program
from tests.kafka_contract import PARTITIONS, SourceCase
from tests.test_kafka_settings import config

WRONG_PASSWORD = "not-the-s3cret"

# What the tests of wrong mechanisms need: one listener that knows two of three.
_TWO_MECHANISMS = {
    "listener.name.sasl_plaintext.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256"
}


# ANONYMOUS is the tests themselves, who come without a login.
_RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


class SecuredCluster:
    """A broker with four listeners, and a CA that did not sign its certificate."""

    def __init__(self) -> None:
        self.broker = SecuredKafkaBroker(_TWO_MECHANISMS)
        self.stranger = SecuredKafkaBroker()
        self.bootstrap = self.broker.bootstrap

    def create(self, topic: str) -> None:
        """Make a topic with four partitions."""
        self.broker.create_topics(topic, partitions=PARTITIONS)

    def stop(self) -> None:
        """End the broker and remove both folders."""
        self.broker.stop()
        self.stranger.stop()


@cache
def secured_cluster() -> SecuredCluster:
    """One for all tests of this process."""
    cluster = SecuredCluster()
    atexit.register(cluster.stop)
    cluster.broker.start()
    return cluster


class _Kept(logging.Handler):
    """Keeps what librdkafka logs at its most talkative."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class SecurityCase(SourceCase):
    """Clients made from a configuration file, as ``service.py`` makes them."""

    skip = kafka.missing() or (None if program("openssl") else "there is no openssl")

    @property
    def cluster(self) -> SecuredCluster:
        return secured_cluster()

    def setUp(self) -> None:
        super().setUp()
        self.settings: Sequence[str] = ()
        self.log = self.enterContext(capturedLogs())
        self.kept = _Kept()
        self.logger = logging.Logger("librdkafka", logging.DEBUG)
        self.logger.addHandler(self.kept)

    def sasl(
        self,
        protocol: str,
        mechanism: str = "SCRAM-SHA-256",
        *,
        at: str = "",
        user: str = USER,
        password: str = PASSWORD,
        ca: Any = "",
    ) -> Sequence[str]:
        """Settings to log in; ``at``: where, if not at the listener for it."""
        broker = self.cluster.broker
        ca = broker.certificates.ca if ca == "" else ca
        with_ca = {"ca": str(ca)} if protocol == "SASL_SSL" and ca else {}
        return self.security(
            at or broker.addresses[protocol],
            protocol=protocol,
            mechanism=mechanism,
            user=user,
            password=password,
            **with_ca,
        )

    def ssl(self, at: str = "", certificate: bool = True) -> Sequence[str]:
        """Settings for TLS without a login."""
        files = self.cluster.broker.certificates
        own = {"certificate": str(files.client), "key": str(files.client_key)}
        return self.security(
            at or self.cluster.broker.addresses["SSL"],
            protocol="SSL",
            ca=str(files.ca),
            **(own if certificate else {}),
        )

    @staticmethod
    def security(address: str, **values: str) -> Sequence[str]:
        """Settings of the block ``service.kafka.security``."""
        block = (f"service.kafka.security.{k}={v}" for k, v in values.items())
        return [f"service.kafka.bootstrap-servers={address}", *block]

    def make_publisher(self) -> ConfluentPublisher:
        """Started."""
        properties, _ = producer_properties(config(*self.settings))
        publisher = ConfluentPublisher(
            properties=properties,
            topics=[self.topic],
            workers=self.workers,
            clock=reactor,
            logger=self.logger,
        )
        publisher.start()
        self.addCleanup(publisher.close)
        return publisher

    def make_source(
        self, bootstrap: str, topic: str, group: str, in_hand: int
    ) -> ConfluentSource:
        """Not started; its address is that of the settings."""
        return ConfluentSource(
            properties=consumer_properties(config(*self.settings).kafka, group),
            topic=topic,
            workers=self.workers,
            clock=reactor,
            now=time.monotonic,
            logger=self.logger,
            in_hand=in_hand,
            restarted=lambda: None,
        )

    def assert_no_secret(self, *more: str) -> None:
        """Neither password is in any event, nor in what librdkafka says."""
        shown = [*more, *self.kept.lines]
        for event in self.log:
            shown += [formatEvent(event), *(str(each) for each in event.values())]
        for secret in (PASSWORD, WRONG_PASSWORD):
            self.assertEqual([each for each in shown if secret in each], [])

    def warnings(self) -> list[str]:
        """What an operator was told."""
        return [formatEvent(e) for e in self.log if e["log_level"] is LogLevel.warn]


class LoginTests(SecurityCase, TestCase):
    """A record goes out and comes in."""

    async def both_ways(self, settings: Sequence[str]) -> None:
        """Publish, consume, commit and check, without a word of trouble."""
        self.settings = settings
        publisher = self.make_publisher()
        source = await self.started()
        outcomes: list[Any] = []
        publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
        await self.until(lambda: outcomes == [None] and b"v" in self.values())
        (record,) = (each for each in self.received if each.value == b"v")
        source.settle(record)
        await self.arrives(record.partition, record.offset + 1)
        await publisher.check()
        self.assertEqual(self.warnings(), [])
        self.assert_no_secret()

    async def test_sasl_ssl_scram_sha_256(self) -> None:
        """As the original logs in."""
        await self.both_ways(self.sasl("SASL_SSL", "SCRAM-SHA-256"))

    async def test_sasl_ssl_scram_sha_512(self) -> None:
        """The longer hash."""
        await self.both_ways(self.sasl("SASL_SSL", "SCRAM-SHA-512"))

    async def test_sasl_ssl_plain(self) -> None:
        """The password itself, which TLS hides."""
        await self.both_ways(self.sasl("SASL_SSL", "PLAIN"))

    async def test_sasl_plaintext_scram(self) -> None:
        """SCRAM hides the password without TLS as well."""
        await self.both_ways(self.sasl("SASL_PLAINTEXT", "SCRAM-SHA-256"))

    async def test_sasl_plaintext_plain(self) -> None:
        """Nothing is hidden."""
        await self.both_ways(self.sasl("SASL_PLAINTEXT", "PLAIN"))

    async def test_client_certificate(self) -> None:
        """TLS, where the certificate stands for the login."""
        await self.both_ways(self.ssl())

    async def test_properties_for_the_log(self) -> None:
        """The list of properties shows no password."""
        properties, _ = producer_properties(config(*self.sasl("SASL_SSL")))
        shown = dict(secrets_hidden(properties))
        self.assertEqual(shown["sasl.password"], "***")
        self.assertEqual(shown["sasl.username"], USER)
        self.assert_no_secret(str(shown), repr(config(*self.sasl("SASL_SSL"))))


class MistakeTests(SecurityCase, TestCase):
    """One line for each client when it starts, the reason in health, no secret."""

    async def told(self, settings: Sequence[str], *words: str) -> None:
        """These words are in each line and in the health check's."""
        self.settings = settings
        publisher = self.make_publisher()
        source = self.make_source("", self.topic, self.group, 10)
        self.addCleanup(source.stop)
        source.start(self.receive)
        outcomes: list[Any] = []
        publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
        await self.until(lambda: len(self.warnings()) == 2, 5)
        # Several attempts later nothing more has been said.
        await deferLater(reactor, 2)
        lines = self.warnings()
        self.assertEqual(len(lines), 2, lines)
        error = await self.assertFailure(
            ensureDeferred(publisher.check()), TemporaryError
        )
        for text in (*lines, str(error)):
            self.assertNotIn("\n", text)
            for word in words:
                self.assertIn(word, text)
        for client in ("producer", "consumer"):
            self.assertEqual(len([li for li in lines if f"the {client}" in li]), 1)
        self.assertEqual(outcomes, [])
        self.assert_no_secret(str(error), repr(error))

    async def test_wrong_password(self) -> None:
        """SCRAM."""
        await self.told(
            self.sasl("SASL_SSL", password=WRONG_PASSWORD),
            "invalid credentials",
            "service.kafka.security.user, .password",
        )

    async def test_wrong_password_plain(self) -> None:
        """PLAIN."""
        await self.told(
            self.sasl("SASL_PLAINTEXT", "PLAIN", password=WRONG_PASSWORD),
            "Invalid username or password",
        )

    async def test_unknown_user(self) -> None:
        """Brokers do not tell whether it is the user or the password."""
        await self.told(
            self.sasl("SASL_PLAINTEXT", user="nobody"),
            "invalid credentials",
            "service.kafka.security.user",
        )

    async def test_wrong_mechanism(self) -> None:
        """Those that the broker knows are named."""
        await self.told(
            self.sasl("SASL_PLAINTEXT", "SCRAM-SHA-512"),
            "PLAIN,SCRAM-SHA-256",
            ".mechanism",
        )

    async def test_wrong_ca(self) -> None:
        """Somebody else's CA."""
        stranger = self.cluster.stranger.certificates.ca
        await self.told(
            self.sasl("SASL_SSL", ca=stranger),
            "certificate verify failed",
            ".ca",
        )

    async def test_system_cas(self) -> None:
        """Without a CA of one's own, those of the system count, which is enforced."""
        await self.told(
            self.sasl("SASL_SSL", ca=None),
            "certificate verify failed",
            ".ca",
        )

    async def test_no_client_certificate(self) -> None:
        """A broker that asks for one."""
        await self.told(self.ssl(certificate=False), "certificate")

    async def test_tls_to_plain_port(self) -> None:
        """TLS where there is none."""
        await self.told(self.ssl(self.cluster.bootstrap), "SSL")

    async def test_login_with_tls_to_port_without(self) -> None:
        """SASL_SSL where SASL_PLAINTEXT is spoken."""
        address = self.cluster.broker.addresses["SASL_PLAINTEXT"]
        await self.told(self.sasl("SASL_SSL", at=address), "SSL")

    async def test_plain_to_tls_port(self) -> None:
        """No TLS where it is wanted."""
        await self.told(
            self.security(self.cluster.broker.addresses["SSL"]),
            "service.kafka.security.protocol",
        )

    async def test_plain_to_login_port(self) -> None:
        """No login where it is wanted."""
        await self.told(
            self.security(self.cluster.broker.addresses["SASL_PLAINTEXT"]),
            "service.kafka.security.protocol",
        )

    async def test_login_to_plain_port(self) -> None:
        """A login where nobody wants one."""
        await self.told(
            self.sasl("SASL_PLAINTEXT", at=self.cluster.bootstrap),
            "mechanism",
        )


class RightsTests(SecurityCase, TestCase):
    """What the documentation names as needed is enough."""

    def setUp(self) -> None:
        super().setUp()
        self.strict = SecuredKafkaBroker(_RIGHTS)
        self.addCleanup(self.strict.stop)
        self.strict.start()
        self.strict.create_topics(self.topic, partitions=PARTITIONS)
        self.settings = self.sasl(
            "SASL_PLAINTEXT", at=self.strict.addresses["SASL_PLAINTEXT"]
        )

    def allow(self, kind: Any, name: str, *operations: Any) -> None:
        """Give the user these rights."""
        rights = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL,
                f"User:{USER}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        admin = self.strict.admin()
        for future in admin.create_acls(rights).values():
            future.result(10)

    async def test_publisher(self) -> None:
        """Write and Describe of the topic; no right to the cluster."""
        await deferToThread(
            self.allow,
            ResourceType.TOPIC,
            self.topic,
            AclOperation.WRITE,
            AclOperation.DESCRIBE,
        )
        publisher = self.make_publisher()
        outcomes: list[Any] = []
        publisher.publish(OutgoingRecord(self.topic, b"k", b"v"), outcomes.append)
        await self.until(lambda: outcomes)
        self.assertEqual(outcomes, [None])
        await publisher.check()
        self.assertEqual(self.warnings(), [])

    async def test_publisher_without_write(self) -> None:
        """Fatal to the client, not to us: records wait, in order, for the right."""
        await deferToThread(
            self.allow, ResourceType.TOPIC, self.topic, AclOperation.DESCRIBE
        )
        publisher = self.make_publisher()
        outcomes: list[Any] = []

        def publish(value: bytes) -> None:
            publisher.publish(
                OutgoingRecord(self.topic, b"k", value, (("h", b"x"),)),
                lambda error: outcomes.append((value, error)),
            )

        publish(b"1")
        await self.until(self.warnings)
        publish(b"2")
        # A new producer each second: it fails as the first did.
        await deferLater(reactor, 2.5)
        publish(b"3")
        self.assertEqual((outcomes, publisher.waiting()), ([], 3))
        failure = await self.assertFailure(
            ensureDeferred(publisher.check()), TemporaryError
        )
        self.assertIn("authorization failed", str(failure))
        (line,) = self.warnings()
        self.assertIn("authorization failed", line)
        self.assertIn("service.kafka.security.user", line)
        await deferToThread(
            self.allow, ResourceType.TOPIC, self.topic, AclOperation.WRITE
        )
        await self.until(lambda: len(outcomes) == 3)
        self.assertEqual(outcomes, [(b"1", None), (b"2", None), (b"3", None)])
        await publisher.check()

    async def test_publisher_ends_without_write(self) -> None:
        """It can be ended while it fails; whoever waits is told."""
        await deferToThread(
            self.allow, ResourceType.TOPIC, self.topic, AclOperation.DESCRIBE
        )
        publisher = self.make_publisher()
        outcomes: list[Any] = []
        publisher.publish(OutgoingRecord(self.topic, b"k", b"1"), outcomes.append)
        await self.until(self.warnings)
        await publisher.close()
        self.assertEqual([type(each) for each in outcomes], [PublishFailed])
        self.assertEqual(publisher.waiting(), 0)

    async def test_source(self) -> None:
        """Read and Describe of the topic, Read of the group."""
        await deferToThread(
            self.allow,
            ResourceType.TOPIC,
            self.topic,
            AclOperation.READ,
            AclOperation.DESCRIBE,
        )
        await deferToThread(
            self.allow, ResourceType.GROUP, self.group, AclOperation.READ
        )
        source = self.make_source("", self.topic, self.group, 10)
        self.addCleanup(source.stop)
        source.start(self.receive)
        await self.until(lambda: len(source.partitions) == PARTITIONS)
        self.assertEqual(self.warnings(), [])

    async def test_source_without_group(self) -> None:
        """Told in one line; the right, once given, needs no restart."""
        await deferToThread(
            self.allow,
            ResourceType.TOPIC,
            self.topic,
            AclOperation.READ,
            AclOperation.DESCRIBE,
        )
        source = self.make_source("", self.topic, self.group, 10)
        self.addCleanup(source.stop)
        source.start(self.receive)
        await self.until(self.warnings)
        await deferLater(reactor, 2)
        (line,) = self.warnings()
        self.assertIn("Group authorization failed", line)
        self.assertIn("service.kafka.security.user", line)
        self.assertEqual(source.partitions, [])
        await deferToThread(
            self.allow, ResourceType.GROUP, self.group, AclOperation.READ
        )
        await self.until(lambda: len(source.partitions) == PARTITIONS)
