"""Certificates for TLS on this machine, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.integration.services.processes import ServerFailed, program

_SERVER = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
_CLIENT = "extendedKeyUsage=clientAuth\n"


class Certificates:
    """A CA of its own, and a server and a client that it vouches for.

    :ivar ca: the CA's certificate.
    :ivar client: the client's certificate; ``client_key`` is its key.
    :ivar server: the server's key, certificate and CA, in this order: what Kafka
        calls a keystore of the type PEM.
    """

    def __init__(self, folder: Path) -> None:
        """Make them in the folder, which must be there (0.6 s).

        :raises ServerFailed: there is no openssl, or it failed.
        """
        self._folder = folder
        self.ca = folder / "ca.pem"
        self.client = folder / "client.pem"
        self.client_key = folder / "client.key"
        self.server = folder / "server-all.pem"
        self._openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"),
            *("-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem"),
        )
        self._signed("server", "/CN=localhost", _SERVER)
        self._signed("client", "/CN=ari-proxy", _CLIENT)
        parts = ("server.key", "server.pem", "ca.pem")
        self.server.write_text("".join((folder / name).read_text() for name in parts))

    def _signed(self, name: str, subject: str, extensions: str) -> None:
        (self._folder / f"{name}.ext").write_text(extensions)
        self._openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", subject),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-days", "30"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", f"{name}.ext", "-out", f"{name}.pem"),
        )

    def _openssl(self, *arguments: str) -> None:
        try:
            run = subprocess.run(
                [program("openssl") or "openssl", *arguments],
                cwd=self._folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            raise ServerFailed(f"no certificate: {error}") from error
        if run.returncode:
            raise ServerFailed(f"no certificate:\n{run.stderr}")
