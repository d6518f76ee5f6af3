"""Apache Cassandra 5.0 (one node) from Maven's jars, on the machine's Java."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import (
    Server,
    ServerFailed,
    program,
    services_folder,
)

VERSION = "5.0.4"
USER = PASSWORD = "cassandra"
"""The first user of a server with passwords; Cassandra makes it by itself."""

KEYSTORE_PASSWORD = "changeit"

# Only what starting and CQL need of the usual two dozen module flags.
_JAVA = [
    *("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
    *("--add-exports", "java.base/jdk.internal.ref=ALL-UNNAMED"),
    *("--add-opens", "java.base/sun.nio.ch=ALL-UNNAMED"),
    *("--add-opens", "java.base/java.io=ALL-UNNAMED"),
]
# Nobody else is in the cluster: nothing is to be waited for.
_ALONE = {
    "ring_delay_ms": "0",
    "skip_wait_for_gossip_to_settle": "0",
    "initial_token": "0",
    "superuser_setup_delay_ms": "0",
    "shutdown_announce_in_ms": "0",
}
_YAML = """\
cluster_name: test
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{host}:{storage_port}"}}]
listen_address: {host}
rpc_address: {host}
storage_port: {storage_port}
native_transport_port: {port}
start_native_transport: true
data_file_directories: [{folder}/data/data]
commitlog_directory: {folder}/data/commitlog
saved_caches_directory: {folder}/data/saved_caches
hints_directory: {folder}/data/hints
cdc_raw_directory: {folder}/data/cdc
commitlog_sync: periodic
commitlog_sync_period: 10s
"""
_TLS = """\
client_encryption_options:
  enabled: true
  optional: false
  keystore: {keystore}
  keystore_password: {password}
  truststore: {keystore}
  truststore_password: {password}
  store_type: PKCS12
  require_client_auth: {client_tls}
"""
_LOGBACK = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %-5level %logger{20} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


def jars() -> Path:
    """Return the folder of Cassandra's jars, which need not be there."""
    return services_folder() / f"cassandra-{VERSION}"


def missing() -> str | None:
    """Tell what is not installed and how to mend it."""
    if not any(jars().glob("cassandra-all-*.jar")):
        return f"Cassandra's jars are not in {jars()}: run `make services`"
    java = program("java")
    if not java:
        return "there is no java: install default-jre-headless, or run `make services`"
    told = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
    major = int((re.search(r'version "(\d+)', told) or ["", "0"])[1])
    # A later one has no security manager, which Cassandra 5.0 insists on.
    if not 11 <= major <= 17:
        return f"Cassandra 5.0 runs on Java 11 to 17, and {java} is Java {major}"
    return None


class CassandraNode(Server):
    """One Cassandra without keyspaces of its own, in the datacentre datacenter1.

    :ivar ca_file: the certificate to trust, ``None`` without TLS.
    """

    name = "cassandra"
    host = HOST
    datacentre = "datacenter1"
    ready_limit = 60.0

    def __init__(
        self, *, passwords: bool = False, tls: bool = False, client_tls: bool = False
    ) -> None:
        """Write the configuration of a node that has not started yet.

        :param passwords: ask for user and password; see ``USER``.
        :param tls: speak TLS only, with a certificate for 127.0.0.1 and localhost.
        :param client_tls: ask for a certificate too: ``ca_file`` and its key.
        """
        super().__init__(free_port())
        self.ca_file = self._make_certificate() if tls or client_tls else None
        yaml = _YAML.format(
            host=HOST, port=self.port, storage_port=free_port(), folder=self.folder
        )
        if passwords:
            yaml += "authenticator: PasswordAuthenticator\n"
            yaml += "authorizer: CassandraAuthorizer\n"
        if self.ca_file:
            yaml += _TLS.format(
                keystore=self.keystore,
                password=KEYSTORE_PASSWORD,
                client_tls=str(client_tls).lower(),
            )
        conf = self.folder / "conf"
        conf.mkdir()
        (conf / "cassandra.yaml").write_text(yaml)
        (conf / "logback.xml").write_text(_LOGBACK)

    def command(self) -> list[str]:
        properties = {
            "config": f"file://{self.folder}/conf/cassandra.yaml",
            "storagedir": f"{self.folder}/data",
            **_ALONE,
        }
        return [
            *(program("java") or "java", *_JAVA, "-Dcassandra-foreground=yes"),
            *(f"-Dcassandra.{name}={value}" for name, value in properties.items()),
            *("-cp", f"{self.folder}/conf:{jars()}/*"),
            "org.apache.cassandra.service.CassandraDaemon",
        ]

    def is_ready(self) -> bool:
        # The port is opened when CQL works.
        return True

    @property
    def keystore(self) -> Path:
        """The server's certificate and key as PKCS12, see ``KEYSTORE_PASSWORD``."""
        return self.folder / "server.p12"

    def _make_certificate(self) -> Path:
        """Write a key and a certificate signed by itself, for one month."""
        key, certificate = self.folder / "server.key", self.folder / "server.pem"
        self._openssl(
            *("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "30"),
            *("-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        )
        self._openssl(
            *("pkcs12", "-export", "-in", str(certificate), "-inkey", str(key)),
            *("-out", str(self.keystore), "-passout", f"pass:{KEYSTORE_PASSWORD}"),
        )
        return certificate

    def _openssl(self, *arguments: str) -> None:
        run = subprocess.run(
            [program("openssl") or "openssl", *arguments],
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise ServerFailed(f"cassandra: no certificate:\n{run.stderr}")
