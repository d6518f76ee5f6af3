"""From the configuration to the parts that stand at the border of the process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.web.client import Agent, HTTPConnectionPool

from ariproxy.admission import Admission
from ariproxy.ari.connecting import ADDRESS_DELAY, AsteriskEndpoints
from ariproxy.ari.resources import EVENT_TYPES, UNKNOWN_EVENT
from ariproxy.ari.rest import CONNECTION_KEPT, RestClient, basic_authorization
from ariproxy.ari.websocket import EventSocket
from ariproxy.config import Config
from ariproxy.kafka.settings import Properties, producer_properties
from ariproxy.metrics import Metrics
from ariproxy.threads import Workers
from ariproxy.tls import client_tls, https_policy

COMMANDS_IN_HAND = 1000
"""Commands read and not settled, beyond which the partitions are paused."""

_CA = "service.asterisk.ca"


class Surroundings(Struct, frozen=True):
    """What the process gives: all that is not the same in a test.

    ``now`` is the time since 1970, ``steady`` a clock that never goes back,
    ``new_id`` gives random UUIDs, ``jitter`` numbers from 0 to 1; ``node`` names
    this machine. ``end`` ends the process in good order.
    """

    reactor: Any
    now: Callable[[], float]
    steady: Callable[[], float]
    new_id: Callable[[], str]
    jitter: Callable[[], float]
    node: str
    end: Callable[[], None]


def metrics(config: Config, reactor: Any) -> Metrics:
    """All counters, at their start."""
    kinds = {each.name: each.kind or "NONE" for each in EVENT_TYPES.values()}
    return Metrics(
        app=config.stasis_app,
        common_tags=config.metrics.common_tags,
        availability_name=config.metrics.measurement_names.backing_service_availability,
        event_types={**kinds, UNKNOWN_EVENT.name: "NONE"},
        clock=reactor,
    )


def _librdkafka_log(config: Config) -> logging.Logger:
    # What matters of it comes by way of errors; the rest repeats each attempt.
    log = logging.getLogger("ariproxy.librdkafka")
    log.disabled = config.logging.level != "debug"
    return log


def verbose(config: Config) -> bool:
    """Whether each message is worth a line of the log."""
    return config.logging.level == "debug"


def publisher(
    config: Config, around: Surroundings, workers: Workers
) -> tuple[Any, list[str]]:
    """The producer, and the Java settings that mean nothing to it."""
    properties, left_out = producer_properties(config)
    kafka = config.kafka
    publisher_class, _ = _clients(config)
    made = publisher_class(
        properties=properties,
        topics=[kafka.events_and_responses_topic, kafka.commands_topic],
        workers=workers,
        clock=around.reactor,
        logger=_librdkafka_log(config),
    )
    return made, left_out


def source(
    config: Config,
    around: Surroundings,
    workers: Workers,
    topic: str,
    properties: Properties,
    restarted: Callable[[], None],
) -> Any:
    """A consumer of one topic."""
    _, source_class = _clients(config)
    return source_class(
        properties=properties,
        topic=topic,
        workers=workers,
        clock=around.reactor,
        now=around.steady,
        logger=_librdkafka_log(config),
        in_hand=max(COMMANDS_IN_HAND, 2 * config.commands.concurrency),
        restarted=restarted,
    )


def _clients(config: Config) -> tuple[type, type]:
    """The classes of producer and consumer; only those configured are loaded."""
    if config.kafka.client == "pykafka":
        from ariproxy.kafka.pykafka_publisher import PykafkaPublisher
        from ariproxy.kafka.pykafka_source import PykafkaSource

        return PykafkaPublisher, PykafkaSource
    from ariproxy.kafka.confluent_publisher import ConfluentPublisher
    from ariproxy.kafka.confluent_source import ConfluentSource

    return ConfluentPublisher, ConfluentSource


def admission(config: Config, around: Surroundings) -> Admission:
    """Which commands may be run."""
    return Admission(
        allow=config.commands.allow,
        deny=config.commands.deny,
        max_age=config.commands.max_age,
        now=around.now,
        clock=around.reactor,
    )


def rest(config: Config, reactor: Any) -> RestClient:
    """Asterisk over HTTP."""
    # As many connections as commands run at once, and one for the ping.
    pool: Any = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = config.commands.concurrency + 1
    pool.cachedConnectionTimeout = CONNECTION_KEPT
    pool.retryAutomatically = False
    endpoints = AsteriskEndpoints(
        reactor,
        https_policy(config.asterisk.ca, _CA),
        config.akka.connecting_timeout,
    )
    agent = Agent.usingEndpointFactory(reactor, endpoints, pool=pool)
    return RestClient(
        agent=agent,
        clock=reactor,
        base=config.rest.uri,
        authorization=basic_authorization(
            config.rest.user, config.rest.password.reveal()
        ),
        user_agent=config.akka.user_agent,
        timeout=config.commands.timeout,
        retries=config.akka.max_retries,
    )


def socket(
    config: Config,
    around: Surroundings,
    receive: Callable[[bytes], None],
    opened: Callable[[], None],
    closed: Callable[[], None],
) -> EventSocket:
    """The websocket to Asterisk."""
    address = urlsplit(config.websocket.uri)
    secure = address.scheme == "wss"
    host = address.hostname or ""
    endpoint: Any = HostnameEndpoint(
        around.reactor,
        host,
        address.port or (443 if secure else 80),
        timeout=config.akka.connecting_timeout,
        attemptDelay=ADDRESS_DELAY,
    )
    if secure:
        tls = client_tls(host, config.asterisk.ca, _CA)
        endpoint = wrapClientTLS(tls, endpoint)
    return EventSocket(
        endpoint=endpoint,
        clock=around.reactor,
        url=config.websocket.uri,
        authorization=basic_authorization(
            config.websocket.user, config.websocket.password.reveal()
        ),
        user_agent=config.akka.user_agent,
        # "infinite" is for peers that time out by themselves; Asterisk does not.
        ping_interval=config.akka.websocket_keep_alive_idle or 10.0,
        jitter=around.jitter,
        receive=receive,
        opened=opened,
        closed=closed,
    )
