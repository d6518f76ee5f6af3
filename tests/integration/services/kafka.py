"""Apache Kafka (KRaft, one node) from Maven's jars, on the machine's Java."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
)

from tests.integration.services.certificates import Certificates
from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import (
    Server,
    ServerFailed,
    program,
    services_folder,
    wait_until,
)

VERSION = "4.1.0"
OLD_VERSION = "3.9.1"
"""The newest that pykafka can speak to."""

USER, PASSWORD = "ari", "s3cret-of-kafka"
"""Who may log in to a secured broker, by any mechanism."""

_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_LOGINS = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'user_{USER}="{PASSWORD}";',
    "SCRAM-SHA-256": _SCRAM,
    "SCRAM-SHA-512": _SCRAM,
}
MECHANISMS = tuple(_LOGINS)

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


def jars(version: str = VERSION) -> Path:
    """Return the folder of Kafka's jars, which need not be there."""
    return services_folder() / f"kafka-{version}"


def missing(version: str = VERSION) -> str | None:
    """Tell what is not installed and how to mend it."""
    if not any(jars(version).glob("kafka_2.13-*.jar")):
        return f"Kafka's jars are not in {jars(version)}: run `make services`"
    if not program("java"):
        return "there is no java: install default-jre-headless, or run `make services`"
    return None


class KafkaBroker(Server):
    """One Kafka broker with an empty log.

    :ivar bootstrap: the address for ``bootstrap.servers``.
    """

    name = "kafka"

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, version: str = VERSION
    ) -> None:
        """Write the configuration of a broker that has not started yet.

        :param settings: broker settings that replace or join those of this module.
        :param version: whose jars are used; see :func:`missing`.
        """
        super().__init__(free_port())
        self.version = version
        self.bootstrap = f"{HOST}:{self.port}"
        controller = f"{HOST}:{free_port()}"
        self._write_settings(
            {
                **_SETTINGS,
                "controller.quorum.voters": f"1@{controller}",
                "log.dirs": str(self.folder / "data"),
                **self._listeners(controller),
                **(settings or {}),
            }
        )

    def _listeners(self, controller: str) -> dict[str, str]:
        return {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
        }

    def _format_options(self) -> list[str]:
        """What is written into an empty log beside what every broker has."""
        return []

    def command(self) -> list[str]:
        return [
            *(program("java") or "java", "-Xmx128m", *_JAVA),
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            *("-cp", f"{jars(self.version)}/*", "kafka.Kafka", str(self._properties)),
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
            options = self._format_options()
            shutil.copytree(_formatted(self._properties, self.version, options), data)
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

    def add_partitions(self, topic: str, total: int) -> None:
        """Give a topic more partitions."""
        admin = self.admin()
        for future in admin.create_partitions([NewPartitions(topic, total)]).values():
            future.result(10)

    def alter_topic(self, topic: str, name: str, value: str) -> None:
        """Change one setting of a topic."""
        admin = self.admin()
        resource = ConfigResource(
            ConfigResource.Type.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            ],
        )
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(10)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        lines = (f"{key}={value}\n" for key, value in settings.items())
        self._properties.write_text("".join(lines))


class SecuredKafkaBroker(KafkaBroker):
    """A broker that also listens for clients that log in, or show a certificate.

    :ivar bootstrap: without security, for the tests themselves.
    :ivar addresses: for ``bootstrap.servers``, by ``security.protocol``. SSL asks for
        the client's certificate.
    :ivar certificates: those of the broker and of a client.
    """

    def _listeners(self, controller: str) -> dict[str, str]:
        self.certificates = Certificates(self.folder)
        secured = ("SASL_PLAINTEXT", "SASL_SSL", "SSL")
        self.addresses = {name: f"{HOST}:{free_port()}" for name in secured}
        listeners = {"PLAINTEXT": self.bootstrap, **self.addresses}
        advertised = ",".join(f"{name}://{at}" for name, at in listeners.items())
        names = [*listeners, "CONTROLLER"]
        return {
            "listeners": f"{advertised},CONTROLLER://{controller}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": ",".join(
                f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}"
                for name in names
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.certificates.server),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca),
            "listener.name.ssl.ssl.client.auth": "required",
            **{
                f"listener.name.{name}.{mechanism.lower()}.sasl.jaas.config": login
                for name in ("sasl_plaintext", "sasl_ssl")
                for mechanism, login in _LOGINS.items()
            },
        }

    def _format_options(self) -> list[str]:
        return [
            option
            for mechanism in MECHANISMS[1:]
            for option in (
                "--add-scram",
                f"{mechanism}=[name={USER},password={PASSWORD}]",
            )
        ]


def _formatted(properties: Path, version: str, options: list[str]) -> Path:
    """Return an empty formatted data folder, made by the first caller (1 s).

    It holds no path and no port, so every broker starts with a copy.
    """
    formatted = jars(version) / ("formatted-with-users" if options else "formatted")
    if formatted.exists():
        return formatted
    scratch = Path(tempfile.mkdtemp(dir=jars(version)))
    config = properties.read_text().replace(
        f"log.dirs={properties.parent / 'data'}", f"log.dirs={scratch / 'data'}"
    )
    (scratch / "server.properties").write_text(config)
    run = subprocess.run(
        [
            *(program("java") or "java", *_JAVA),
            *("-cp", f"{jars(version)}/*", "kafka.tools.StorageTool", "format"),
            *("-t", _CLUSTER_ID, "-c", str(scratch / "server.properties")),
            *options,
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
