"""TLS as a client, with handshakes in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, connect
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface.verify import verifyObject

from ariproxy.errors import ConfigError
from ariproxy.tls import TlsFailure, client_tls, https_policy, tls_failure

KEYS = ("the.ca", "the.host", "the.tls")
HOST = "asterisk.example"


class Own:
    """A certificate that is its own CA, with its key.

    :ivar pem: the certificate.
    :ivar options: those of a server that shows it.
    """

    def __init__(self, *names: str, days: int = 1) -> None:
        """Make one for these names and addresses, valid from or until ``days``."""
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        # OpenSSL looks for a CA by its subject.
        common_name = x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA {serial}")
        subject = x509.Name([common_name])
        now = datetime.now(UTC)
        start = now + timedelta(min(days, 0) - 1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(start)
            .not_valid_after(now + timedelta(days))
            .add_extension(x509.BasicConstraints(True, None), True)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(name) for name in names]), False
            )
        certificate = crypto.X509.from_cryptography(builder.sign(key, SHA256()))
        self.pem = crypto.dump_certificate(crypto.FILETYPE_PEM, certificate)
        self.options = CertificateOptions(
            crypto.PKey.from_cryptography_key(key), certificate
        )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class End(Protocol):
    """One end of a connection: what it heard, and why it is over."""

    heard = b""
    reason: Failure | None = None

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


class _One(Factory):
    noisy = False

    def __init__(self, end: End) -> None:
        self._end = end

    def buildProtocol(self, addr: Any) -> End:
        return self._end


def connected(own: Own, tls: IOpenSSLClientConnectionCreator) -> tuple[End, End]:
    """The client and the server after their handshake."""
    ends: list[End] = []
    sides: list[Any] = []
    clock = Clock()
    for context, is_client in ((tls, True), (own.options, False)):
        ends.append(End())
        factory = _One(ends[-1])
        wrapped = TLSMemoryBIOFactory(context, is_client, factory, clock)
        sides.append(wrapped.buildProtocol(None))
    client, server = sides
    pump = connect(
        server, FakeTransport(server, True), client, FakeTransport(client, False)
    )
    for _ in range(5):
        clock.advance(0.01)
        pump.flush()
    return ends[0], ends[1]


class TlsCase(SynchronousTestCase):
    """Files of certificates."""

    def file(self, *parts: bytes) -> str:
        path = self.mktemp()
        Path(path).write_bytes(b"".join(parts))
        return path

    def tls(self, host: str, own: Own) -> IOpenSSLClientConnectionCreator:
        """A client that asks for a host and trusts the certificate."""
        return client_tls(host, self.file(own.pem), "the.ca")


class TrustTests(TlsCase):
    """Whom to trust."""

    def assert_works(self, own: Own, tls: IOpenSSLClientConnectionCreator) -> None:
        client, server = connected(own, tls)
        self.assertEqual((client.heard, server.heard), (b"hello", b"hello"))

    def test_all_of_a_file(self) -> None:
        """Every certificate in it, whatever stands between them."""
        one, two = Own(HOST), Own(HOST)
        path = self.file(b"# one\n", one.pem, b"\n# two\n", two.pem)
        for own in (one, two):
            self.assert_works(own, client_tls(HOST, path, "the.ca"))

    def test_hosts(self) -> None:
        """By name or address, and by a pattern."""
        own = Own("127.0.0.1", "::1", "b.example", "*.c.example")
        for host in ("127.0.0.1", "::1", "b.example", "B.example", "a.c.example"):
            self.assert_works(own, self.tls(host, own))

    def test_interfaces(self) -> None:
        """Endpoints and HTTP clients can use it."""
        for ca in (None, self.file(Own().pem)):
            tls = client_tls(HOST, ca, "the.ca")
            verifyObject(IOpenSSLClientConnectionCreator, tls)
            verifyObject(IPolicyForHTTPS, https_policy(ca, "the.ca"))

    def test_https(self) -> None:
        """An HTTP client verifies the host that it asks."""
        own = Own(HOST)
        policy = https_policy(self.file(own.pem), "the.ca")
        self.assert_works(own, policy.creatorForNetloc(HOST.encode(), 443))
        client, _ = connected(own, policy.creatorForNetloc(b"b.example", 443))
        self.assertEqual(client.heard, b"")

    def test_unusable_file(self) -> None:
        """One line that names setting, file and reason."""
        begin = b"-----BEGIN CERTIFICATE-----\n"
        for path, text in (
            (self.file(begin, b"no\n"), "holds a certificate that cannot be read"),
            (self.file(Own().pem, begin), "holds a certificate that cannot be read"),
            (self.file(b""), "holds no certificate in PEM form"),
            (self.file(b"\x30\x82\xff"), "holds no certificate in PEM form"),
            (self.mktemp(), "No such file"),
        ):
            for use in (lambda path, key: client_tls(HOST, path, key), https_policy):
                with self.assertRaises(ConfigError) as raised:
                    use(path, "the.ca")
                [line] = raised.exception.problems
                self.assertTrue(line.startswith(f"the.ca: {path}: {text}"), line)
                self.assertNotIn("\n", line)


class FailureTests(TlsCase):
    """What is said when there is no TLS."""

    def assert_refused(
        self, text: str, own: Own, tls: IOpenSSLClientConnectionCreator
    ) -> None:
        """The connection ends for this reason; nothing was sent, nothing logged."""
        client, server = connected(own, tls)
        self.assertEqual((client.heard, server.heard), (b"", b""))
        assert client.reason is not None
        failure = tls_failure(client.reason.value, *KEYS)
        self.assertEqual(failure, TlsFailure(text, True))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_not_trusted(self) -> None:
        """The CAs are others, of a file or the system's."""
        text = "its certificate is not trusted; correct the.ca"
        self.assert_refused(text, Own(HOST), self.tls(HOST, Own(HOST)))
        self.assert_refused(text, Own(HOST), client_tls(HOST, None, "the.ca"))

    def test_out_of_date(self) -> None:
        """It was trusted until yesterday."""
        own = Own(HOST, days=-1)
        text = "its certificate has expired, or is not valid yet; renew it"
        self.assert_refused(text, own, self.tls(HOST, own))

    def test_other_host(self) -> None:
        """The certificate is good, for another host."""
        own = Own("b.example", "127.0.0.1")
        text = "its certificate is for another host; correct the.host"
        for host in (HOST, "127.0.0.2", "::1"):
            self.assert_refused(text, own, self.tls(host, own))

    def test_no_host(self) -> None:
        """Without subjectAltName it is nobody's (RFC 9525, 6.3)."""
        own = Own()
        text = (
            "its certificate names no host (no subjectAltName); "
            "make one that names the.host"
        )
        for host in (HOST, "b.example", "127.0.0.1"):
            self.assert_refused(text, own, self.tls(host, own))

    def test_no_tls(self) -> None:
        """Any other reason, with or without words of OpenSSL."""
        error = SSL.Error([("SSL routines", "", "wrong version number")])
        text = "TLS failed (wrong version number); correct the.tls"
        self.assertEqual(tls_failure(error, *KEYS), TlsFailure(text, False))
        self.assertIsNotNone(tls_failure(SSL.Error(), *KEYS))

    def test_something_else(self) -> None:
        """Where TLS is not the reason nothing is said of it."""
        for error in (ConnectionLost(), ValueError(), None):
            self.assertIsNone(tls_failure(error, *KEYS))
