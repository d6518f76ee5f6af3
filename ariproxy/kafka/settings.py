"""From ``service.conf`` to the properties of librdkafka.

The producer settings of an existing file are those of Kafka's Java client;
they are translated where librdkafka has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ariproxy.config.keys import Config, Kafka

Properties = dict[str, str | int | float | bool]

# Java client -> librdkafka (its CONFIGURATION.md), where the names differ.
_RENAMED = {
    "max.request.size": "message.max.bytes",
    "send.buffer.bytes": "socket.send.buffer.bytes",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
}
_SAME = {
    "acks",
    "batch.size",
    "client.dns.lookup",
    "client.id",
    "compression.type",
    "connections.max.idle.ms",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight.requests.per.connection",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "socket.connection.setup.timeout.ms",
}

LARGEST_RECORD = 1024 * 1024
"""Bytes; the default of the Java client (``max.request.size``)."""


def translated(java: Mapping[str, str]) -> tuple[Properties, list[str]]:
    """Java producer settings for librdkafka, and the names that have no place there.

    ``delivery.timeout.ms`` is left out on purpose: a record waits for Kafka as
    long as it takes.
    """
    properties: Properties = {}
    left_out = []
    for name, value in java.items():
        if value == "-1" and name.endswith("buffer.bytes"):
            # What the operating system gives, which librdkafka takes anyway.
            continue
        if name in _SAME or name in _RENAMED:
            properties[_RENAMED.get(name, name)] = value
        else:
            left_out.append(name)
    acks_all = str(properties.get("acks", "all")) in ("all", "-1")
    if not acks_all or str(properties.get("retries", "1")) == "0":
        # The Java client then gives up idempotence without a word; librdkafka
        # would refuse to start.
        properties.setdefault("enable.idempotence", False)
    if properties.get("batch.size") == "0":
        properties["batch.size"] = "1"
    wait = str(properties.get("reconnect.backoff.ms", ""))
    if wait.isdigit() and "reconnect.backoff.max.ms" not in properties:
        # Alone, the Java client takes it for the longest wait too.
        properties["reconnect.backoff.max.ms"] = max(1000, int(wait))
    return properties, left_out


def common_properties(kafka: Kafka) -> Properties:
    """What producer and consumer share: brokers, security, reconnecting."""
    security = kafka.security
    protocol = "PLAINTEXT" if security.protocol == "PLAIN" else security.protocol
    properties: Properties = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "security.protocol": protocol,
        # librdkafka's own waits, 0.1 s growing to 10 s, are busy at first and
        # would lengthen every outage in the end.
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": 1000,
    }
    # Without a user here, librdkafka's own properties may say how to log in.
    if protocol.startswith("SASL") and security.user:
        properties["sasl.mechanism"] = security.mechanism
        properties["sasl.username"] = security.user
        properties["sasl.password"] = security.password.reveal()
    locations = {
        "ssl.ca.location": security.ca,
        "ssl.certificate.location": security.certificate,
        "ssl.key.location": security.key,
    }
    properties |= {name: path for name, path in locations.items() if path}
    return properties


def producer_properties(config: Config) -> tuple[Properties, list[str]]:
    """The producer's properties, and the Java settings that have no place there."""
    java, left_out = translated(config.akka.producer)
    properties: Properties = {
        **common_properties(config.kafka),
        "acks": "all",
        "enable.idempotence": True,
        "max.in.flight.requests.per.connection": 1,
        "request.timeout.ms": 4000,
        "socket.timeout.ms": 10000,
        # The Java client's partitioner; librdkafka's own default differs.
        "partitioner": "murmur2_random",
        # For ever: what waits is bounded in number, not in time.
        "delivery.timeout.ms": 0,
        "linger.ms": 1,
        "message.max.bytes": LARGEST_RECORD,
        "queue.buffering.max.messages": config.events.buffer,
        "queue.buffering.max.kbytes": 1024 * 1024,
        **java,
        **config.kafka.librdkafka,
    }
    return properties, left_out


# librdkafka refuses nothing that only the other side knows, but logs a warning.
_PRODUCER_ONLY = (
    "acks",
    "batch.",
    "compression.",
    "delivery.timeout",
    "enable.idempotence",
    "linger",
    "message.timeout",
    "partitioner",
    "queue.buffering",
    "request.timeout",
    "retries",
    "retry.backoff",
)


def consumer_properties(
    kafka: Kafka, group: str, instance: str | None = None
) -> Properties:
    """The properties of a consumer in ``group``.

    ``instance`` is the same after a restart: the group then gives the consumer
    its partitions back at once, and does not wait for the one that was killed
    (static membership, KIP-345). ``None`` for a consumer that comes and goes.
    """
    static = {} if instance is None else {"group.instance.id": instance}
    passed_on = {
        name: value
        for name, value in kafka.librdkafka.items()
        if not name.startswith(_PRODUCER_ONLY)
    }
    return {
        **common_properties(kafka),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # As the original: without a committed offset only new commands count.
        "auto.offset.reset": "latest",
        # The Java client's default; librdkafka's own hides open transactions.
        "isolation.level": "read_uncommitted",
        # The assignor that Java consumers of the same group have by default.
        "partition.assignment.strategy": "range",
        # How long the partitions of a consumer that does not return are kept for
        # it: less than the default of 45 s, as another proxy may wait for them.
        "session.timeout.ms": 10000,
        "queued.min.messages": 1000,
        "queued.max.messages.kbytes": 16 * 1024,
        **static,
        **passed_on,
    }


def secrets_hidden(properties: Mapping[str, object]) -> Iterable[tuple[str, object]]:
    """The properties for the log, passwords and keys left out."""
    for name, value in sorted(properties.items()):
        secret = "password" in name or "secret" in name or name.endswith(".pem")
        yield name, "***" if secret else value
