"""The bare loops: the proxy's libraries with nothing between them.

``python -m benchmarks.bare events|commands PORT BOOTSTRAP EVENTS-TOPIC COMMANDS-TOPIC``

What they do is the least that anybody must do to move the bytes; no errors, no store,
no order of commands, no commits, no metrics, no log.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import msgspec
import treq.client
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from msgspec import UNSET, Raw, Struct, UnsetType
from treq.content import content
from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers

from benchmarks.broker import PARTITIONS
from benchmarks.frames import APPLICATION

reactor: Any = _reactor

AT_ONCE = 100
"""Commands under way; the proxy's default."""

PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "max.in.flight.requests.per.connection": 1,
    "partitioner": "murmur2_random",
    "linger.ms": 1,
    "queue.buffering.max.kbytes": 1024 * 1024,
}
"""As the proxy's own."""

encode = msgspec.json.Encoder().encode


class _Publisher:
    """A producer, polled by a thread."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = Producer({**PRODUCER, "bootstrap.servers": bootstrap})
        self._topic = topic
        self.delivered = 0
        reactor.callInThread(self._poll)

    def publish(self, key: str, value: bytes) -> None:
        self._producer.produce(self._topic, value, key, on_delivery=self._delivered)

    def _delivered(self, error: object, message: object) -> None:
        self.delivered += 1

    def _poll(self) -> None:
        while reactor.running:
            self._producer.poll(0.1)


# -- events -------------------------------------------------------------------------


class _Variables(Struct):
    CALL_CONTEXT: str = ""


class _Channel(Struct):
    id: str
    channelvars: _Variables


class _Event(Struct):
    type: str
    channel: _Channel


class _EventResource(Struct):
    type: str
    id: str


class _EventRecord(Struct):
    type: str
    commandsTopic: str
    payload: Raw
    callContext: str
    resources: list[_EventResource]
    commandId: None = None
    commandRequest: None = None


class _EventLoop(WebSocketClientProtocol):
    contexts: dict[str, str] = {}
    decode = msgspec.json.Decoder(_Event).decode
    publisher: _Publisher
    commands_topic: str

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        event = self.decode(payload)
        channel = event.channel
        if event.type == "StasisStart":
            self.contexts[channel.id] = channel.channelvars.CALL_CONTEXT
        context = self.contexts[channel.id]
        resources = [_EventResource("CHANNEL", channel.id)]
        record = _EventRecord(
            event.type, self.commands_topic, Raw(payload), context, resources
        )
        self.publisher.publish(context, encode(record))


def move_events(port: int, publisher: _Publisher, commands_topic: str) -> None:
    """Connect the websocket."""
    _EventLoop.publisher = publisher
    _EventLoop.commands_topic = commands_topic
    factory = WebSocketClientFactory(
        f"ws://127.0.0.1:{port}/ari/events?app={APPLICATION}"
    )
    factory.setProtocolOptions(utf8validateIncoming=False)
    factory.protocol = _EventLoop
    reactor.connectTCP("127.0.0.1", port, factory)


# -- commands -----------------------------------------------------------------------


class _AriCommand(Struct):
    method: str
    url: str
    body: Raw | UnsetType = UNSET


class _Command(Struct):
    callContext: str
    commandId: str
    ariCommand: _AriCommand


class _Payload(Struct):
    body: Raw | UnsetType
    status_code: int


class _CommandRequest(Struct):
    method: str
    url: str


class _Response(Struct):
    type: str
    commandsTopic: str
    payload: _Payload
    callContext: str
    resources: list[Any]
    commandId: str
    commandRequest: _CommandRequest


class _CommandLoop:
    decode = msgspec.json.Decoder(_Command).decode

    def __init__(self, port: int, publisher: _Publisher, commands_topic: str) -> None:
        self._base = f"http://127.0.0.1:{port}/ari"
        self._publisher = publisher
        self._commands_topic = commands_topic
        self._headers = Headers(
            {
                "Authorization": ["Basic YmVuY2g6YmVuY2g="],
                "Content-Type": ["application/json"],
            }
        )
        self._waiting: deque[bytes] = deque()
        self._running = 0
        pool: Any = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = AT_ONCE
        pool.retryAutomatically = False
        self._client = treq.client.HTTPClient(Agent(reactor, pool=pool))

    def take(self, values: list[bytes]) -> None:
        self._waiting.extend(values)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._running < AT_ONCE:
            self._running += 1
            ensureDeferred(self._carry_out(self._waiting.popleft()))

    async def _carry_out(self, value: bytes) -> None:
        command = self.decode(value)
        ari = command.ariCommand
        response = await self._client.request(
            ari.method,
            self._base + ari.url,
            headers=self._headers,
            data=None if ari.body is UNSET else bytes(ari.body),
        )
        body = await content(response)
        answer = _Response(
            "RESPONSE",
            self._commands_topic,
            _Payload(Raw(body) if body else UNSET, response.code),
            command.callContext,
            [],
            command.commandId,
            _CommandRequest(ari.method, ari.url),
        )
        self._publisher.publish(command.callContext, encode(answer))
        self._running -= 1
        self._go_on()


def _consume(bootstrap: str, topic: str, loop: _CommandLoop) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bare"})
    consumer.assign(
        [TopicPartition(topic, each, OFFSET_END) for each in range(PARTITIONS)]
    )
    while reactor.running:
        first = consumer.poll(0.1)
        if first is not None:
            values = [each.value() for each in (first, *consumer.consume(499, 0))]
            reactor.callFromThread(loop.take, values)


def move_commands(
    port: int, bootstrap: str, publisher: _Publisher, commands_topic: str
) -> None:
    """Begin to consume."""
    loop = _CommandLoop(port, publisher, commands_topic)
    reactor.callInThread(_consume, bootstrap, commands_topic, loop)


def main() -> None:
    """Run one of the loops until the process is told to end."""
    which, port, bootstrap, events_topic, commands_topic = sys.argv[1:]

    def start() -> None:
        publisher = _Publisher(bootstrap, events_topic)
        if which == "events":
            move_events(int(port), publisher, commands_topic)
        else:
            move_commands(int(port), bootstrap, publisher, commands_topic)

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
