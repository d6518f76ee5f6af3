"""TLS as a client: whom to trust, and what an operator is told when it fails."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import ref

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from twisted.web.client import HostnameCachingHTTPSPolicy
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from ariproxy.errors import ConfigError

__all__ = [
    "CertificateRefused",
    "Refusal",
    "TlsFailure",
    "client_tls",
    "https_policy",
    "tls_failure",
]

_BEGIN = b"-----BEGIN CERTIFICATE-----"

_OUT_OF_DATE = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL."""


class Refusal(Enum):
    """What is wrong with a certificate, and the mend."""

    NOT_TRUSTED = "its certificate is not trusted; correct {ca}"
    OUT_OF_DATE = "its certificate has expired, or is not valid yet; renew it"
    OTHER_HOST = "its certificate is for another host; correct {host}"
    NO_HOST = (
        "its certificate names no host (no subjectAltName); make one that names {host}"
    )


class CertificateRefused(Exception):
    """The reason why a connection ended whose certificate is no good."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.name)
        self.refusal = refusal


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """Refuses every certificate that is not proved to be that of the host.

    Twisted alone would not do: 26.10 takes a trusted certificate that names no
    host at all for that of every host, as it only logs the ``CertificateError``
    of service_identity.
    """

    def __init__(self, host: str, trust: Any) -> None:
        self._creator = ssl.optionsForClientTLS(host, trust)
        is_address = isIPAddress(host) or isIPv6Address(host)
        self._identity = IPAddress_ID(host) if is_address else DNS_ID(host)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        # The connection belongs to the protocol, which must not belong to it.
        verify = partial(self._verify, ref(tlsProtocol))
        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection

    def _verify(
        self,
        protocol: Any,
        connection: SSL.Connection,
        certificate: crypto.X509,
        code: int,
        depth: int,
        accepted: int,
    ) -> bool:
        """Called by OpenSSL for each certificate of the chain; must not raise."""
        refusal = None
        if not accepted:
            dated = code in _OUT_OF_DATE
            refusal = Refusal.OUT_OF_DATE if dated else Refusal.NOT_TRUSTED
        elif depth == 0:
            refusal = self._refusal(certificate)
        if refusal is not None:
            protocol().failVerification(Failure(CertificateRefused(refusal)))
        return refusal is None

    def _refusal(self, certificate: crypto.X509) -> Refusal | None:
        try:
            patterns = extract_patterns(certificate)
            verify_service_identity(patterns, [self._identity], [])
        except VerificationError:
            return Refusal.OTHER_HOST
        except CertificateError:
            return Refusal.NO_HOST
        except Exception:
            return Refusal.NOT_TRUSTED
        return None


@implementer(IPolicyForHTTPS)
class _Policy:
    def __init__(self, trust: Any) -> None:
        self._trust = trust

    def creatorForNetloc(
        self, hostname: bytes, port: int
    ) -> IOpenSSLClientConnectionCreator:
        return _Verified(hostname.decode("ascii"), self._trust)


def client_tls(
    host: str, ca: str | None, setting: str
) -> IOpenSSLClientConnectionCreator:
    """TLS that verifies the certificate of ``host``, a name or an address.

    :param ca: a PEM file with the certificates to trust; ``None`` for those of
        the system.
    :param setting: the key that names this file.

    Raises ``ConfigError`` when the file cannot be used.
    """
    return _Verified(host, _trust_root(ca, setting))


def https_policy(ca: str | None, setting: str) -> IPolicyForHTTPS:
    """The same for an HTTP client, whatever host it asks."""
    return HostnameCachingHTTPSPolicy(_Policy(_trust_root(ca, setting)))


def _trust_root(ca: str | None, setting: str) -> Any:
    if ca is None:
        return ssl.platformTrust()
    try:
        parts = Path(ca).read_bytes().split(_BEGIN)[1:]
        trusted = [ssl.Certificate.loadPEM(_BEGIN + part) for part in parts]
    except OSError as error:
        raise ConfigError(f"{setting}: {ca}: {error.strerror}") from error
    except (ValueError, crypto.Error) as error:
        text = "holds a certificate that cannot be read; replace the file"
        raise ConfigError(f"{setting}: {ca}: {text}") from error
    if not trusted:
        raise ConfigError(f"{setting}: {ca}: holds no certificate in PEM form")
    return ssl.trustRootFromCertificates(trusted)


class TlsFailure(NamedTuple):
    """Why a connection has no TLS.

    :ivar text: the reason and the mend.
    :ivar refused: whether we refused the certificate; nothing was sent then.
    """

    text: str
    refused: bool


def tls_failure(
    error: BaseException | None, ca: str, host: str, switch: str
) -> TlsFailure | None:
    """What an error of a connection means; ``None`` where TLS is not the reason.

    The others are the keys that name the CAs, the host, and whether and where
    there is TLS.
    """
    if isinstance(error, CertificateRefused):
        text = error.refusal.value.format(ca=ca, host=host)
        return TlsFailure(text, refused=True)
    if not isinstance(error, SSL.Error):
        return None
    reasons = ", ".join(each[2] for each in error.args[0]) if error.args else ""
    return TlsFailure(f"TLS failed ({reasons}); correct {switch}", refused=False)
