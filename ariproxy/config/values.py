"""What the text of a setting may mean: its kinds, and secrets.

A kind reads a text, or a list of texts, and gives a value; it raises
``ValueError`` where the text is none of its own. Numbers, booleans, durations
and sizes are written as in HOCON
(https://github.com/lightbend/config/blob/main/HOCON.md, "Units format").
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Annotated, Any
from urllib.parse import unquote, unquote_plus, urlsplit

from msgspec import Struct

# Longer time spans overflow the clocks and servers that they are meant for.
MAX_SECONDS = 1e9

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_WITH_UNIT = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)

_DURATION_UNITS = {
    name: seconds
    for seconds, names in (
        ((1, 1_000_000_000), "ns nano nanos nanosecond nanoseconds"),
        ((1, 1_000_000), "us micro micros microsecond microseconds"),
        ((1, 1000), "ms milli millis millisecond milliseconds"),
        ((1, 1), "s second seconds"),
        ((60, 1), "m minute minutes"),
        ((3600, 1), "h hour hours"),
        ((86400, 1), "d day days"),
    )
    for name in names.split()
}

_SIZE_UNITS = {
    name: size
    for size, names in (
        (1, "B b byte bytes"),
        (1000, "kB kilobyte kilobytes"),
        (1000**2, "MB megabyte megabytes"),
        (1000**3, "GB gigabyte gigabytes"),
        (1000**4, "TB terabyte terabytes"),
        (1024, "K k Ki KiB kibibyte kibibytes"),
        (1024**2, "M m Mi MiB mebibyte mebibytes"),
        (1024**3, "G g Gi GiB gibibyte gibibytes"),
        (1024**4, "T t Ti TiB tebibyte tebibytes"),
    )
    for name in names.split()
}


class Secret:
    """A text that shows itself only when asked. An empty one is false."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; keep it out of logs, exceptions and addresses."""
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(
            self._text.encode("utf-8", "surrogatepass"),
            other._text.encode("utf-8", "surrogatepass"),
        )

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not to be written anywhere")


class Properties(dict[str, Any]):
    """Settings for a library, passed on unread; only the keys are shown."""

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: ***" for key in self) + "}"


class Kind(Struct, frozen=True):
    """How the text of a setting is read, and what is allowed in one phrase.

    ``secret`` values, and those that may hold one, are never shown.
    """

    read: Callable[[Any], Any]
    allowed: str
    secret: bool = False


class Address(Struct, frozen=True):
    """An address without credentials, and the credentials it held."""

    uri: str
    user: str | None = None
    password: Secret | None = None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _full(pattern: str) -> Callable[[Any], str]:
    compiled = re.compile(pattern, re.ASCII)

    def read(value: Any) -> str:
        if not compiled.fullmatch(_text(value)):
            raise ValueError
        return str(value)

    return read


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True}
    words.update({"false": False, "no": False, "off": False})
    try:
        return words[_text(value).lower()]
    except KeyError:
        raise ValueError from None


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", _text(value), re.ASCII):
            raise ValueError
        number = int(value.partition(".")[0])
        if not least <= number <= most:
            raise ValueError
        return number

    return read


