"""The composition root: builds everything inside out, starts and stops it in order.

It builds all that has a part in the work, together with ``parts``; everything
else gets what it needs.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from ariproxy import parts
from ariproxy.ari.asterisk import Asterisk
from ariproxy.ari.socket_rest import SocketRest
from ariproxy.callcontext import CallContexts
from ariproxy.callsetup import CallSetup
from ariproxy.commands import CommandStream
from ariproxy.config import Config
from ariproxy.delivery import DeliveryMarks
from ariproxy.errors import ConfigError
from ariproxy.events import EventStream
from ariproxy.generic import GenericCommands
from ariproxy.health import Condition, Health
from ariproxy.interfaces import ICachedStore, IRecordSource
from ariproxy.kafka.settings import consumer_properties
from ariproxy.liveness import Liveness
from ariproxy.memory import Trimming
from ariproxy.metrics import WAITING_RECORDS, WEBSOCKET_CONNECTED
from ariproxy.parts import Surroundings
from ariproxy.store.backends import open_store, store_ttl
from ariproxy.store.cached import CachedStore
from ariproxy.threads import Workers
from ariproxy.web import site

FINISH_COMMANDS = 10.0
DRAIN_EVENTS = 2.0
FLUSH_RECORDS = 10.0
"""Seconds that each step of stopping may take."""

_CA = "service.asterisk.ca"


class Proxy(Service):
    """One Stasis application on one Asterisk, from start to stop."""

    _log = Logger()

    def __init__(self, config: Config, around: Surroundings) -> None:
        self._config = config
        self._around = around
        reactor = around.reactor
        self._kafka_workers = Workers(reactor, "kafka", 6)
        self._store_workers = Workers(reactor, "store", 1)
        self.metrics = parts.metrics(config, reactor)
        store = open_store(
            config, reactor, around.now, around.node, self._store_workers
        )
        self._store: ICachedStore = CachedStore(
            store, config.cache.size, config.cache.ttl, around.steady, self.metrics
        )
        self._contexts = CallContexts(
            self._store, reactor, around.new_id, config.forget_after
        )
        self._publisher, left_out = parts.publisher(config, around, self._kafka_workers)
        self._socket_rest = SocketRest(self._send, reactor, config.commands.timeout)
        switch = config.asterisk.rest_over_websocket
        self._uses_socket = switch != "off"
        self._asterisk = Asterisk(
            parts.rest(config, reactor), self._socket_rest, only_socket=switch == "on"
        )
        self._setup = CallSetup(around.steady, self.metrics.call_setup_delay)
        self.events = EventStream(
            application=config.stasis_app,
            topic=config.kafka.events_and_responses_topic,
            commands_topic=config.kafka.commands_topic,
            contexts=self._contexts,
            publisher=self._publisher,
            metrics=self.metrics,
            clock=reactor,
            replaced=self._replaced,
            started=self._setup.started,
            rest_answered=self._socket_rest.answered,
            held=config.events.buffer,
            verbose=parts.verbose(config),
        )
        self._liveness = Liveness(
            self._asterisk, self._store, reactor, store_ttl(config)
        )
        self._socket = parts.socket(
            config, around, self.events.receive, self._opened, self._closed
        )
        self._marks = (
            DeliveryMarks(store, reactor)
            if config.commands.delivery == "at-most-once"
            else None
        )
        self._source = self._new_source(
            config.kafka.commands_topic,
            config.kafka.consumer_group,
            f"{config.name}-{around.node}-{config.httpport}",
        )
        self.commands = self._new_commands(self._source)
        self._generic = GenericCommands(
            self._new_generic_commands, reactor, FINISH_COMMANDS
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
        await self._generic.stop()
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
        await self.commands.close()
        await self._generic.close()
        await self._publisher.close()
        await self._store.close()
        if self._port is not None:
            await self._port.stopListening()
        await self._kafka_workers.stop(1.0)
        await self._store_workers.stop(1.0)
        self._log.info("Stopped")

    def _new_source(self, topic: str, group: str, instance: str | None) -> Any:
        return parts.source(
            self._config,
            self._around,
            self._kafka_workers,
            topic,
            consumer_properties(self._config.kafka, group, instance),
            lambda: self.metrics.stream_restarted("commandResponse"),
        )

    def _new_commands(self, source: IRecordSource) -> CommandStream:
        config = self._config
        return CommandStream(
            topic=config.kafka.events_and_responses_topic,
            commands_topic=config.kafka.commands_topic,
            dead_letter_topic=config.kafka.dead_letter_topic,
            source=source,
            asterisk=self._asterisk,
            contexts=self._contexts,
            publisher=self._publisher,
            metrics=self.metrics,
            clock=self._around.reactor,
            answered=self._setup.answered,
            admission=parts.admission(config, self._around),
            marks=self._marks,
            concurrency=config.commands.concurrency,
            verbose=parts.verbose(config),
        )

    def _new_generic_commands(self) -> CommandStream:
        kafka = self._config.kafka
        group = f"{kafka.consumer_group}-generic"
        # It comes and goes with Asterisk, and so is no static member.
        source = self._new_source(kafka.generic_commands_topic or "", group, None)
        return self._new_commands(source)

    def _send(self, message: bytes) -> bool:
        return self._socket.send(message)

    def _opened(self) -> None:
        if self._uses_socket:
            self._socket_rest.opened()
        self._liveness.start()
        if self._config.kafka.generic_commands_topic is not None:
            self._generic.opened()

    def _closed(self) -> None:
        self._socket_rest.closed()
        self._generic.closed()

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
