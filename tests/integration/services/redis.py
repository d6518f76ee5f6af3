"""Redis from Debian's ``redis-server`` package, with a password or TLS if asked for."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

from tests.integration.services.ports import HOST, free_port
from tests.integration.services.processes import Server, ServerFailed, program


def missing() -> str | None:
    """Tell what is not installed and how to mend it."""
    if not program("redis-server"):
        return "there is no redis-server: install Debian's package of that name"
    if not program("openssl"):
        return "there is no openssl, for certificates: install the package openssl"
    return None


class RedisServer(Server):
    """One Redis that keeps everything in memory: a restart begins empty.

    :ivar host: its address, always 127.0.0.1.
    :ivar port: its only port, which speaks TLS if that was asked for.
    :ivar ca_file: the certificate to trust, ``None`` without TLS.
    """

    name = "redis"
    host = HOST

    def __init__(
        self,
        password: str | None = None,
        *,
        tls: bool = False,
        users: tuple[str, ...] = (),
    ) -> None:
        """Write the configuration of a server that has not started yet.

        :param password: what the user ``default`` has to say; none by default.
        :param tls: speak TLS only, with a certificate for 127.0.0.1 and localhost.
        :param users: further users, as Redis writes them:
            ``"ari on >s3cret ~ari-proxy:* -@all +get +set"``.
        """
        super().__init__(free_port())
        self.password = password
        self.ca_file = self._make_certificate() if tls else None
        lines = [
            f"bind {HOST}",
            f"dir {self.folder}",
            'save ""',
            "appendonly no",
            "daemonize no",
            *(f"user {user}" for user in users),
        ]
        if password is not None:
            lines.append(f"requirepass {password}")
        if self.ca_file:
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-cert-file {self.ca_file}",
                f"tls-key-file {self.folder / 'server.key'}",
                "tls-auth-clients no",
                f"tls-ca-cert-file {self.ca_file}",
            ]
        else:
            lines.append(f"port {self.port}")
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [
            program("redis-server") or "redis-server",
            str(self.folder / "redis.conf"),
        ]

    def is_ready(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, *words: str) -> str:
        """Send one command on a new connection; for tests that have no reactor.

        :returns: the answer as Redis sent it, without the last line end; a text value
            is preceded by a line with its length.
        :raises OSError: Redis is away, or silent for 2 s.
        """
        commands = [words]
        if self.password is not None:
            commands.insert(0, ("AUTH", self.password))
        with self._connect() as connection:
            answer = ""
            for command in commands:
                connection.sendall(_encoded(command))
                answer = connection.recv(65536).decode().removesuffix("\r\n")
            return answer

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((HOST, self.port), 2)
        if not self.ca_file:
            return connection
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return context.wrap_socket(connection, server_hostname=HOST)

    def _make_certificate(self) -> Path:
        """Write a key and a certificate signed by itself, for one month."""
        certificate = self.folder / "server.pem"
        run = subprocess.run(
            [
                *(program("openssl") or "openssl", "req", "-x509", "-nodes"),
                *("-newkey", "rsa:2048", "-days", "30", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-keyout", str(self.folder / "server.key")),
                *("-out", str(certificate)),
            ],
            capture_output=True,
            text=True,
        )
        if run.returncode:
            raise ServerFailed(f"redis: no certificate:\n{run.stderr}")
        return certificate


def _encoded(command: tuple[str, ...]) -> bytes:
    """Write a command in Redis' protocol (RESP 2)."""
    parts = [f"*{len(command)}\r\n".encode()]
    for word in command:
        data = word.encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
