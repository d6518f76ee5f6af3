"""The simulated Asterisk as a server: HTTP in memory, the websocket on a socket."""

from __future__ import annotations

from typing import Any

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from treq.testing import StubTreq
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseFailed

from ariproxy.sandbox.asterisk import SimulatedAsterisk
from ariproxy.sandbox.operations import RestAnswer
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard
from tests.test_sandbox_switchboard import Asterisk

BASE = "http://127.0.0.1/ari"


class HttpTests(SynchronousTestCase):
    """ARI over HTTP."""

    def setUp(self) -> None:
        self.board = Asterisk().board
        self.clock = Clock()
        self.asterisk = SimulatedAsterisk(self.clock, self.board, "u", "p")
        self.treq = StubTreq(self.asterisk.site.resource)

    def ask(self, method: str, url: str, **options: Any) -> tuple[Any, bytes]:
        """The response and its body."""
        options.setdefault("auth", ("u", "p"))
        response = self.successResultOf(self.treq.request(method, url, **options))
        return response, self.successResultOf(self.treq.content(response))

    def test_answer(self) -> None:
        """Status, reason, type and body are those of the operation."""
        response, body = self.ask("POST", f"{BASE}/bridges/b", json={"name": "n"})
        self.assertEqual((response.code, response.phrase), (200, b"OK"))
        content_type = response.headers.getRawHeaders("content-type")
        self.assertEqual(content_type, ["application/json"])
        self.assertEqual(msgspec.json.decode(body)["name"], "n")
        response, body = self.ask("DELETE", f"{BASE}/bridges/b")
        self.assertEqual((response.code, body), (204, b""))
        self.assertIsNone(response.headers.getRawHeaders("content-type"))

    def test_credentials(self) -> None:
        """In the header or the query; anything else is refused."""
        for url, auth, code in (
            ("/asterisk/ping", ("u", "p"), 200),
            ("/asterisk/ping", ("u", "wrong"), 401),
            ("/asterisk/ping", None, 401),
            ("/asterisk/ping?api_key=u:p", None, 200),
            ("/asterisk/ping?api_key=u:wrong", None, 401),
        ):
            response, _ = self.ask("GET", BASE + url, auth=auth)
            self.assertEqual(response.code, code, (url, auth))
        header = {"Authorization": "Basic nonsense"}
        response, body = self.ask("GET", f"{BASE}/bridges", auth=None, headers=header)
        self.assertEqual(body, b'{"message":"Authentication required"}')
        realm = response.headers.getRawHeaders("www-authenticate")
        self.assertEqual(realm, ['Basic realm="Asterisk REST Interface"'])

    def test_outside_of_ari(self) -> None:
        """There is nothing; and no websocket without an upgrade."""
        self.assertEqual(self.ask("GET", "http://127.0.0.1/")[0].code, 404)
        self.assertEqual(self.ask("GET", f"{BASE}/events?app=demo")[0].code, 426)

    def test_telephone(self) -> None:
        """Another process lets a call come in, and hangs it up."""
        telephone = "http://127.0.0.1/sandbox"
        _, body = self.ask("POST", f"{telephone}/call?exten=1&caller=2&callContext=x")
        channel = msgspec.json.decode(body)["id"]
        self.assertEqual(
            self.board.channels[channel].variables,
            {"CALL_CONTEXT": "x", "STASISSTATUS": ""},
        )
        self.ask("POST", f"{telephone}/hangup?channel={channel}")
        self.assertEqual(self.board.channels, {})

    def test_heard(self) -> None:
        """A test can see what came, headers included."""
        self.ask("POST", f"{BASE}/bridges?a=%20", data=b"{}", headers={"X-A": "b"})
        heard = self.asterisk.heard[-1]
        self.assertEqual((heard.method, heard.url), ("POST", "/bridges?a=%20"))
        self.assertEqual((heard.headers["x-a"], heard.body), ("b", b"{}"))

    def test_fault_replace(self) -> None:
        """Any answer may be put in place of the real one."""
        odd = RestAnswer(299, "Odd", b"not json", "text/plain")
        self.asterisk.faults.replace = lambda request: odd
        response, body = self.ask("POST", f"{BASE}/bridges/b")
        self.assertEqual((response.code, body), (299, b"not json"))
        self.assertEqual(self.board.bridges, {})

    def test_fault_delay(self) -> None:
        """The request is carried out at once, its answer comes late."""
        self.asterisk.faults.delay = 5
        late = self.treq.request("POST", f"{BASE}/bridges/b", auth=("u", "p"))
        self.treq.flush()
        self.assertIn("b", self.board.bridges)
        self.assertNoResult(late)
        self.clock.advance(5)
        self.treq.flush()
        self.assertEqual(self.successResultOf(late).code, 200)

    def test_fault_cut(self) -> None:
        """The body ends before its time."""
        self.asterisk.faults.cut = True
        request = self.treq.request("GET", f"{BASE}/bridges", auth=("u", "p"))
        response = self.successResultOf(request)
        self.failureResultOf(self.treq.content(response), ResponseFailed)


