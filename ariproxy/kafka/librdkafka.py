"""What producer and consumer of librdkafka have in common."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from ariproxy.errors import ConfigError, PublishFailed, RecordRefused, RecordTooLarge

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
