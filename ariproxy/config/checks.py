"""What must hold between keys, and what this version cannot do yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from ariproxy.config.keys import Websocket
from ariproxy.config.values import Address, Secret

__all__ = ["contradictions", "derive", "unavailable"]

Values = dict[str, Any]
Problem = Callable[[str, str], None]
"""Called with a key and what is wrong with it."""

NOT_AVAILABLE: dict[str, Callable[[Any], bool]] = {
    "service.stasis-app": lambda app: "," in app,
    "service.asterisk.mode": lambda mode: mode == "outbound",
    "service.asterisk.event-filter.allowed": bool,
    "service.asterisk.event-filter.disallowed": bool,
    "service.kafka.unrouted-events-topic": bool,
    "service.events.all-types": bool,
    "service.events.gap-notices": bool,
    "service.events.resync": bool,
    "service.events.spool": bool,
}
"""For a key of a feature that is still missing: does the value ask for it?"""


def unavailable(values: Mapping[str, Any], found: Callable[[str], str]) -> list[str]:
    """One problem for each missing feature that is asked for."""
    return [
        f"{found(key)}, which is not available in this version"
        for key, asked in NOT_AVAILABLE.items()
        if key in values and asked(values[key])
    ]


def derive(values: Values) -> None:
    """Fill in what follows from other keys; changes ``values``.

    Where the two addresses are given whole, they tell what is missing of
    ``service.asterisk``: files of the original may have no such block.
    """
    websocket: Address | None = values.get("service.websocket-uri")
    rest: Address | None = values.get("service.rest.uri")
    for address in (websocket, rest):
        if address is not None:
            values.setdefault("service.asterisk.server", _server(address.uri))
            _credentials(values, "service.asterisk", address)
    for part in ("user", "password"):
        given = values.get(f"service.rest.{part}")
        if given is not None:
            values.setdefault(f"service.asterisk.{part}", given)
    server = values.get("service.asterisk.server")
    s = "s" if values.get("service.asterisk.tls") else ""
    if rest is not None:
        _credentials(values, "service.rest", rest)
        values["service.rest.uri"] = rest.uri
    elif server:
        values["service.rest.uri"] = f"http{s}://{server}/ari"
    user = values.get("service.asterisk.user")
    password = values.get("service.asterisk.password")
    if user is not None and password is not None:
        values.setdefault("service.rest.user", user)
        values.setdefault("service.rest.password", password)
        if websocket is None and server and "service.stasis-app" in values:
            app = quote(values["service.stasis-app"], safe="")
            websocket = Address(f"ws{s}://{server}/ari/events?app={app}")
        if websocket is not None:
            values["service.websocket-uri"] = _websocket(websocket, user, password)


def _websocket(address: Address, user: str, password: Secret) -> Websocket:
    if address.user is not None and address.password is not None:
        user, password = address.user, address.password
    return Websocket(uri=address.uri, user=user, password=password)


def _credentials(values: Values, block: str, address: Address) -> None:
    if address.user is not None:
        values.setdefault(f"{block}.user", address.user)
        values.setdefault(f"{block}.password", address.password)


def _server(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.port is not None:
        return parts.netloc
    return f"{parts.netloc}:{443 if parts.scheme in ('wss', 'https') else 80}"


def contradictions(values: Mapping[str, Any], problem: Problem) -> None:
    """Report the keys that do not fit together."""
    _application(values, problem)
    _topics(values, problem)
    _kafka_security(values, problem)
    _asterisk_ca(values, problem)
    if values.get("service.redis.ca") and not values.get("service.redis.tls"):
        problem("service.redis.ca", "used with service.redis.tls = true only")
    if values.get("service.redis.username") and not values.get(
        "service.redis.password"
    ):
        problem("service.redis.password", "missing; required with a username")


def _application(values: Mapping[str, Any], problem: Problem) -> None:
    websocket = values.get("service.websocket-uri")
    app = values.get("service.stasis-app")
    if isinstance(websocket, Websocket) and app is not None:
        named = parse_qs(urlsplit(websocket.uri).query).get("app", [])
        if named != [app]:
            problem(
                "service.websocket-uri",
                "its query must hold app= with the application of service.stasis-app",
            )


def _asterisk_ca(values: Mapping[str, Any], problem: Problem) -> None:
    websocket = values.get("service.websocket-uri")
    addresses = [values.get("service.rest.uri")]
    if isinstance(websocket, Websocket):
        addresses.append(websocket.uri)
    secure = any(each and each.startswith(("https:", "wss:")) for each in addresses)
    if values.get("service.asterisk.ca") and not secure:
        problem(
            "service.asterisk.ca",
            "used with service.asterisk.tls = true, or addresses of https and wss, "
            "only",
        )


def _topics(values: Mapping[str, Any], problem: Problem) -> None:
    seen: dict[str, str] = {}
    for name in (
        "commands-topic",
        "events-and-responses-topic",
        "generic-commands-topic",
        "dead-letter-topic",
        "unrouted-events-topic",
    ):
        key = f"service.kafka.{name}"
        topic = values.get(key)
        if topic is not None and topic in seen:
            problem(key, f"the same topic as {seen[topic]}; it must be another")
        elif topic is not None:
            seen[topic] = key


def _kafka_security(values: Mapping[str, Any], problem: Problem) -> None:
    block = "service.kafka.security"
    protocol = values.get(f"{block}.protocol", "PLAIN")
    own = values.get("service.kafka.librdkafka", {})
    if protocol.startswith("SASL_") and not {
        "sasl.username",
        "sasl.mechanism",
        "sasl.mechanisms",
    }.intersection(own):
        for name in ("user", "password"):
            if not values.get(f"{block}.{name}"):
                problem(f"{block}.{name}", f"missing; required with {protocol}")
    if not protocol.endswith("SSL"):
        for name in ("ca", "certificate", "key"):
            if values.get(f"{block}.{name}"):
                problem(f"{block}.{name}", "used with SSL or SASL_SSL only")
    given = [name for name in ("certificate", "key") if values.get(f"{block}.{name}")]
    if len(given) == 1:
        other = "key" if given == ["certificate"] else "certificate"
        problem(f"{block}.{other}", f"missing; required with {block}.{given[0]}")
