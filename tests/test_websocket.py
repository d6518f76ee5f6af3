"""The websocket's loop, against autobahn's server over transports in memory."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.types import ConnectionDeny
from OpenSSL import SSL
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase
from txaio.tx import make_logger
from zope.interface import implementer

from ariproxy.ari.websocket import (
    CLOSE_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    LONGEST_MESSAGE,
    EventSocket,
)
from ariproxy.tls import CertificateRefused, Refusal

URL = "ws://asterisk.example:8088/ari/events?app=demo"
AUTHORIZATION = "Basic dXNlcjpzM2NyZXQ="
PING = 10.0


class AsteriskSide(WebSocketServerProtocol):
    """Asterisk's end of one connection."""

    # What it would log is not what is tested.
    log = make_logger(level="none")

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status
        self.request: Any = None
        self.pings = 0
        self.closes: list[int] = []
        self.answers_pings = True

    def onConnect(self, request: Any) -> None:
        self.request = request
        if self._status != 101:
            raise ConnectionDeny(self._status, "as the test wants it")

    def onPing(self, payload: bytes) -> None:
        self.pings += 1
        if self.answers_pings:
            self.sendPong(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> Any:
        self.closes.append(code)
        return super().onCloseFrame(code, reasonRaw)


class Silent(Protocol):
    """Takes a TCP connection and says nothing, or one thing."""

    def __init__(self, answer: bytes = b"") -> None:
        self._answer = answer

    def dataReceived(self, data: bytes) -> None:
        if self._answer:
            self.transport.write(self._answer)


@implementer(IStreamClientEndpoint)
class Asterisk:
    """An endpoint in memory that does what the test has planned, in order.

    A plan is a status for the upgrade, a protocol, an exception, or ``None`` for
    a connection that is never made.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.plans: deque[Any] = deque()
        self.attempts: list[float] = []
        self.cancelled = 0
        self.side: Any = None
        self.client: Any = None
        self.pump: IOPump

    def connect(self, protocolFactory: Factory) -> Deferred[Any]:
        self.attempts.append(self._clock.seconds())
        plan = self.plans.popleft() if self.plans else 101
        result: Deferred[Any] = Deferred(self._cancel)
        if plan is None:
            return result
        if isinstance(plan, Exception):
            result.errback(Failure(plan))
            return result
        self.client = protocolFactory.buildProtocol(None)
        self.side = plan if isinstance(plan, Protocol) else self._server(plan)
        self.pump = connect(
            self.side,
            FakeTransport(self.side, True),
            self.client,
            FakeTransport(self.client, False),
            greet=False,
        )
        result.callback(self.client)
        return result

    def _server(self, status: int) -> AsteriskSide:
        factory = WebSocketServerFactory(URL.partition("/ari")[0], reactor=self._clock)
        factory.setProtocolOptions(
            openHandshakeTimeout=0, closeHandshakeTimeout=0, failByDrop=False
        )
        side = AsteriskSide(status)
        side.factory = factory
        return side

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


class EventSocketCase(SynchronousTestCase):
    """One socket, its Asterisk, and the time."""

    ping_interval: float | None = PING

    def setUp(self) -> None:
        self.clock = Clock()
        self.asterisk = Asterisk(self.clock)
        self.messages: list[bytes] = []
        self.jitter = 0.0
        self.openings: list[float] = []
        self.closings: list[float] = []
        self.socket = EventSocket(
            endpoint=self.asterisk,
            clock=self.clock,
            url=URL,
            authorization=AUTHORIZATION,
            user_agent="ari-proxy",
            ping_interval=self.ping_interval,
            jitter=lambda: self.jitter,
            receive=self.messages.append,
            opened=lambda: self.openings.append(self.clock.seconds()),
            closed=lambda: self.closings.append(self.clock.seconds()),
        )
        self.log: list[Any] = self.enterContext(capturedLogs())

    def start(self, *plans: Any) -> None:
        """Let the loop run, Asterisk answering as planned, then always well."""
        self.asterisk.plans.extend(plans)
        self.socket.start()
        self.flush()

    def flush(self) -> None:
        """Carry everything that was written to the other side."""
        if self.asterisk.client is not None:
            self.asterisk.pump.flush()

    def advance(self, seconds: float, step: float = 0.1) -> None:
        """Let time pass, both sides exchanging what they have to say."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.flush()

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        for end in (self.asterisk.pump.clientIO, self.asterisk.pump.serverIO):
            end.bufferReceived = lambda data: None

    def lines(self, level: LogLevel | None = None) -> list[str]:
        """The text of what was logged."""
        return [
            formatEvent(event)
            for event in self.log
            if level is None or event["log_level"] is level
        ]

    def stopped(self) -> bool:
        """Ask it to stop; whether it has stopped by now."""
        self.stopping = ensureDeferred(self.socket.stop())
        self.flush()
        return bool(self.stopping.called)

    def assert_at_rest(self) -> None:
        """Nothing is left that would happen later."""
        self.assertTrue(self.stopping.called)
        self.successResultOf(self.stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.socket.state, "stopped")


class UpgradeTests(EventSocketCase):
    """What is asked of Asterisk."""

    def test_opens(self) -> None:
        """An accepted upgrade is an open socket, told once."""
        self.start()
        self.assertTrue(self.socket.is_open)
        self.assertEqual(len(self.openings), 1)
        self.assertEqual(self.lines(), [f"Websocket to {URL} is open"])

    def test_request(self) -> None:
        """Credentials and the program's name go in headers, not in the address."""
        self.start()
        request = self.asterisk.side.request
        self.assertEqual(request.path, "/ari/events")
        self.assertEqual(request.params, {"app": ["demo"]})
        self.assertEqual(request.headers["authorization"], AUTHORIZATION)
        self.assertEqual(request.headers["user-agent"], "ari-proxy")
        self.assertEqual(request.headers["host"], "asterisk.example:8088")

    def test_states(self) -> None:
        """Stopped, connecting, open, waiting, connecting: with reason and time."""
        self.assertEqual(self.socket.state, "stopped")
        self.start(None)
        self.assertEqual(self.socket.state, "connecting")
        self.assertFalse(self.socket.is_open)

    def test_since(self) -> None:
        """``since`` is the time of the last change."""
        self.start()
        self.advance(3)
        self.asterisk.side.transport.loseConnection()
        self.flush()
        self.assertEqual((self.socket.state, self.socket.since), ("waiting", 3.0))

    def test_no_secret_in_log(self) -> None:
        """No line of any outcome holds the credentials."""
        self.start(401, ConnectionRefusedError("no"), Silent(b"SSH-2.0\r\n\r\n"))
        self.advance(60)
        for line in self.lines():
            self.assertNotIn(AUTHORIZATION.partition(" ")[2], line)
        self.assertNotIn("dXNl", repr(vars(self.socket)["_url"]))

    def test_only_own_lines(self) -> None:
        """The library adds no lines of its own to each failed attempt."""
        self.start(503)
        self.assertEqual(len(self.lines()), 1)


class RefusalTests(EventSocketCase):
    """Every way not to get a socket has its own line, and an end."""

    def warning(self, plan: Any) -> str:
        """The only line about an attempt that goes as planned."""
        self.start(plan)
        self.assertEqual(self.socket.state, "waiting")
        [line] = self.lines(LogLevel.warn)
        return line

    def test_401(self) -> None:
        """Wrong user or password."""
        self.assertIn("refused the upgrade with 401: the user", self.warning(401))

    def test_403(self) -> None:
        """Right password, no rights."""
        self.assertIn("with 403: the user may not use ARI", self.warning(403))

    def test_404(self) -> None:
        """ARI is switched off."""
        self.assertIn("with 404: ARI is not there", self.warning(404))

    def test_503(self) -> None:
        """Asterisk is on its way up."""
        self.assertIn("with 503: Asterisk is still loading", self.warning(503))

    def test_other_status(self) -> None:
        """A status without a meaning of ours is shown as it is."""
        self.assertIn("with 500: see Asterisk's log", self.warning(500))

    def test_tcp_refused(self) -> None:
        """Nobody listens."""
        line = self.warning(ConnectionRefusedError("111: refused"))
        self.assertIn("no connection: ", line)
        self.assertIn("111: refused", line)
        self.assertIn("next attempt in 0.5 s", line)

    def test_not_http(self) -> None:
        """Something else listens there."""
        line = self.warning(Silent(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        self.assertIn("SSH-2.0-OpenSSH_9.2", line)

    def test_bytes_that_are_no_text(self) -> None:
        """An answer that not even is text ends the attempt without a traceback."""
        line = self.warning(Silent(b"\x15\x03\x01\xff\xfe\r\n\r\n"))
        self.assertIn("no HTTP", line)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_websocket(self) -> None:
        """A web server that answers 101 without being asked to."""
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"
        line = self.warning(Silent(answer))
        self.assertIn("upgrade", line.lower())
        self.assertNotIn("aborted locally", line)

    def test_no_answer(self) -> None:
        """TCP accepts and nothing comes: given up after the time limit."""
        self.start(Silent())
        self.advance(HANDSHAKE_TIMEOUT - 0.2)
        self.assertEqual(self.socket.state, "connecting")
        self.advance(0.3)
        self.assertEqual(self.socket.state, "waiting")
        self.assertIn("no answer to the upgrade", self.lines()[0])

    def test_closed_while_upgrading(self) -> None:
        """The connection ends before the answer."""
        self.start(Silent())
        self.asterisk.side.transport.loseConnection()
        self.flush()
        self.assertIn("the connection ended", self.lines()[0])
        self.assertIn("whether service.asterisk.tls", self.lines()[0])

    def test_tls(self) -> None:
        """Why there is no TLS, and which setting mends it."""
        untrusted = CertificateRefused(Refusal.NOT_TRUSTED)
        other = CertificateRefused(Refusal.OTHER_HOST)
        no_tls = SSL.Error([("SSL routines", "", "wrong version number")])
        for error, text in (
            (untrusted, "its certificate is not trusted; correct service.asterisk.ca;"),
            (other, "for another host; correct the host in service."),
            (no_tls, "TLS failed (wrong version number); correct service.asterisk.tls"),
        ):
            self.start(Silent())
            self.asterisk.client.connectionLost(Failure(error))
            [line] = self.lines(LogLevel.warn)
            self.assertIn(text, line)
            self.assertNotIn("SSL routines", line)
            self.setUp()


class BackOffTests(EventSocketCase):
    """When the next attempt is made."""

    def waits(self) -> list[float]:
        """Seconds between attempts that failed at once."""
        times = self.asterisk.attempts
        return [round(b - a, 3) for a, b in pairwise(times)]

    def test_doubles(self) -> None:
        """Half a second at first, doubled each time, 30 s at most."""
        self.start(*[503] * 10)
        self.advance(160, step=0.25)
        self.assertEqual(
            self.waits()[:9], [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        )

    def test_jitter(self) -> None:
        """A wait is lengthened by up to a fifth."""
        self.jitter = 1.0
        self.start(*[ConnectionRefusedError("no")] * 3)
        self.advance(2, step=0.05)
        self.assertEqual(self.waits(), [0.6, 1.2])

    def test_every_failure_backs_off(self) -> None:
        """Also where TCP works and only the upgrade does not."""
        self.start(401, ConnectionRefusedError("no"), Silent(b"x\r\n\r\n"), 404)
        self.advance(8, step=0.25)
        self.assertEqual(self.waits(), [0.5, 1.0, 2.0, 4.0])

    def test_reset_after_open(self) -> None:
        """A socket that was open starts the waits anew; an accepted TCP does not."""
        self.start(503, 503, 503)
        self.advance(4)
        self.assertTrue(self.socket.is_open)
        lost = self.clock.seconds()
        self.asterisk.side.transport.loseConnection()
        self.flush()
        self.advance(0.6)
        self.assertLess(self.asterisk.attempts[-1] - lost, 0.65)

    def test_one_line_an_attempt(self) -> None:
        """Each loss is told once, and the return."""
        self.start(503, 503)
        self.advance(2)
        self.assertEqual(len(self.lines()), 3)
        self.assertIn("is open", self.lines()[2])


class MessageTests(EventSocketCase):
    """What comes goes to ``receive``, in order."""

    def send(self, *messages: bytes, binary: bool = False) -> None:
        for each in messages:
            self.asterisk.side.sendMessage(each, binary)
        self.flush()

    def test_in_order(self) -> None:
        """Text messages are handed on as they came."""
        self.start()
        self.send(*[b"%d" % n for n in range(100)])
        self.assertEqual(self.messages, [b"%d" % n for n in range(100)])

    def test_with_the_upgrade(self) -> None:
        """Messages in the same packet as the answer to the upgrade are not lost."""
        self.asterisk.plans.append(101)
        self.socket.start()
        self.asterisk.pump.pump()
        self.asterisk.side.sendMessage(b"first")
        self.asterisk.side.sendMessage(b"second")
        self.flush()
        self.assertEqual(self.messages, [b"first", b"second"])

    def test_sent(self) -> None:
        """What is sent arrives; nothing is once the close has begun."""
        found: list[bytes] = []
        self.assertFalse(self.socket.send(b"too early"))
        self.start()
        self.asterisk.side.onMessage = lambda payload, binary: found.append(payload)
        self.assertTrue(self.socket.send(b"first"))
        self.assertTrue(self.socket.send(b"x" * 2**17))
        self.flush()
        self.assertEqual(found, [b"first", b"x" * 2**17])
        ensureDeferred(self.socket.stop())
        self.assertFalse(self.socket.send(b"too late"))

    def test_binary(self) -> None:
        """A binary message is handed on as well: whoever reads it judges it."""
        self.start()
        self.send(b"\x00\xff", binary=True)
        self.send(b"{}")
        self.assertEqual(self.messages, [b"\x00\xff", b"{}"])

    def test_invalid_utf8(self) -> None:
        """Text that is no UTF-8 does not end the connection."""
        self.start()
        self.send(b'{"a":"\xff"}', b"{}")
        self.assertEqual(self.messages, [b'{"a":"\xff"}', b"{}"])
        self.assertTrue(self.socket.is_open)

    def test_empty(self) -> None:
        """An empty message is a message."""
        self.start()
        self.send(b"")
        self.assertEqual(self.messages, [b""])

    def test_slow_fragments(self) -> None:
        """A message in fragments, each byte a second after the last."""
        self.start()
        side = self.asterisk.side
        wire: list[bytes] = []
        side.sendData = lambda data, *rest, **options: wire.append(data)
        side.sendMessage(b'{"type":"x"}', fragmentSize=3)
        del side.sendData
        for byte in b"".join(wire):
            side.transport.write(bytes([byte]))
            self.flush()
            self.advance(1, step=0.5)
        self.assertEqual(self.messages, [b'{"type":"x"}'])
        self.assertEqual(len(self.openings), 1)

    def test_one_megabyte(self) -> None:
        """A long message is handed on whole."""
        self.start()
        self.send(b"x" * 2**20)
        self.assertEqual([len(each) for each in self.messages], [2**20])

    def test_too_long(self) -> None:
        """One that no memory should hold ends the connection; a new one is made."""
        self.start()
        self.send(b"x" * (LONGEST_MESSAGE + 1))
        self.assertEqual(self.socket.state, "waiting")
        self.assertIn("exceeds payload limit", self.socket.reason)
        self.advance(0.6)
        self.send(b"next")
        self.assertEqual((self.messages, len(self.openings)), ([b"next"], 2))

    def test_too_long_in_fragments(self) -> None:
        """The limit counts for the message, not for each of its frames."""
        self.start()
        side = self.asterisk.side
        side.beginMessage()
        for _ in range(3):
            side.sendMessageFrame(b"x" * (LONGEST_MESSAGE // 2))
            self.flush()
        self.assertEqual(self.messages, [])
        self.assertEqual(self.socket.state, "waiting")

    def test_masked_by_the_server(self) -> None:
        """A frame against the rules (RFC 6455, 5.1) ends the connection."""
        self.start()
        self.asterisk.side.transport.write(b"\x81\x82\x01\x02\x03\x04ab")
        self.flush()
        self.assertIn("masked", self.socket.reason)

    def test_what_came_before_the_end(self) -> None:
        """Messages in front of Asterisk's close are handed on."""
        self.start()
        self.asterisk.side.sendMessage(b"last")
        self.asterisk.side.sendClose(1000)
        self.flush()
        self.assertEqual(self.messages, [b"last"])


class EndTests(EventSocketCase):
    """How the end of a connection is found and told."""

    def test_closed_by_asterisk(self) -> None:
        """Code and reason of Asterisk's close are told."""
        self.start()
        self.asterisk.side.sendClose(1000, "bye")
        self.flush()
        self.assertEqual(self.socket.state, "waiting")
        self.assertIn("Asterisk closed it with code 1000 (bye)", self.lines()[-1])

    def test_closed_but_not_hung_up(self) -> None:
        """Asterisk says goodbye and leaves the line open: not waited for long."""
        self.start()
        self.asterisk.side.dropConnection = lambda abort=False: None
        self.asterisk.side.sendClose(3000, "bye")
        self.flush()
        self.advance(CLOSE_TIMEOUT + 0.1)
        self.assertEqual(self.socket.state, "waiting")
        self.assertIn("code 3000 (bye)", self.socket.reason)

    def test_lost(self) -> None:
        """TCP ends without a close."""
        self.start()
        self.asterisk.side.transport.loseConnection()
        self.flush()
        self.assertIn("the connection ended", self.lines()[-1])

    def test_reason_on_one_line(self) -> None:
        """Asterisk's reason cannot write lines into our log."""
        self.start()
        self.asterisk.side.sendClose(3000, "bye\n12:00 all is well")
        self.flush()
        self.assertNotIn("\n", self.lines()[-1])


class PingTests(EventSocketCase):
    """A line that is dead without having ended is found."""

    def found_after(self, heard: float) -> float:
        """Cut the line then; seconds from the last sign of life until it is found."""
        self.start()
        self.advance(heard)
        self.cut()
        for _ in range(1000):
            if not self.socket.is_open:
                return self.clock.seconds() - heard
            self.advance(0.1)
        self.fail("not found")

    def test_answered(self) -> None:
        """Pongs keep a silent socket open."""
        self.start()
        self.advance(100, step=0.5)
        self.assertEqual(len(self.openings), 1)
        self.assertEqual(self.asterisk.side.pings, 10)

    def test_half_open(self) -> None:
        """A socket that dies right after the upgrade is found within 20 s."""
        self.assertLessEqual(self.found_after(0), 20.2)
        self.assertIn("not even a pong", self.lines(LogLevel.warn)[0])

    def test_half_open_later(self) -> None:
        """One that dies right after a pong too."""
        self.assertLessEqual(self.found_after(10.1), 20.2)

    def test_messages_are_signs_of_life(self) -> None:
        """Asterisk is too busy for pongs but sends events: it lives."""
        self.start()
        self.asterisk.side.answers_pings = False
        for _ in range(30):
            self.advance(3, step=0.5)
            self.asterisk.side.sendMessage(b"{}")
            self.flush()
        self.assertEqual(len(self.openings), 1)

    def test_no_pongs(self) -> None:
        """Neither pongs nor messages: given up, and connected anew."""
        self.start()
        self.asterisk.side.answers_pings = False
        self.advance(21)
        self.assertEqual(len(self.openings), 2)

    def test_dead_while_closing(self) -> None:
        """Asterisk's close comes, and then nothing more."""
        self.start()
        self.asterisk.side.sendClose(1000)
        self.asterisk.pump.pump()
        self.cut()
        self.advance(CLOSE_TIMEOUT + 0.1)
        self.assertEqual(self.socket.state, "waiting")


class NoPingTests(EventSocketCase):
    """``ping_interval`` ``None``: the operator wants no pings."""

    ping_interval = None

    def test_none(self) -> None:
        """None is sent, and silence is no reason to end."""
        self.start()
        self.advance(300, step=5)
        self.assertEqual((self.asterisk.side.pings, len(self.openings)), (0, 1))
        self.stopped()
        self.assert_at_rest()


class StopTests(EventSocketCase):
    """``stop`` ends in every state, and leaves nothing behind."""

    def test_never_started(self) -> None:
        """Nothing to do, and a later start does nothing."""
        self.assertTrue(self.stopped())
        self.socket.start()
        self.assertEqual(self.asterisk.attempts, [])
        self.assertEqual(self.socket.state, "stopped")

    def test_while_connecting(self) -> None:
        """The attempt is cancelled."""
        self.start(None)
        self.assertTrue(self.stopped())
        self.assertEqual(self.asterisk.cancelled, 1)
        self.assert_at_rest()

    def test_while_upgrading(self) -> None:
        """TCP stands and the answer to the upgrade is not there yet."""
        self.start(Silent())
        self.stopped()
        self.advance(CLOSE_TIMEOUT + 0.1)
        self.assert_at_rest()

    def test_open(self) -> None:
        """Asterisk gets a close with 1000 and answers it."""
        self.start()
        side = self.asterisk.side
        self.assertTrue(self.stopped())
        self.assertEqual(side.closes, [1000])
        self.assert_at_rest()
        self.assertEqual(len(self.asterisk.attempts), 1)

    def test_close_not_answered(self) -> None:
        """A dead Asterisk holds us up for the time limit only."""
        self.start()
        self.cut()
        self.assertFalse(self.stopped())
        self.advance(CLOSE_TIMEOUT)
        self.assert_at_rest()

    def test_while_asterisk_closes(self) -> None:
        """Both close at once, and the line stays open."""
        self.start()
        self.asterisk.side.dropConnection = lambda abort=False: None
        self.asterisk.side.sendClose(1000)
        self.flush()
        self.stopped()
        self.advance(CLOSE_TIMEOUT + 0.1)
        self.assert_at_rest()

    def test_while_waiting(self) -> None:
        """The wait is cut short."""
        self.start(503)
        self.assertEqual(self.socket.state, "waiting")
        self.assertTrue(self.stopped())
        self.assert_at_rest()

    def test_repeated(self) -> None:
        """A second call while the first still waits does no harm."""
        self.start()
        self.cut()
        self.stopped()
        again = ensureDeferred(self.socket.stop())
        self.advance(CLOSE_TIMEOUT)
        self.assert_at_rest()
        self.successResultOf(again)

    def test_no_warning(self) -> None:
        """An end that was wanted is no warning."""
        self.start()
        self.stopped()
        self.assertEqual(self.lines(LogLevel.warn), [])

    def test_inside_receive(self) -> None:
        """Whoever takes a message may stop the socket."""

        def stop(message: bytes) -> None:
            self.stopping = ensureDeferred(self.socket.stop())

        self.socket.receive = stop
        self.start()
        self.asterisk.side.sendMessage(b"{}")
        self.flush()
        self.assert_at_rest()
