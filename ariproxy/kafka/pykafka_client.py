"""What publisher and source by pykafka share: names, settings, connecting.

Importing this module raises ``ConfigError`` where pykafka cannot be imported.

Of pykafka only the requests and their answers are used. Its own producer sends
records of one partition in another order after an error, gives some of them no
report at all and never recovers from an outage; its own balanced consumer
commits what was read, not what was done.
"""

from __future__ import annotations

import logging
import socket
import ssl
import warnings
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ariproxy.errors import ConfigError, TemporaryError
from ariproxy.kafka.brokers import AWAY, REFUSED
from ariproxy.kafka.settings import LARGEST_RECORD, Properties

try:
    with warnings.catch_warnings():
        # pkg_resources, which pykafka needs, announces its own end.
        warnings.simplefilter("ignore")
        from pykafka import KafkaClient
        from pykafka.broker import Broker
        from pykafka.common import CompressionType, OffsetType
        from pykafka.exceptions import (
            ERROR_CODES,
            InvalidTopic,
            MessageSetDecodeFailure,
            SocketDisconnectedError,
            TopicAuthorizationFailed,
            UnknownTopicOrPartition,
        )
        from pykafka.membershipprotocol import GroupMembershipProtocol
        from pykafka.protocol import (
            ConsumerGroupProtocolMetadata,
            PartitionFetchRequest,
            PartitionOffsetCommitRequest,
            PartitionOffsetFetchRequest,
            PartitionOffsetRequest,
            ProduceRequest,
        )
        from pykafka.protocol import Message as _Message
except ImportError as error:
    raise ConfigError(
        f"service.kafka.client: pykafka cannot be imported ({error}); install "
        "ari-proxy[pykafka], which brings it and a setuptools below 82, or set the "
        "client confluent"
    ) from error

# Type checkers take it for its base class of the same name.
Message: Any = _Message

__all__ = [
    "ERROR_CODES",
    "Broker",
    "Connection",
    "ConsumerGroupProtocolMetadata",
    "GroupMembershipProtocol",
    "InvalidTopic",
    "Message",
    "MessageSetDecodeFailure",
    "OffsetType",
    "PartitionFetchRequest",
    "PartitionOffsetCommitRequest",
    "PartitionOffsetFetchRequest",
    "PartitionOffsetRequest",
    "ProduceRequest",
    "PykafkaSettings",
    "TopicAuthorizationFailed",
    "UnknownTopicOrPartition",
    "Unusable",
    "explained",
    "hush",
    "in_one_line",
    "named",
    "pykafka_settings",
]

PROTOCOL = "2.0.0"
"""The broker version to tell pykafka: it then asks for the table of versions."""

ANSWER_TIMEOUT = 6.0
"""Seconds that a broker may take for any answer but that to a join."""

CONNECT_TIMEOUT = 3.0

FETCH = 1
"""The key of the fetch request (Kafka protocol)."""

NEWEST_FETCH = 2
"""The newest version of it that pykafka speaks; Kafka 4 begins with 4 (KIP-896)."""

# Codes of the Kafka protocol that pykafka has no name for.
_NAMES = {
    18: "RecordListTooLarge",
    19: "NotEnoughReplicas",
    20: "NotEnoughReplicasAfterAppend",
    31: "ClusterAuthorizationFailed",
    32: "InvalidTimestamp",
    76: "UnsupportedCompressionType",
    87: "InvalidRecord",
}

_COMPRESSION = {"none": CompressionType.NONE, "gzip": CompressionType.GZIP}
_FILES = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")


class Unusable(TemporaryError):
    """Brokers that are there, but need a person before pykafka can use them."""


class Tls:
    """Wraps a socket as pykafka wants it.

    pykafka does not tell which host the socket leads to, so the name in the
    broker's certificate is not compared: whoever has a certificate of the CA
    counts as a broker.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, plain: socket.socket) -> ssl.SSLSocket:
        """A socket with its handshake done; raises ``ssl.SSLError``."""
        return self._context.wrap_socket(plain)


class PykafkaSettings(Struct, frozen=True):
    """What pykafka can do of librdkafka's properties."""

    hosts: str
    tls: Tls | None
    acks: int
    compression: int
    largest_record: int
    buffer: int
    group: str
    offset_reset: int


def pykafka_settings(properties: Properties) -> PykafkaSettings:
    """The settings; raises ``ConfigError`` for what pykafka cannot do."""
    acks = str(properties.get("acks", "all"))
    compression = str(
        properties.get("compression.type", properties.get("compression.codec", "none"))
    )
    if compression not in _COMPRESSION:
        raise ConfigError(
            f"compression.type: found {compression}; pykafka compresses with gzip or "
            "not at all: set one of these, or service.kafka.client = confluent"
        )
    earliest = properties.get("auto.offset.reset") in ("earliest", "smallest")
    return PykafkaSettings(
        hosts=str(properties["bootstrap.servers"]).replace(" ", ""),
        tls=_tls(properties),
        acks=-1 if acks == "all" else int(acks),
        compression=_COMPRESSION[compression],
        largest_record=int(properties.get("message.max.bytes", LARGEST_RECORD)),
        buffer=int(properties.get("queue.buffering.max.messages", 100_000)),
        group=str(properties.get("group.id", "")),
        offset_reset=OffsetType.EARLIEST if earliest else OffsetType.LATEST,
    )


