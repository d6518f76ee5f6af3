"""A simulated Asterisk as a server: ARI by HTTP and websocket on one port.

``python -m ariproxy.sandbox.asterisk --help`` runs it as a process of its own.
Beside ``/ari`` it serves ``POST /sandbox/call?exten=&caller=`` and
``POST /sandbox/hangup?channel=``: the telephone's side, for other processes.
"""

from __future__ import annotations

import argparse
import hmac
import sys
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any
from uuid import uuid4

import msgspec
from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from ariproxy.sandbox.operations import (
    RestAnswer,
    RestRequest,
    json_answer,
    refusal,
)
from ariproxy.sandbox.routes import answer, parse_query, request_of
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard
from ariproxy.sandbox.websocket_requests import answer_frame


def _nothing(request: RestRequest) -> RestAnswer | None:
    return None


@dataclass
class Faults:
    """What goes wrong, changed at any time by a test.

    ``delay``: seconds until an answer is sent; the request is carried out at
    once. ``refuse_upgrade``: a status instead of a websocket. ``replace``: gives
    another answer for a request, which is then not carried out. ``cut``: the
    connection ends in the middle of the body. ``rest_over_websocket``: switched
    off, requests on the websocket are ignored, as by an old Asterisk.
    """

    delay: float = 0
    refuse_upgrade: int | None = None
    replace: Callable[[RestRequest], RestAnswer | None] = _nothing
    cut: bool = False
    rest_over_websocket: bool = True


