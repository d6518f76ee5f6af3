"""What the store in Cassandra takes from the block ``datastax-java-driver``.

The block was made for the Java driver; its names, units and defaults are those
of that driver's own reference (``reference.conf`` of java-driver 4). Most of
its some hundred settings tune that driver and mean nothing here.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct

from ariproxy.config import values as v
from ariproxy.config.values import Kind, Secret
from ariproxy.errors import ConfigError

__all__ = ["BLOCK", "CassandraSettings", "cassandra_settings"]

BLOCK = "datastax-java-driver"

TIMEOUT = 1.0
"""Seconds in which a call is answered, or fails. (The Java driver's: 2.)"""

CONNECT_TIMEOUT = 2.0
"""Seconds in which a node accepts a connection. (The Java driver's: 5.)"""

_CONSISTENCIES = (
    *("ANY", "ONE", "TWO", "THREE", "QUORUM", "ALL"),
    *("LOCAL_ONE", "LOCAL_QUORUM", "EACH_QUORUM"),
)
# The names of the Java driver's classes, which may also be given with package.
_AUTHENTICATION = "PlainTextAuthProvider"
_TLS = "DefaultSslEngineFactory"


class CassandraSettings(Struct, frozen=True, kw_only=True):
    """Where Cassandra is and how it is asked; times in seconds.

    ``datacentre`` is empty where the first contact point tells it. ``ignored``
    are the keys of the block that mean nothing here.
    """

    contact_points: tuple[tuple[str, int], ...]
    keyspace: str
    datacentre: str
    timeout: float
    connect_timeout: float
    consistency: str
    username: str | None
    password: Secret | None
    tls: ssl.SSLContext | None
    ignored: tuple[str, ...]


def cassandra_settings(block: Mapping[str, Any]) -> CassandraSettings:
    """Read the block: nested dicts and lists of texts.

    Raises ``ConfigError`` with all problems, each with its full key. No line
    holds a password.
    """
    reading = _Reading(block)
    username = password = tls = None
    if reading.implementation("advanced.auth-provider", _AUTHENTICATION):
        username = reading.required("advanced.auth-provider.username", v.AnyText)
        password = reading.required("advanced.auth-provider.password", v.Password)
    if reading.implementation("advanced.ssl-engine-factory", _TLS):
        tls = _tls(reading, "advanced.ssl-engine-factory.")
    if reading.raw("basic.cloud.secure-connect-bundle") is not None:
        reading.problem(
            "basic.cloud.secure-connect-bundle",
            "not available; name the nodes in basic.contact-points",
        )
    settings = CassandraSettings(
        contact_points=reading.contact_points("basic.contact-points"),
        keyspace=reading.keyspace("basic.session-keyspace"),
        datacentre=reading.value(
            "basic.load-balancing-policy.local-datacenter", v.Text, ""
        ),
        timeout=reading.value("basic.request.timeout", v.Duration, TIMEOUT),
        connect_timeout=reading.value(
            "advanced.connection.connect-timeout", v.Duration, CONNECT_TIMEOUT
        ),
        consistency=reading.choice(
            "basic.request.consistency", _CONSISTENCIES, "LOCAL_ONE"
        ),
        username=username,
        password=password,
        tls=tls,
        ignored=tuple(reading.ignored()),
    )
    if reading.problems:
        raise ConfigError(*reading.problems)
    return settings


class _Reading:
    """Looks values up, and remembers the problems and which keys were read."""

    def __init__(self, block: Mapping[str, Any]) -> None:
        self._block = block
        self._read: set[str] = set()
        self.problems: list[str] = []

    def problem(self, key: str, text: str) -> None:
        self.problems.append(f"{BLOCK}.{key}: {text}")

    def raw(self, key: str) -> Any:
        self._read.add(key)
        value: Any = self._block
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def value(self, key: str, hint: Any, default: Any) -> Any:
        """The value, read as this kind of the configuration."""
        raw = self.raw(key)
        if raw is None:
            return default
        kind = next(note for note in get_args(hint) if isinstance(note, Kind))
        try:
            return kind.read(raw)
        except ValueError:
            found = "something else" if kind.secret else repr(raw)
            self.problem(key, f"found {found}; allowed: {kind.allowed}")
            return default

    def required(self, key: str, hint: Any) -> Any:
        if self.raw(key) is None:
            self.problem(key, f"missing, required with {_AUTHENTICATION}")
        return self.value(key, hint, None)

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        raw = self.raw(key)
        if raw is None:
            return default
        if raw not in allowed:
            self.problem(key, f"found {raw!r}; allowed: {', '.join(allowed)}")
            return default
        return str(raw)

    def implementation(self, block: str, known: str) -> bool:
        """Whether a part that is off without its class is wanted."""
        raw = self.raw(f"{block}.class")
        if raw is None:
            return False
        if str(raw).rpartition(".")[2] != known:
            self.problem(f"{block}.class", f"found {raw!r}; allowed: {known}")
            return False
        return True

    def contact_points(self, key: str) -> tuple[tuple[str, int], ...]:
        points = self.value(key, v.Texts, ())
        kind = next(note for note in get_args(v.Server) if isinstance(note, Kind))
        found = []
        for point in points or ["127.0.0.1:9042"]:
            try:
                host, _, port = kind.read(point).rpartition(":")
            except ValueError:
                self.problem(key, f"found {point!r}; allowed: a list of {kind.allowed}")
            else:
                found.append((host.strip("[]"), int(port)))
        return tuple(found)

    def keyspace(self, key: str) -> str:
        """As in CQL: letters are small unless the name is quoted."""
        raw = self.raw(key)
        if raw is None:
            self.problem(key, "missing, required with the store cassandra")
            return ""
        name = re.fullmatch(r'(\w{1,48})|"(\w{1,48})"', str(raw), re.ASCII)
        if not name:
            self.problem(
                key, f"found {raw!r}; allowed: up to 48 letters, digits and '_'"
            )
            return ""
        return name[2] or name[1].lower()

    def ignored(self) -> Iterator[str]:
        """The keys that nothing has read."""
        for key in _keys(self._block, ""):
            if key not in self._read:
                yield f"{BLOCK}.{key}"


def _keys(block: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}"


def _tls(reading: _Reading, block: str) -> ssl.SSLContext | None:
    """What is to be trusted and shown; certificates are checked in any case."""
    context = ssl.create_default_context()
    trusted = reading.value(f"{block}truststore-path", v.Text, None)
    shown = reading.value(f"{block}keystore-path", v.Text, None)
    # Passwords of Java's stores; a PEM file of CAs has none.
    reading.raw(f"{block}truststore-password")
    password = reading.value(f"{block}keystore-password", v.Password, None)
    context.check_hostname = reading.value(
        f"{block}hostname-validation", v.Boolean, True
    )
    if trusted and _is_pem(reading, f"{block}truststore-path", trusted):
        context = _trusting(context.check_hostname)
        try:
            context.load_verify_locations(trusted)
        except ssl.SSLError as error:
            reading.problem(f"{block}truststore-path", f"{trusted}: {error.reason}")
    if shown and _is_pem(reading, f"{block}keystore-path", shown):
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(
                shown, password=password.reveal() if password else ""
            )
        except ssl.SSLError as error:
            text = f"{shown}: no certificate with its key, or not this password"
            reading.problem(f"{block}keystore-path", f"{text} ({error.reason})")
    return context


def _trusting(check_hostname: bool) -> ssl.SSLContext:
    """Without the system's CAs: a truststore replaces them, as in Java."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname
    return context


def _is_pem(reading: _Reading, key: str, path: str) -> bool:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reading.problem(key, f"{path} cannot be read: {error.strerror}")
        return False
    if b"-----BEGIN " in data:
        return True
    if "truststore" in key:
        mend = f"keytool -list -rfc -keystore {path} > ca.pem, and name ca.pem here"
    else:
        mend = (
            f"keytool -importkeystore -srckeystore {path} -destkeystore key.p12 "
            "-deststoretype PKCS12, then openssl pkcs12 -in key.p12 -out key.pem, "
            "and name key.pem here"
        )
    reading.problem(key, f"{path} is no PEM file; convert it: {mend}")
    return False
