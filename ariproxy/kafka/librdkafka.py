"""What producer and consumer of librdkafka have in common."""

from __future__ import annotations

import re

from confluent_kafka import KafkaError, KafkaException

from ariproxy.errors import ConfigError, PublishFailed, RecordRefused, RecordTooLarge
from ariproxy.kafka.brokers import AWAY, REFUSED, VAGUE

POLL = 0.1
"""Seconds that a polling thread waits for something to happen."""

_REFUSED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
}


def refused_properties(error: KafkaException) -> ConfigError:
    """For what librdkafka says of properties that it does not accept."""
    said = " ".join(error.args[0].str().split())
    return ConfigError(f"service.kafka, akka.kafka.producer.kafka-clients: {said}")


def publish_error(error: KafkaError) -> Exception:
    """What the failure of one record means to whoever published it."""
    if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return RecordTooLarge(error.str())
    if error.code() in _REFUSED:
        return RecordRefused(error.str())
    return PublishFailed(error.str())


_LOGIN = "see service.kafka.security.user, .password and .mechanism"
_TLS = "see service.kafka.security.protocol, .ca, .certificate and .key"
_RIGHTS = "give the user of service.kafka.security.user the right to it"

_MENDS = {
    KafkaError._AUTHENTICATION: _LOGIN,
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _LOGIN,
    KafkaError._SSL: _TLS,
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _RIGHTS,
}


def explained(error: KafkaError) -> tuple[str, int]:
    """A line for the log and for health, and its weight for ``Brokers``."""
    code = error.code()
    if code == KafkaError._ALL_BROKERS_DOWN:
        # All that it says where a port wants TLS or a login and gets neither.
        return (
            "no broker answers; if they want TLS or a login, "
            "see service.kafka.security.protocol",
            VAGUE,
        )
    # How long it took this time: another number at each attempt.
    text = re.sub(r" \(after \d+ms in state \w+\)", "", error.str()).rstrip(".")
    mend = _MENDS.get(code)
    if mend is None and "certificate" in text:
        # The same trouble may come as that of a broken connection.
        mend = _TLS
    return (f"{text}; {mend}", REFUSED) if mend else (text, AWAY)
