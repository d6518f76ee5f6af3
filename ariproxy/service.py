"""The composition root: builds everything inside out, starts and stops it in order.

The only file that builds concrete classes; everything else gets what it needs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool

from ariproxy.admission import Admission
from ariproxy.ari.asterisk import Asterisk
from ariproxy.ari.resources import EVENT_TYPES, UNKNOWN_EVENT
from ariproxy.ari.rest import CONNECTION_KEPT, RestClient, basic_authorization
from ariproxy.ari.socket_rest import SocketRest
from ariproxy.ari.websocket import EventSocket
from ariproxy.callcontext import CallContexts
from ariproxy.callsetup import CallSetup
from ariproxy.commands import CommandStream
from ariproxy.config import Config
from ariproxy.delivery import DeliveryMarks
from ariproxy.errors import ConfigError
from ariproxy.events import EventStream
from ariproxy.health import Condition, Health
from ariproxy.interfaces import ICachedStore
from ariproxy.kafka.confluent_publisher import ConfluentPublisher
from ariproxy.kafka.confluent_source import ConfluentSource
from ariproxy.kafka.settings import consumer_properties, producer_properties
from ariproxy.liveness import Liveness
from ariproxy.memory import Trimming
from ariproxy.metrics import WAITING_RECORDS, WEBSOCKET_CONNECTED, Metrics
from ariproxy.store.backends import open_store, store_ttl
from ariproxy.store.cached import CachedStore
from ariproxy.threads import Workers
from ariproxy.tls import client_tls, https_policy
from ariproxy.web import site

COMMANDS_IN_HAND = 1000
"""Commands read and not settled, beyond which the partitions are paused."""

FINISH_COMMANDS = 10.0
DRAIN_EVENTS = 2.0
FLUSH_RECORDS = 10.0
"""Seconds that each step of stopping may take."""

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


class Proxy(Service):
    """One Stasis application on one Asterisk, from start to stop."""

    _log = Logger()

    def __init__(self, config: Config, around: Surroundings) -> None:
        self._config = config
        self._around = around
        reactor = around.reactor
        self._kafka_workers = Workers(reactor, "kafka", 4)
        self._store_workers = Workers(reactor, "store", 1)
        self.metrics = _metrics(config, reactor)
        store = open_store(
            config, around.reactor, around.now, around.node, self._store_workers
        )
        self._store: ICachedStore = CachedStore(
            store,
            config.cache.size,
            config.cache.ttl,
            around.steady,
            self.metrics,
        )
        self._contexts = CallContexts(
            self._store, reactor, around.new_id, config.forget_after
        )
        self._publisher, left_out = _publisher(config, reactor, self._kafka_workers)
        self._socket_rest = SocketRest(self._send, reactor, config.commands.timeout)
        switch = config.asterisk.rest_over_websocket
        self._uses_socket = switch != "off"
        self._asterisk = Asterisk(
            _rest(config, reactor), self._socket_rest, only_socket=switch == "on"
        )
        setup = CallSetup(around.steady, self.metrics.call_setup_delay)
        verbose = config.logging.level == "debug"
        self.events = EventStream(
            application=config.stasis_app,
            topic=config.kafka.events_and_responses_topic,
            commands_topic=config.kafka.commands_topic,
            contexts=self._contexts,
            publisher=self._publisher,
            metrics=self.metrics,
            clock=reactor,
            replaced=self._replaced,
            started=setup.started,
            rest_answered=self._socket_rest.answered,
            held=config.events.buffer,
            verbose=verbose,
        )
        self._liveness = Liveness(
            self._asterisk, self._store, reactor, store_ttl(config)
        )
        self._socket = _socket(
            config, around, self.events.receive, self._opened, self._socket_rest.closed
        )
        self._source = ConfluentSource(
            properties=consumer_properties(
                config.kafka,
                config.kafka.consumer_group,
                f"{config.name}-{around.node}-{config.httpport}",
            ),
            topic=config.kafka.commands_topic,
            workers=self._kafka_workers,
            clock=reactor,
            now=around.steady,
            logger=_librdkafka_log(config),
            in_hand=max(COMMANDS_IN_HAND, 2 * config.commands.concurrency),
            restarted=lambda: self.metrics.stream_restarted("commandResponse"),
        )
        self.commands = CommandStream(
            topic=config.kafka.events_and_responses_topic,
            commands_topic=config.kafka.commands_topic,
            dead_letter_topic=config.kafka.dead_letter_topic,
            source=self._source,
            asterisk=self._asterisk,
            contexts=self._contexts,
            publisher=self._publisher,
            metrics=self.metrics,
            clock=reactor,
            answered=setup.answered,
            admission=Admission(
                allow=config.commands.allow,
                deny=config.commands.deny,
                max_age=config.commands.max_age,
                now=around.now,
                clock=reactor,
            ),
            marks=(
                DeliveryMarks(store, reactor)
                if config.commands.delivery == "at-most-once"
                else None
            ),
            concurrency=config.commands.concurrency,
            verbose=verbose,
        )
        self.health = Health(
            [self._store, self._publisher, self._asterisk],
            [
                Condition("websocket", self._websocket_problem),
                Condition("commands", self._commands_problem),
            ],
            clock=reactor,
            now=around.now,
        )
        self._trimming = Trimming(
            reactor,
            lambda: self._publisher.taken,
            self._publisher.waiting,
            self._kafka_workers,
        )
        self.metrics.gauge(WAITING_RECORDS, self._publisher.waiting)
        self.metrics.gauge(WEBSOCKET_CONNECTED, lambda: float(self._socket.is_open))
        self.metrics.availability(self.health.availability)
        self._port: Any = None
        self._replaced_already = False
        if left_out or config.ignored:
            self._log.debug(
                "Settings without meaning here are ignored: {names}",
                names=", ".join([*config.ignored, *left_out]),
            )

    def privilegedStartService(self) -> None:
        """Bind the HTTP port, which may need rights that are given up later."""
        config = self._config
        interface = config.http.interface
        try:
            self._port = self._around.reactor.listenTCP(
                config.httpport,
                site(self.metrics, self.health, self._around.reactor),
                interface=interface,
            )
        except CannotListenError as error:
            raise ConfigError(
                f"service.httpport: cannot listen on {interface}:{config.httpport}: "
                f"{error.socketError}; free the port or set another one"
            ) from error

    def startService(self) -> None:
        """Start all parts. Nothing outside needs to be there yet.

        Raises ``ConfigError`` where a library refuses its settings.
        """
        super().startService()
        self._kafka_workers.start()
        self._store_workers.start()
        self._publisher.start()
        self.commands.start()
        self.health.start()
        self._trimming.start()
        self._socket.start()
        self._log.info(
            "ari-proxy serves application {application}: Asterisk {asterisk}, "
            "Kafka {kafka}, store {store}, HTTP on port {port}",
            application=self._config.stasis_app,
            asterisk=self._config.asterisk.server,
            kafka=self._config.kafka.bootstrap_servers,
            store=self._config.persistence_store,
            port=self._config.httpport,
        )

    def stopService(self) -> Deferred[None]:
        """No new commands; finish, publish, commit, close. Fires when all is done."""
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        self._log.info("Stopping: no new commands are taken")
        self.health.stop()
        self._trimming.stop()
        if unfinished := await self.commands.stop(FINISH_COMMANDS):
            self._log.warn(
                "{count} commands have no answer yet and are run again",
                count=unfinished,
            )
        self._liveness.stop()
        await self._socket.stop()
        if held := await self.events.drain(DRAIN_EVENTS):
            self._log.error(
                "{count} events lost: the store does not answer", count=held
            )
        self._contexts.stop()
        await self._contexts.write_unwritten()
        if waiting := await self._publisher.flush(FLUSH_RECORDS):
            self._log.error("{count} records lost: Kafka is away", count=waiting)
        await self._source.stop()
        await self._publisher.close()
        await self._store.close()
        if self._port is not None:
            await self._port.stopListening()
        await self._kafka_workers.stop(1.0)
        await self._store_workers.stop(1.0)
        self._log.info("Stopped")

    def _send(self, message: bytes) -> bool:
        return self._socket.send(message)

    def _opened(self) -> None:
        if self._uses_socket:
            self._socket_rest.opened()
        self._liveness.start()

    def _replaced(self) -> None:
        if not self._replaced_already:
            self._replaced_already = True
            self._log.info(
                "Another client has taken over application {application}: "
                "this proxy ends",
                application=self._config.stasis_app,
            )
            self._around.end()

    def _websocket_problem(self) -> str | None:
        return None if self._socket.is_open else self._socket.reason

    def _commands_problem(self) -> str | None:
        if self._source.partitions:
            return None
        return f"no partition of {self._config.kafka.commands_topic} is assigned"


def _metrics(config: Config, reactor: Any) -> Metrics:
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


def _publisher(
    config: Config, reactor: Any, workers: Workers
) -> tuple[ConfluentPublisher, list[str]]:
    properties, left_out = producer_properties(config)
    kafka = config.kafka
    publisher = ConfluentPublisher(
        properties=properties,
        topics=[kafka.events_and_responses_topic, kafka.commands_topic],
        workers=workers,
        clock=reactor,
        logger=_librdkafka_log(config),
    )
    return publisher, left_out


def _rest(config: Config, reactor: Any) -> RestClient:
    # As many connections as commands run at once, and one for the ping.
    pool: Any = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = config.commands.concurrency + 1
    pool.cachedConnectionTimeout = CONNECTION_KEPT
    pool.retryAutomatically = False
    agent = Agent(
        reactor,
        contextFactory=https_policy(config.asterisk.ca, _CA),
        connectTimeout=config.akka.connecting_timeout,
        pool=pool,
    )
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


def _socket(
    config: Config,
    around: Surroundings,
    receive: Callable[[bytes], None],
    opened: Callable[[], None],
    closed: Callable[[], None],
) -> EventSocket:
    address = urlsplit(config.websocket.uri)
    secure = address.scheme == "wss"
    host = address.hostname or ""
    endpoint: Any = HostnameEndpoint(
        around.reactor,
        host,
        address.port or (443 if secure else 80),
        timeout=config.akka.connecting_timeout,
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