class HeardRequest(msgspec.Struct, frozen=True):
    """A request as it came; ``headers`` with lower-case names, none by websocket."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class SimulatedAsterisk:
    """Serves a switchboard.

    :param clock: what delays of answers run on.
    :ivar heard: the last 10,000 requests, by HTTP or websocket.
    :ivar sockets: the open websockets, the oldest first.
    """

    def __init__(
        self, clock: IReactorTime, board: Switchboard, user: str, password: str
    ) -> None:
        self.clock = clock
        self.board = board
        self.faults = Faults()
        self.heard: deque[HeardRequest] = deque(maxlen=10_000)
        self.sockets: list[EventSocket] = []
        self._credentials = f"{user}:{password}"
        self.factory = WebSocketServerFactory(reactor=clock)
        self.factory.protocol = partial(EventSocket, self)  # type: ignore[assignment]
        self.factory.startFactory()
        self.site = Site(_Root(self))

    def allows(self, authorization: str | None, query: dict[str, str]) -> bool:
        """Whether the header, or else ``api_key`` of the query, is right."""
        given = query.get("api_key", "")
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = b64decode(encoded).decode()
            except ValueError:
                return False
        return hmac.compare_digest(given.encode(), self._credentials.encode())

    def carry_out(self, request: RestRequest) -> RestAnswer:
        """The answer to a request that is allowed, or what a fault makes of it."""
        return self.faults.replace(request) or answer(self.board, request)

    def send_raw(self, message: bytes, binary: bool = False) -> None:
        """Send one message as it is on every open websocket."""
        for socket in self.sockets:
            socket.sendMessage(message, binary)

    def close_sockets(self, clean: bool = True) -> None:
        """End every websocket: with a closing handshake, or by cutting it off."""
        for socket in list(self.sockets):
            if clean:
                socket.sendClose(1000)
            else:
                socket.dropConnection(abort=True)


class EventSocket(WebSocketServerProtocol):
    """One websocket at ``/ari/events``."""

    def __init__(self, asterisk: SimulatedAsterisk) -> None:
        super().__init__()
        self._asterisk = asterisk
        self._names: list[str] = []
        self._hears_all = False

    def onConnect(self, request: Any) -> str | None:
        """Note the applications; the credentials are checked already."""
        self._names = request.params["app"][0].split(",")
        self._hears_all = request.params.get("subscribeAll", [""])[0] == "true"
        return "ari" if "ari" in request.protocols else None

    def onOpen(self) -> None:
        """Events flow from now on."""
        self._asterisk.sockets.append(self)
        self._asterisk.board.connect(self._names, self.send_event, self._hears_all)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """A REST request; answered in the order in which they come."""
        faults = self._asterisk.faults
        if not faults.rest_over_websocket:
            return
        frame = answer_frame(payload, self._note, self._names[0])
        frame["asterisk_id"] = self._asterisk.board.settings.asterisk_id
        message = msgspec.json.encode(frame)
        if faults.delay:
            self._asterisk.clock.callLater(faults.delay, self.send_event, message)
        else:
            self.send_event(message)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        """The applications are served no more."""
        if self in self._asterisk.sockets:
            self._asterisk.sockets.remove(self)
        self._asterisk.board.disconnect(self.send_event)

    def send_event(self, message: bytes) -> None:
        """Send one message, unless the socket is closing."""
        if self.state == self.STATE_OPEN:
            self.sendMessage(message)

    def _note(self, request: RestRequest) -> RestAnswer:
        heard = HeardRequest(request.method, request.path, {}, request.body)
        self._asterisk.heard.append(heard)
        return self._asterisk.carry_out(request)


class _Root(Resource):
    """Every path of the HTTP server."""

    isLeaf = True

    def __init__(self, asterisk: SimulatedAsterisk) -> None:
        super().__init__()
        self._asterisk = asterisk
        self._websocket = WebSocketResource(asterisk.factory)

    def render(self, request: Request) -> Any:
        """Answer now, later, or as a websocket."""
        url = request.uri.decode("latin-1")
        query = parse_query(url.partition("?")[2])
        if not self._asterisk.allows(request.getHeader("authorization"), query):
            denied = refusal(401, "Authentication required")
            realm = ("WWW-Authenticate", 'Basic realm="Asterisk REST Interface"')
            return self._send(
                request, msgspec.structs.replace(denied, headers=(realm,))
            )
        if url.startswith("/sandbox/"):
            return self._send(request, _telephone(self._asterisk.board, url, query))
        if not url.startswith("/ari/"):
            return self._send(request, RestAnswer(404, "Not Found"))
        if request.getHeader("upgrade") and url.startswith("/ari/events?"):
            return self._upgrade(request, query)
        return self._answer(request, url.removeprefix("/ari"))

    def _upgrade(self, request: Request, query: dict[str, str]) -> Any:
        refused = self._asterisk.faults.refuse_upgrade
        if refused is not None:
            return self._send(request, refusal(refused, "No websocket now"))
        if not query.get("app"):
            text = "HTTP request is missing param: [app]"
            return self._send(request, refusal(400, text))
        return self._websocket.render(request)

    def _answer(self, request: Request, url: str) -> Any:
        body = b"" if request.content is None else request.content.read()
        method = request.method.decode("latin-1")
        headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        self._asterisk.heard.append(HeardRequest(method, url, headers, body))
        found = self._asterisk.carry_out(request_of(method, url, body))
        delay = self._asterisk.faults.delay
        if not delay:
            return self._send(request, found)
        late = self._asterisk.clock.callLater(delay, self._send_late, request, found)

        def gone(reason: Failure) -> None:
            if late.active():
                late.cancel()

        request.notifyFinish().addErrback(gone)
        return NOT_DONE_YET

    def _send_late(self, request: Request, found: RestAnswer) -> None:
        body = self._send(request, found)
        if body is not NOT_DONE_YET:
            request.write(body)
            request.finish()

    def _send(self, request: Request, found: RestAnswer) -> Any:
        version = self._asterisk.board.settings.version
        request.setResponseCode(found.status, found.reason.encode())
        request.setHeader("server", f"Asterisk/{version}")
        request.setHeader("cache-control", "no-cache, no-store")
        for name, value in found.headers:
            request.setHeader(name, value)
        if found.content_type is not None:
            request.setHeader("content-type", found.content_type)
        else:
            request.defaultContentType = None
        body = b"" if request.method == b"HEAD" else found.body
        if found.status != 204:
            request.setHeader("content-length", str(len(body)))
        if self._asterisk.faults.cut and body:
            request.write(body[: len(body) // 2])
            request.loseConnection()
            return NOT_DONE_YET
        return body


def _telephone(board: Switchboard, url: str, query: dict[str, str]) -> RestAnswer:
    """What happens at the telephones, told by another process."""
    if url.startswith("/sandbox/call?"):
        exten, caller = query.get("exten", "1000"), query.get("caller", "anonymous")
        channel = board.call(exten, caller, query.get("callContext"))
        return json_answer(200, {"id": channel})
    if url.startswith("/sandbox/hangup?"):
        board.hangup(query.get("channel", ""))
        return RestAnswer(204, "No Content")
    return refusal(404, "Resource not found")


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ariproxy.sandbox.asterisk",
        description="A simulated Asterisk: ARI on 127.0.0.1 and calls that come in.",
    )
    parser.add_argument("--port", type=int, default=8088, help="0: any free one")
    parser.add_argument("--user", default="asterisk")
    parser.add_argument("--password", default="asterisk")
    parser.add_argument("--calls", type=int, default=0, help="how many come in")
    parser.add_argument("--rate", type=float, default=1.0, help="calls a second")
    return parser.parse_args(arguments)


def _place_calls(
    board: Switchboard, clock: IReactorTime, calls: int, rate: float
) -> None:
    """Let calls come in once an application is connected."""
    placed = count(1)

    def tick() -> None:
        if not board.applications.known:
            return
        number = next(placed)
        board.call("1000", f"+4930{number:06}")
        if number == calls:
            loop.stop()

    loop = task.LoopingCall(tick)
    loop.clock = clock
    if calls > 0:
        loop.start(1 / rate).addErrback(lambda failure: failure.printTraceback())


def _serve(reactor: Any, options: argparse.Namespace) -> Deferred[None]:
    board = Switchboard(reactor, time.time, lambda: str(uuid4()), Settings())
    asterisk = SimulatedAsterisk(reactor, board, options.user, options.password)
    port = reactor.listenTCP(options.port, asterisk.site, interface="127.0.0.1")
    print(f"simulated Asterisk: http://127.0.0.1:{port.getHost().port}/ari", flush=True)
    _place_calls(board, reactor, options.calls, options.rate)
    return Deferred()


if __name__ == "__main__":
    task.react(_serve, [_arguments(sys.argv[1:])])
