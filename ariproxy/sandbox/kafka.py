"""A Kafka broker inside this process, for tests and demonstrations.

It is librdkafka's mock cluster, which speaks Kafka's protocol over TCP on
127.0.0.1, so other processes of the machine can use it too. It keeps everything
in memory and ends with the process. Seen with librdkafka 2.16:

- works: idempotent producers with acks=all, keys, headers, null values, records
  of 1 MB, consumer groups, commits, ``latest``, ``earliest``;
- every topic is created by the first request that names it, with 4 partitions;
- the first assignment of a group takes 3 seconds; every later one (a member
  joins, leaves, or comes back) as long as ``session.timeout.ms`` less 1 second;
- does not work: a topic with another number of partitions, ``create_topics``,
  ``describe_consumer_groups``.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import Consumer, Producer, TopicPartition

PARTITIONS = 4
"""The partitions of every topic; librdkafka has no setting for it."""


CONSUMER = {"fetch.wait.max.ms": 2, "session.timeout.ms": 6000}
"""What every consumer should have here. A fetch that finds nothing waits to its
end, whatever comes in meanwhile: 500 ms by default. For the other see above."""


class EmbeddedKafka:
    """One broker with these topics, from now until ``close``.

    Raises ``KafkaException`` if it does not come up within 5 seconds.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        # The cluster lives as long as the client that it belongs to; the address
        # given here is replaced by the cluster's own. Level 0 silences a notice
        # that says so.
        self._owner: Producer | None = Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "-", "log_level": 0}
        )
        (broker,) = self._owner.list_topics(timeout=5).brokers.values()
        self.bootstrap_servers = f"{broker.host}:{broker.port}"
        for topic in topics:
            self._owner.list_topics(topic, timeout=5)

    def begin_group(self, group: str, topic: str) -> None:
        """Let a consumer group start at the first record of a topic.

        Without it a group that starts at the latest record misses what is sent
        until its first assignment, which takes seconds here.
        """
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap_servers, "group.id": group}
        )
        try:
            starts = [TopicPartition(topic, each, 0) for each in range(PARTITIONS)]
            consumer.commit(offsets=starts, asynchronous=False)
        finally:
            consumer.close()

    def close(self) -> None:
        """End the broker; its clients see a refused connection. May be repeated."""
        self._owner = None