def _duration(least: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        found = _WITH_UNIT.fullmatch(_text(value).strip())
        if not found:
            raise ValueError
        # A number alone is milliseconds.
        unit = _DURATION_UNITS.get(found[2] or "ms")
        if unit is None:
            raise ValueError
        seconds = float(found[1]) * unit[0] / unit[1]
        if not least <= seconds <= MAX_SECONDS:
            raise ValueError
        return seconds

    return read


def _duration_or_infinite(value: Any) -> float | None:
    return None if value in ("infinite", "inf") else _duration(0.001)(value)


def _size(value: Any) -> int:
    found = _WITH_UNIT.fullmatch(_text(value).strip())
    if not found or (found[2] or "B") not in _SIZE_UNITS:
        raise ValueError
    size = float(found[1]) * _SIZE_UNITS[found[2] or "B"]
    if not isfinite(size) or not 1 <= size < 2**62:
        raise ValueError
    return int(size)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(map(_text, value))


def _rules(value: Any) -> tuple[str, ...]:
    rule = _full(r"(?:[A-Z]+|\*) /\S*")
    return tuple(map(rule, _texts(value)))


def _topic(value: Any) -> str:
    if value in (".", ".."):
        raise ValueError
    return _full(r"[A-Za-z0-9._-]{1,249}")(value)


def _server(value: Any) -> str:
    """host:port, as in the authority of an address (RFC 3986, 3.2)."""
    text = _full(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):\d{1,5}")(value)
    if not 1 <= int(text.rpartition(":")[2]) <= 65535:
        raise ValueError
    return text


def _servers(value: Any) -> str:
    servers = [part.strip() for part in _text(value).split(",")]
    for server in servers:
        _server(server.rpartition("://")[2])
    return ",".join(servers)


def _address(value: Any, *schemes: str) -> Address:
    parts = urlsplit(_full(r"[!-~]+")(value))
    if parts.scheme not in schemes or not parts.hostname or parts.port == 0:
        raise ValueError
    authority = parts.netloc.rpartition("@")[2]
    uri = parts._replace(netloc=authority, fragment="").geturl()
    if parts.username is None:
        return Address(uri)
    return Address(uri, unquote(parts.username), Secret(unquote(parts.password or "")))


def _websocket(value: Any) -> Address:
    """Asterisk takes credentials from ``api_key=user:password`` in the query."""
    address = _address(value, "ws", "wss")
    path, _, query = address.uri.partition("?")
    rest = [part for part in query.split("&") if not part.startswith("api_key=")]
    uri = "?".join([path, *(["&".join(rest)] if any(rest) else [])])
    for part in query.split("&"):
        if part.startswith("api_key="):
            user, colon, password = unquote_plus(part[8:]).partition(":")
            if not user or not colon:
                raise ValueError
            return Address(uri, user, Secret(password))
    return Address(uri, address.user, address.password)


def _http(value: Any) -> Address:
    address = _address(value, "http", "https")
    if "?" in address.uri:
        raise ValueError
    return Address(address.uri.rstrip("/"), address.user, address.password)


def _sqlite(value: Any) -> str:
    text = _full(r"jdbc:sqlite:[^\x00\r\n]+")(value)
    if text.partition("?")[0] == "jdbc:sqlite:":
        raise ValueError
    return text


_STORES = {
    "redispersistencestore": "redis",
    "cassandrapersistencestore": "cassandra",
    "sqlitepersistencestore": "sqlite",
    "inmemorypersistencestore": "memory",
}


def _store(value: Any) -> str:
    name = _text(value).rpartition(".")[2].lower()
    if name not in _STORES and value not in _STORES.values():
        raise ValueError
    return _STORES.get(name, name)


def choice(*words: str) -> Kind:
    """One of the words, spelled like this."""
    return Kind(_full("|".join(words)), " or ".join([", ".join(words[:-1]), words[-1]]))


def _tree(value: Any) -> Properties:
    if not isinstance(value, dict):
        raise ValueError
    return Properties(value)


def _properties(value: Any) -> Properties:
    """Nested blocks become dotted names, as for Java properties."""
    found = Properties()
    for name, child in _tree(value).items():
        if isinstance(child, dict):
            inner = _properties(child)
            found.update((f"{name}.{key}", inner[key]) for key in inner)
        elif isinstance(child, list):
            found[name] = ",".join(_texts(child))
        elif child is not None:
            found[name] = child
    return found


WEBSOCKET_ADDRESS = Kind(
    _websocket,
    "an address ws://HOST:PORT/ari/events?app=APP, percent-encoded",
    secret=True,
)
HTTP_ADDRESS = Kind(_http, "an address http://HOST:PORT/ari", secret=True)


Text = Annotated[str, Kind(_full(r"(?s:.*\S.*)"), "a text that is not blank")]
AnyText = Annotated[str, Kind(_text, "a text")]
Name = Annotated[str, Kind(_full(r"[A-Za-z0-9_-]+"), "letters, digits, '-' and '_'")]
User = Annotated[str, Kind(_full(r"[^:\x00-\x1f]+"), "a name without ':'")]
Password = Annotated[
    Secret,
    Kind(
        lambda value: Secret(_text(value)),
        "a text, env:NAME, file:PATH or credential:NAME",
        secret=True,
    ),
]
Boolean = Annotated[bool, Kind(_boolean, "true or false")]
Port = Annotated[int, Kind(_integer(1, 65535), "a port, 1 to 65535")]
Count = Annotated[int, Kind(_integer(1, 2**31 - 1), "a whole number from 1")]
Number = Annotated[int, Kind(_integer(0, 2**31 - 1), "a whole number from 0")]
Duration = Annotated[float, Kind(_duration(0.001), "a duration like 30s or 100ms")]
DurationOrZero = Annotated[float, Kind(_duration(0), "a duration like 5m, or 0")]
DurationOrInfinite = Annotated[
    float | None, Kind(_duration_or_infinite, "a duration like 60s, or infinite")
]
# Redis and SQLite count whole seconds.
Ttl = Annotated[float, Kind(_duration(1), "a duration of 1s at least, like 6h")]
Size = Annotated[int, Kind(_size, "a size like 1GiB, or a number of bytes")]
Texts = Annotated[tuple[str, ...], Kind(_texts, "a list of texts")]
Rules = Annotated[
    tuple[str, ...], Kind(_rules, 'a list like ["POST /channels/**", "* /asterisk/**"]')
]
Topic = Annotated[
    str, Kind(_topic, "a topic: up to 249 letters, digits, '.', '_' and '-'")
]
Server = Annotated[str, Kind(_server, "HOST:PORT")]
Servers = Annotated[str, Kind(_servers, "HOST:PORT, or several with commas between")]
SqliteUrl = Annotated[str, Kind(_sqlite, "jdbc:sqlite:PATH or jdbc:sqlite::memory:")]
Store = Annotated[
    str,
    Kind(
        _store,
        "redis, sqlite, cassandra or memory, or io.retel.ariproxy.persistence.plugin."
        "{Redis,SQLite,Cassandra}PersistenceStore",
    ),
]
Named = Annotated[Properties, Kind(_properties, "a block of texts", secret=True)]
Tree = Annotated[Properties, Kind(_tree, "a block", secret=True)]


def resolve(secret: Secret, environ: Mapping[str, str], folder: str) -> Secret:
    """Fetch a secret that is given as ``env:``, ``file:`` or ``credential:``.

    A relative ``file:`` is looked for in ``folder``; credentials are those of
    systemd (systemd.exec(5), LoadCredential). One line end after the text does
    not count. Raises ``ValueError`` with what is missing.
    """
    source, colon, name = secret.reveal().partition(":")
    if not colon or source not in ("env", "file", "credential"):
        return secret
    if source == "env":
        if name not in environ:
            raise ValueError(f"the environment has no {name}")
        return Secret(environ[name])
    if source == "credential":
        folder = environ.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            raise ValueError(
                f"no credential {name}; systemd gives it with LoadCredential={name}"
            )
        if "/" in name:
            raise ValueError("a credential is a name without '/'")
    path = os.path.join(folder, name)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ValueError(f"the file {path} cannot be read: {reason}") from None
    return Secret(re.sub(r"\r?\n\Z", "", text))
