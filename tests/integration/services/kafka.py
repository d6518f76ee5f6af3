"""Apache Kafka 4.1 (KRaft, one node) from Maven's jars, on the machine's Java."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import (
    Server,
    ServerFailed,
    program,
    services_folder,
    wait_until,
)

VERSION = "4.1.0"
_JAVA = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"

# The dedupe buffer takes 128 MB of heap by default, all that the broker has. The
# session time-out is how long a broker that was killed waits for its own old
# registration, 9 s by default.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.threads": "1",
    "broker.heartbeat.interval.ms": "200",
    "broker.session.timeout.ms": "1000",
}


def jars() -> Path:
    """Return the folder of Kafka's jars, which need not be there."""
    return services_folder() / f"kafka-{VERSION}"


def missing() -> str | None:
    """Tell what is not installed and how to mend it."""
    if not any(jars().glob("kafka_2.13-*.jar")):
        return f"Kafka's jars are not in {jars()}: run `make services`"
    if not program("java"):
        return "there is no java: install default-jre-headless, or run `make services`"
    return None


class KafkaBroker(Server):
    """One Kafka broker with an empty log.

    :ivar bootstrap: the address for ``bootstrap.servers``.
    """

    name = "kafka"

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """Write the configuration of a broker that has not started yet.

        :param settings: broker settings that replace or join those of this module.
        """
        super().__init__(free_port())
        self.bootstrap = f"{HOST}:{self.port}"
        self._controller_port = free_port()
        controller = f"{HOST}:{self._controller_port}"
        self._write_settings(
            {
                **_SETTINGS,
                "controller.quorum.voters": f"1@{controller}",
                "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
                "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
                "log.dirs": str(self.folder / "data"),
                **(settings or {}),
            }
        )

    def command(self) -> list[str]:
        return [
            *(program("java") or "java", "-Xmx128m", *_JAVA),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", f"{jars()}/*", "kafka.Kafka", str(self._properties)),
        ]

    def is_ready(self) -> bool:
        # A new client each time: an old one waits for its own back-off.
        admin = self.admin()
        try:
            topics = admin.list_topics(timeout=2).topics.values()
            if any(p.leader < 0 for topic in topics for p in topic.partitions.values()):
                return False
            # The topic of the offsets is made when a group is first asked for, which
            # takes up to 3 s; no consumer shall have to wait for that.
            groups = admin.describe_consumer_groups(["warm-up"], request_timeout=2)
            groups["warm-up"].result()
        except KafkaException:
            return False
        return True

    def admin(self) -> AdminClient:
        """Return a new client for the broker's administration; keep it while used."""
        # log_level 0: an outage that a test asked for is no news.
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def start(self) -> None:
        """Start the broker; consumers and producers need not wait for it.

        :raises ServerFailed: see :meth:`Server.start`.
        """
        data = self.folder / "data"
        if not data.exists():
            shutil.copytree(_formatted(self._properties), data)
        super().start()

    def create_topics(self, *names: str, partitions: int = 1) -> None:
        """Create topics and return when a producer or consumer can use them.

        :raises KafkaException: a topic is there already.
        """
        admin = self.admin()
        topics = [NewTopic(name, partitions, 1) for name in names]
        for future in admin.create_topics(topics).values():
            future.result(10)
        wait_until(lambda: set(names) <= admin.list_topics(timeout=5).topics.keys(), 10)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        lines = (f"{key}={value}\n" for key, value in settings.items())
        self._properties.write_text("".join(lines))


def _formatted(properties: Path) -> Path:
    """Return an empty formatted data folder, made by the first caller (1 s).

    It holds no path and no port, so every broker starts with a copy.
    """
    formatted = jars() / "formatted"
    if formatted.exists():
        return formatted
    scratch = Path(tempfile.mkdtemp(dir=jars()))
    config = properties.read_text().replace(
        f"log.dirs={properties.parent / 'data'}", f"log.dirs={scratch / 'data'}"
    )
    (scratch / "server.properties").write_text(config)
    run = subprocess.run(
        [
            *(program("java") or "java", *_JAVA),
            *("-cp", f"{jars()}/*", "kafka.tools.StorageTool", "format"),
            *("-t", _CLUSTER_ID, "-c", str(scratch / "server.properties")),
        ],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if run.returncode:
        raise ServerFailed(f"kafka: format failed:\n{run.stdout}{run.stderr}")
    try:
        os.rename(scratch / "data", formatted)
    except OSError:
        # Another process was faster; its folder is as good.
        if not formatted.exists():
            raise
    shutil.rmtree(scratch)
    return formatted
