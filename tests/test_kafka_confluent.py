"""confluent-kafka against librdkafka's mock cluster, inside this process."""

from __future__ import annotations

from functools import cache

from confluent_kafka import Producer
from twisted.trial.unittest import TestCase

from ariproxy.sandbox.kafka import CONSUMER, EmbeddedKafka
from tests.confluent_clients import ConfluentClients
from tests.kafka_contract import PublisherContract, SourceContract


class MockCluster:
    """A cluster that makes every topic with four partitions when it is named."""

    def __init__(self) -> None:
        self._kafka = EmbeddedKafka([])
        self.bootstrap = self._kafka.bootstrap_servers

    def create(self, topic: str) -> None:
        """The first request that names it makes it."""
        client = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        client.list_topics(topic, timeout=10)


@cache
def mock_cluster() -> MockCluster:
    """One for all tests of this process; it ends with it."""
    return MockCluster()


class MockClusterCase(ConfluentClients):
    """The tests run on the mock cluster."""

    librdkafka = {name: str(value) for name, value in CONSUMER.items()}
    knows_topics = False
    whole_groups = False

    @property
    def cluster(self) -> MockCluster:
        return mock_cluster()


class ConfluentPublisherTests(MockClusterCase, PublisherContract, TestCase):
    """The contract of publishers."""


class ConfluentSourceTests(MockClusterCase, SourceContract, TestCase):
    """The contract of sources."""