class Socket(WebSocketClientProtocol):
    """A client that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[None] = Deferred()
        self.closed: Deferred[str] = Deferred()
        self.messages: DeferredQueue[Any] = DeferredQueue()

    def onOpen(self) -> None:
        """It works."""
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One message, read if it is text."""
        self.messages.put(payload if isBinary else msgspec.json.decode(payload))

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        """It is over, or never began."""
        self.closed.callback(reason)


class WebsocketTests(TestCase):
    """ARI's events and requests over a real socket."""

    def setUp(self) -> None:
        clock: Any = reactor
        self.board = Switchboard(clock, clock.seconds, lambda: "new", Settings())
        self.asterisk = SimulatedAsterisk(clock, self.board, "u", "p")
        self.port = clock.listenTCP(0, self.asterisk.site, interface="127.0.0.1")
        self.sockets: list[Socket] = []

    async def tearDown(self) -> None:
        await self.port.stopListening()
        for socket in self.sockets:
            if socket.opened.called:
                socket.dropConnection(abort=True)
                await socket.closed
        while self.asterisk.sockets:
            await turn()

    def dial(self, query: str = "app=demo&api_key=u:p") -> Socket:
        """Open a websocket."""
        number = self.port.getHost().port
        factory = WebSocketClientFactory(f"ws://127.0.0.1:{number}/ari/events?{query}")
        socket = Socket()
        factory.protocol = lambda: socket
        factory.noisy = False
        reactor.connectTCP("127.0.0.1", number, factory)
        self.sockets.append(socket)
        return socket

    async def test_events(self) -> None:
        """What happens on the switchboard arrives."""
        socket = self.dial()
        await socket.opened
        channel = self.board.call("1000", "1")
        event = await socket.messages.get()
        self.assertEqual(event["channel"]["id"], channel)

    async def test_requests_in_order(self) -> None:
        """Answers come in the order of the requests, also when they are late."""
        self.asterisk.faults.delay = 0.01
        socket = self.dial()
        await socket.opened
        for number in range(20):
            request = {"type": "RESTRequest", "request_id": str(number)}
            request |= {"method": "POST", "uri": f"bridges/{number}"}
            socket.sendMessage(msgspec.json.encode(request))
        answers = [await socket.messages.get() for _ in range(20)]
        numbers = [int(each["request_id"]) for each in answers]
        self.assertEqual(numbers, list(range(20)))
        self.assertEqual(answers[0]["asterisk_id"], self.board.settings.asterisk_id)

    async def test_old_asterisk(self) -> None:
        """Without REST over the websocket a request stays unanswered."""
        self.asterisk.faults.rest_over_websocket = False
        socket = self.dial()
        await socket.opened
        socket.sendMessage(b'{"type":"RESTRequest","method":"POST","uri":"bridges/b"}')
        self.board.call("1000", "1")
        self.assertEqual((await socket.messages.get())["type"], "StasisStart")
        self.assertEqual(self.board.bridges, {})

    async def test_replaced(self) -> None:
        """The first socket is told, and stays open."""
        first = self.dial()
        await first.opened
        second = self.dial()
        await second.opened
        event = await first.messages.get()
        self.assertEqual(event["type"], "ApplicationReplaced")
        self.assertEqual(event["application"], "demo")
        self.assertFalse(first.closed.called)

    async def test_refused(self) -> None:
        """By a fault, for want of credentials, or of an application."""
        for query, status, expected in (
            ("app=demo&api_key=u:p", 503, "503"),
            ("app=demo", None, "401"),
            ("api_key=u:p", None, "400"),
        ):
            self.asterisk.faults.refuse_upgrade = status
            self.assertIn(expected, await self.dial(query).closed)

    async def test_close(self) -> None:
        """With a handshake and without; the application is gone afterwards."""
        for clean in (True, False):
            socket = self.dial()
            await socket.opened
            self.asterisk.close_sockets(clean)
            await socket.closed
            self.assertEqual(socket.wasClean, clean)
        while self.asterisk.sockets:
            await turn()
        self.assertEqual(self.board.applications.known, {})

    async def test_raw(self) -> None:
        """Anything may be sent, for the other side to survive."""
        socket = self.dial()
        await socket.opened
        self.asterisk.send_raw(b"\xff\x00", binary=True)
        self.assertEqual(await socket.messages.get(), b"\xff\x00")


def turn() -> Deferred[None]:
    """Let the reactor go round once."""
    waited: Deferred[None] = Deferred()
    reactor.callLater(0, waited.callback, None)
    return waited
