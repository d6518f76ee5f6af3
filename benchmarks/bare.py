"""The bare loops: the proxy's libraries with nothing between them.

``python -m benchmarks.bare WHICH PORT BOOTSTRAP EVENTS-TOPIC COMMANDS-TOPIC``, where
WHICH is ``events``, ``http`` or ``websocket``; the latter two are ways of commands.

What they do is the least that anybody must do to move the bytes; no errors, no store,
no order of commands, no commits, no metrics, no log.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from functools import partial
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

AT_ONCE_HTTP = 100
"""Commands under way over HTTP; the proxy's default."""

AT_ONCE_WEBSOCKET = 256
"""Commands under way on the websocket."""

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
    _connect(port, _EventLoop)


def _connect(port: int, protocol: type[WebSocketClientProtocol]) -> None:
    factory = WebSocketClientFactory(
        f"ws://127.0.0.1:{port}/ari/events?app={APPLICATION}"
    )
    factory.setProtocolOptions(utf8validateIncoming=False, tcpNoDelay=True)
    factory.protocol = protocol
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
    """Takes commands, has some of them under way, and publishes the answers."""

    decode = msgspec.json.Decoder(_Command).decode
    at_once: int

    def __init__(self, publisher: _Publisher, commands_topic: str) -> None:
        self._publisher = publisher
        self._commands_topic = commands_topic
        self._waiting: deque[bytes] = deque()
        self._running = 0

    def take(self, values: list[bytes]) -> None:
        self._waiting.extend(values)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._running < self.at_once:
            self._running += 1
            self._send(self.decode(self._waiting.popleft()))

    def _send(self, command: _Command) -> None:
        raise NotImplementedError

    def _answered(self, command: _Command, status: int, body: bytes) -> None:
        ari = command.ariCommand
        answer = _Response(
            "RESPONSE",
            self._commands_topic,
            _Payload(Raw(body) if body else UNSET, status),
            command.callContext,
            [],
            command.commandId,
            _CommandRequest(ari.method, ari.url),
        )
        self._publisher.publish(command.callContext, encode(answer))
        self._running -= 1


class _HttpLoop(_CommandLoop):
    at_once = AT_ONCE_HTTP

    def __init__(self, port: int, *args: Any) -> None:
        super().__init__(*args)
        self._base = f"http://127.0.0.1:{port}/ari"
        self._headers = Headers(
            {
                "Authorization": ["Basic YmVuY2g6YmVuY2g="],
                "Content-Type": ["application/json"],
            }
        )
        pool: Any = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = AT_ONCE_HTTP
        pool.retryAutomatically = False
        self._client = treq.client.HTTPClient(Agent(reactor, pool=pool))

    def _send(self, command: _Command) -> None:
        ensureDeferred(self._carry_out(command))

    async def _carry_out(self, command: _Command) -> None:
        ari = command.ariCommand
        response = await self._client.request(
            ari.method,
            self._base + ari.url,
            headers=self._headers,
            data=None if ari.body is UNSET else bytes(ari.body),
        )
        body = await content(response)
        self._answered(command, response.code, body)
        self._go_on()


class _RestRequest(Struct, omit_defaults=True):
    type: str
    transaction_id: str
    request_id: str
    method: str
    uri: str
    content_type: str = ""
    message_body: str = ""


class _RestResponse(Struct):
    request_id: str
    status_code: int
    message_body: str = ""


class _WebsocketLoop(_CommandLoop):
    at_once = AT_ONCE_WEBSOCKET
    decode_response = msgspec.json.Decoder(_RestResponse).decode

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = 0
        self._pending: dict[str, _Command] = {}
        self.send_message: Callable[[bytes], None]

    def _send(self, command: _Command) -> None:
        ari = command.ariCommand
        self._number += 1
        number = str(self._number)
        self._pending[number] = command
        request = _RestRequest("RESTRequest", "bare", number, ari.method, ari.url[1:])
        if ari.body is not UNSET:
            request.content_type = "application/json"
            request.message_body = bytes(ari.body).decode()
        self.send_message(encode(request))

    def receive(self, message: bytes) -> None:
        response = self.decode_response(message)
        command = self._pending.pop(response.request_id)
        body = response.message_body.encode()
        self._answered(command, response.status_code, body)
        self._go_on()


class _Requests(WebSocketClientProtocol):
    loop: _WebsocketLoop
    opened: Callable[[], None]

    def onOpen(self) -> None:
        self.loop.send_message = self.sendMessage
        type(self).opened()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.loop.receive(payload)


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
    way: str, port: int, bootstrap: str, publisher: _Publisher, commands_topic: str
) -> None:
    """Begin to consume, when the websocket is open."""
    if way == "http":
        loop = _HttpLoop(port, publisher, commands_topic)
        reactor.callInThread(_consume, bootstrap, commands_topic, loop)
        return
    _Requests.loop = _WebsocketLoop(publisher, commands_topic)
    _Requests.opened = partial(
        reactor.callInThread, _consume, bootstrap, commands_topic, _Requests.loop
    )
    _connect(port, _Requests)


def main() -> None:
    """Run one of the loops until the process is told to end."""
    which, port, bootstrap, events_topic, commands_topic = sys.argv[1:]

    def start() -> None:
        publisher = _Publisher(bootstrap, events_topic)
        if which == "events":
            move_events(int(port), publisher, commands_topic)
        else:
            move_commands(which, int(port), bootstrap, publisher, commands_topic)

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