def _tls(properties: Properties) -> Tls | None:
    protocol = str(properties.get("security.protocol", "PLAINTEXT")).upper()
    if protocol == "PLAINTEXT":
        return None
    if protocol != "SSL":
        raise ConfigError(
            f"service.kafka.security.protocol: found {protocol}; pykafka has no SASL: "
            "set SSL or PLAINTEXT, or service.kafka.client = confluent"
        )
    others = [name for name in properties if "ssl." in name and name not in _FILES]
    if others:
        raise ConfigError(
            f"service.kafka.librdkafka: pykafka has no {', '.join(sorted(others))}; "
            "leave it out, or set service.kafka.client = confluent"
        )
    ca, certificate, key = (properties.get(name) for name in _FILES)
    if not ca:
        raise ConfigError(
            "service.kafka.security.ca: missing; required with pykafka, which does "
            "not compare the names in the brokers' certificates, so that any "
            "certificate of a public CA would do"
        )
    try:
        context = ssl.create_default_context(cafile=str(ca))
        context.check_hostname = False
        if certificate:
            # A password for the key would be asked for at the terminal.
            context.load_cert_chain(str(certificate), str(key), password="")
    except OSError as error:
        files = ", ".join(str(each) for each in (ca, certificate, key) if each)
        raise ConfigError(
            f"service.kafka.security: cannot use {files}: {error}"
        ) from error
    return Tls(context)


class Connection:
    """One pykafka client, used by one thread until its first error.

    Blocks until the brokers have answered. Raises ``TemporaryError`` when none
    does, or when they speak another protocol; pykafka may raise anything else.
    """

    def __init__(self, settings: PykafkaSettings) -> None:
        _reach(settings)
        timeout = round(ANSWER_TIMEOUT * 1000)
        self._tls = settings.tls
        # Topics refer to the client weakly, and it to them.
        try:
            self._client = KafkaClient(
                hosts=settings.hosts,
                socket_timeout_ms=timeout,
                offsets_channel_socket_timeout_ms=timeout,
                ssl_config=settings.tls,
                broker_version=PROTOCOL,
            )
        except SocketDisconnectedError as error:
            raise TemporaryError(
                "the port is open, but gives no answer; does it want TLS, or a "
                "client certificate (service.kafka.security)?"
            ) from error
        self._topics: dict[str, Any] = {}
        self._versions = self._any_broker().fetch_api_versions().api_versions
        oldest = self._versions[FETCH].min
        if oldest > NEWEST_FETCH:
            raise Unusable(
                "the brokers speak the protocol of Kafka 4, which pykafka cannot: "
                "set service.kafka.client = confluent"
            )

    def leaders(self, topic: str) -> Mapping[int, Any]:
        """The leading broker of each partition.

        Raises pykafka's ``UnknownTopicOrPartition``, ``InvalidTopic`` or
        ``TopicAuthorizationFailed``.
        """
        if topic not in self._topics:
            self._topics[topic] = self._client.topics[topic.encode()]
        return {
            number: partition.leader
            for number, partition in self._topics[topic].partitions.items()
        }

    def refresh(self) -> None:
        """Learn of new partitions and leaders."""
        self._client.update_cluster()

    def partitions(self, topic: str) -> int:
        """Ask how many partitions the topic has; raises what ``leaders`` raises."""
        answer = self._any_broker().request_metadata([topic.encode()])
        if answer is None:
            raise SocketDisconnectedError("no answer to a request for metadata")
        found = answer.topics[topic.encode()]
        if found.err:
            raise ERROR_CODES.get(found.err, TemporaryError)(named(found.err))
        return len(found.partitions)

    def coordinator(self, group: str) -> Any:
        """The broker that keeps the group."""
        return self._client.cluster.get_group_coordinator(group.encode())

    def patient(self, broker: Any, timeout: float) -> Any:
        """A second connection to the broker, which may take its time to answer."""
        return Broker(
            broker.id,
            broker.host,
            broker.port,
            self._client.cluster.handler,
            round(timeout * 1000),
            round(timeout * 1000),
            ssl_config=self._tls,
            broker_version=PROTOCOL,
            api_versions=self._versions,
        )

    def _any_broker(self) -> Any:
        for broker in self._client.brokers.values():
            if broker.connected:
                return broker
        raise SocketDisconnectedError("no broker is connected")


def _reach(settings: PykafkaSettings) -> None:
    """Reach one of the brokers; of its own attempts pykafka tells no reason."""
    reasons = []
    kind = TemporaryError
    for address in settings.hosts.split(","):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), CONNECT_TIMEOUT) as plain:
                if settings.tls is not None:
                    settings.tls.wrap_socket(plain).close()
            return
        except ssl.SSLCertVerificationError as error:
            kind = Unusable
            text = error.verify_message
            reasons.append(f"{address}: {text} (service.kafka.security.ca)")
        except ssl.SSLError as error:
            kind = Unusable
            reasons.append(f"{address}: {in_one_line(error)}; does it speak TLS?")
        except OSError as error:
            reasons.append(f"{address}: {in_one_line(error)}")
    raise kind("; ".join(reasons))


def explained(error: Exception) -> tuple[str, int]:
    """A line for the log and for health, and its weight for ``Brokers``."""
    return in_one_line(error), REFUSED if isinstance(error, Unusable) else AWAY


def named(code: int) -> str:
    """The name of an error code of the Kafka protocol."""
    known = ERROR_CODES.get(code)
    return known.__name__ if known else _NAMES.get(code, f"error {code}")


def in_one_line(error: BaseException) -> str:
    """What an error says; many of pykafka's say nothing but their class."""
    text = " ".join(str(error).split())
    if isinstance(error, TemporaryError | OSError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hush(logger: logging.Logger) -> None:
    """Let pykafka log only where ``logger`` may.

    It logs each attempt with a traceback; what matters comes as an error.
    """
    level = logging.CRITICAL + 1 if logger.disabled else logging.NOTSET
    logging.getLogger("pykafka").setLevel(level)
