"""Requests to Asterisk, byte for byte, over transports in memory."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, HTTPConnectionPool
from zope.interface.verify import verifyObject

from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.ari.rest import BODY_LIMIT, RestClient, basic_authorization
from ariproxy.errors import AsteriskAnswerLost, AsteriskUnavailable
from ariproxy.interfaces import IAsterisk
from ariproxy.tls import CertificateRefused, Refusal

AUTHORIZATION = basic_authorization("user", "s3cret")
TIMEOUT = 30.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class Wire(StringTransport):
    """One connection as Asterisk sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.client: Any = None

    def abortConnection(self) -> None:
        self.aborted = True
        self.end(ConnectionLost("aborted"))

    def loseConnection(self) -> None:
        super().loseConnection()
        self.end(ConnectionDone())

    def end(self, error: Exception) -> None:
        """The connection is over."""
        client, self.client = self.client, None
        if client is not None:
            client.connectionLost(Failure(error))

    def answer(self, data: bytes) -> None:
        """Asterisk says this."""
        self.client.dataReceived(data)


class RestCase(SynchronousTestCase):
    """A client, and the connections that it makes."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        pool: Any = HTTPConnectionPool(self.reactor)
        pool.retryAutomatically = False
        pool.cachedConnectionTimeout = 5
        self.agent = Agent(self.reactor, connectTimeout=1, pool=pool)
        self.client = RestClient(
            agent=self.agent,
            clock=self.reactor,
            base="http://127.0.0.1:8088/ari",
            authorization=AUTHORIZATION,
            user_agent="ari-proxy",
            timeout=TIMEOUT,
            retries=1,
        )
        self.made = 0

    def ask(
        self, method: str = "GET", url: str = "/channels", body: bytes | None = None
    ) -> Deferred[AsteriskAnswer]:
        """Ask for something."""
        return ensureDeferred(self.client.request(AsteriskRequest(method, url, body)))

    def accept(self) -> Wire:
        """Accept the next connection that the client is making."""
        factory = self.reactor.tcpClients[self.made][2]
        self.made += 1
        wire = Wire()
        wire.client = factory.buildProtocol(None)
        wire.client.makeConnection(wire)
        self.reactor.advance(0)
        return wire

    def refuse(self, error: Exception | None = None) -> None:
        """Let it fail."""
        factory = self.reactor.tcpClients[self.made][2]
        self.made += 1
        factory.clientConnectionFailed(
            None, Failure(error or ConnectionRefusedError("no"))
        )
        self.reactor.advance(1)

    def asked(self, *request: Any) -> bytes:
        """The bytes of one request."""
        asked = self.ask(*request)
        wire = self.accept()
        sent = wire.value()
        wire.answer(OK)
        self.successResultOf(asked)
        return sent

    def answered(self, answer: bytes, method: str = "GET") -> AsteriskAnswer:
        """What becomes of an answer of Asterisk."""
        asked = self.ask(method)
        self.accept().answer(answer)
        return self.successResultOf(asked)


def lines(sent: bytes) -> list[bytes]:
    """Request line and sorted header lines."""
    first, *headers = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [first, *sorted(headers)]


class RequestTests(RestCase):
    """What Asterisk sees."""

    def test_interface(self) -> None:
        """It is an Asterisk."""
        verifyObject(IAsterisk, self.client)
        self.assertEqual(self.client.name, "asterisk")

    def test_get(self) -> None:
        """These headers and no others."""
        sent = self.asked("GET", "/channels")
        self.assertEqual(
            lines(sent),
            [
                b"GET /ari/channels HTTP/1.1",
                b"Authorization: " + AUTHORIZATION.encode(),
                b"Host: 127.0.0.1:8088",
                b"User-Agent: ari-proxy",
            ],
        )
        self.assertTrue(sent.endswith(b"\r\n\r\n"))

    def test_post_without_body(self) -> None:
        """A POST without body says so, and has no type."""
        sent = self.asked("POST", "/channels/1/answer")
        self.assertIn(b"\r\nContent-Length: 0\r\n", sent)
        self.assertNotIn(b"Content-Type", sent)
        self.assertTrue(sent.endswith(b"\r\n\r\n"))

    def test_post_with_body(self) -> None:
        """A body goes as it is, with its length and type, in the same breath."""
        body = b'{"channelId":"\xc3\xa4"}'
        sent = self.asked("POST", "/channels", body)
        self.assertEqual(sent.partition(b"\r\n\r\n")[2], body)
        self.assertEqual(
            lines(sent),
            [
                b"POST /ari/channels HTTP/1.1",
                b"Authorization: " + AUTHORIZATION.encode(),
                b"Content-Length: 18",
                b"Content-Type: application/json",
                b"Host: 127.0.0.1:8088",
                b"User-Agent: ari-proxy",
            ],
        )

    def test_delete_with_body(self) -> None:
        """Any method may have a body."""
        sent = self.asked("DELETE", "/channels/1", b'{"reason":"busy"}')
        self.assertTrue(sent.endswith(b'\r\n\r\n{"reason":"busy"}'))

    def test_no_compression_asked_for(self) -> None:
        """No answer shall be compressed: a body is passed on as it is."""
        self.assertNotIn(b"accept-encoding", self.asked().lower())

    def test_methods(self) -> None:
        """Every method of the contract is sent as it is."""
        for method in "CONNECT DELETE GET OPTIONS PATCH POST PUT TRACE".split():
            with self.subTest(method):
                self.setUp()
                sent = self.asked(method)
                self.assertTrue(sent.startswith(method.encode() + b" /ari/channels "))

    def test_address_as_given(self) -> None:
        """No escape is added, taken away or spelled otherwise."""
        for url in (
            "/channels/%2f%2F%7e~%41",
            "/channels/a%20b%",
            "/channels/%zz?x=%e4&y=a+b&&=;",
            "/channels/PJSIP/alice-0001;2",
            "/endpoints/PJSIP//x",
            "/channels?endpoint=PJSIP/100@trunk&app=demo&appArgs=a,b",
            "/channels?variables[A]={\"b\":'c'}",
            "/channels?a=b?c=d",
            "/asterisk/variable?variable=GLOBAL(x)|y\\^`",
            "/",
        ):
            with self.subTest(url):
                self.setUp()
                line = self.asked("GET", url).partition(b"\r\n")[0]
                self.assertEqual(line.decode(), f"GET /ari{url} HTTP/1.1")

    def test_connection_reused(self) -> None:
        """The next request goes over the same connection."""
        first = self.ask()
        wire = self.accept()
        wire.answer(OK)
        self.successResultOf(first)
        self.reactor.advance(0)
        second = self.ask("GET", "/bridges")
        wire.answer(OK)
        self.successResultOf(second)
        self.assertEqual(wire.value().count(b"HTTP/1.1"), 2)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_no_cookies(self) -> None:
        """A cookie is forgotten."""
        first = self.ask()
        wire = self.accept()
        wire.answer(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n"))
        self.successResultOf(first)
        self.reactor.advance(0)
        wire.clear()
        self.ask()
        self.assertNotIn(b"cookie", wire.value().lower())
        self.assertIn(b"GET ", wire.value())


class AnswerTests(RestCase):
    """Asterisk's own answer, whatever it is, is passed on."""

    def test_ok(self) -> None:
        """Status, body, its type and its size."""
        self.assertEqual(
            self.answered(OK), AsteriskAnswer(200, b"{}", "application/json", 2)
        )

    def test_every_status(self) -> None:
        """Errors and redirects are answers, and lead to no second request."""
        for status in (201, 301, 302, 303, 307, 400, 401, 404, 409, 422, 500, 503):
            with self.subTest(status):
                self.setUp()
                answer = self.answered(
                    b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:8088/x\r\n"
                    b"WWW-Authenticate: Basic\r\nContent-Length: 1\r\n\r\nx" % status
                )
                self.assertEqual((answer.status, answer.body), (status, b"x"))
                self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_no_content(self) -> None:
        """204 has no body, though no length says so."""
        answer = self.answered(b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE")
        self.assertEqual(answer, AsteriskAnswer(204, b"", None, 0))

    def test_head(self) -> None:
        """The answer to HEAD tells of a length and has no body."""
        answer = self.answered(OK[:-2], "HEAD")
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_chunked(self) -> None:
        """A body in pieces is put together."""
        answer = self.answered(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
        )
        self.assertEqual((answer.body, answer.size), (b"{}", 2))

    def test_until_the_end(self) -> None:
        """Without length, the body ends with the connection."""
        asked = self.ask()
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\n\r\n{}")
        self.assertNoResult(asked)
        wire.end(ConnectionDone())
        self.assertEqual(self.successResultOf(asked).body, b"{}")

    def test_compressed_all_the_same(self) -> None:
        """A server that compresses unasked: the bytes are passed on as they are."""
        answer = self.answered(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: x-odd\r\nContent-Length: 2\r\n\r\n"
            b"\x1f\x8b"
        )
        self.assertEqual(answer.body, b"\x1f\x8b")

    def test_largest_body(self) -> None:
        """A body of the limit is kept whole."""
        answer = self.answered(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_LIMIT
            + b"x" * BODY_LIMIT
        )
        self.assertEqual((len(answer.body), answer.size), (BODY_LIMIT, BODY_LIMIT))

    def test_too_large_body(self) -> None:
        """Of a larger one the rest is left out, and its whole size told."""
        asked = self.ask()
        wire = self.accept()
        size = BODY_LIMIT + 3
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(8):
            wire.answer(b"x" * (BODY_LIMIT // 8))
        wire.answer(b"xxx")
        answer = self.successResultOf(asked)
        self.assertEqual((len(answer.body), answer.size), (BODY_LIMIT, size))


class FailureTests(RestCase):
    """Every way not to get an answer, and what is said of it."""

    def assert_lost(self, asked: Deferred[AsteriskAnswer], text: str) -> None:
        """Asterisk may have carried it out; one line says what happened."""
        error = self.failureResultOf(asked, AsteriskAnswerLost).value
        self.assertIn(text, str(error))
        self.assert_presentable(error)

    def assert_unavailable(self, asked: Deferred[Any], text: str) -> None:
        """Asterisk certainly has not carried it out."""
        error = self.failureResultOf(asked, AsteriskUnavailable).value
        self.assertIn(text, str(error))
        self.assert_presentable(error)

    def assert_presentable(self, error: BaseException) -> None:
        self.assertIn("127.0.0.1:8088", str(error))
        for never in ("\n", "<twisted", "Failure", "s3cret", AUTHORIZATION[6:]):
            self.assertNotIn(never, str(error))

    def test_refused(self) -> None:
        """Nobody listens: told at once, for any method."""
        for method in ("GET", "POST"):
            asked = self.ask(method)
            self.refuse()
            self.assert_unavailable(asked, "no connection")
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_connecting_takes_too_long(self) -> None:
        """Nobody answers: given up by the reactor at the agent's limit."""
        asked = self.ask("POST")
        self.assertEqual(self.reactor.tcpClients[0][3], 1)
        self.refuse(TimeoutError())
        self.assert_unavailable(asked, "no connection to 127.0.0.1:8088: it timed out")

    def test_closed_without_answer(self) -> None:
        """POST is not asked again: it may have been carried out."""
        asked = self.ask("POST", "/channels", b"{}")
        self.accept().end(ConnectionDone())
        self.assert_lost(asked, "broke before the whole answer came")
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_lost_then_refused(self) -> None:
        """The first attempt may have been carried out, unless it changes nothing."""
        asked = self.ask("DELETE")
        self.accept().end(ConnectionDone())
        self.refuse()
        self.assert_lost(asked, "broke before the whole answer came")
        asked = self.ask("GET")
        self.accept().end(ConnectionDone())
        self.refuse()
        self.assert_unavailable(asked, "no connection")

    def test_certificate_refused(self) -> None:
        """Nothing was sent, so the request is certainly not carried out."""
        for refusal, text in (
            (Refusal.NOT_TRUSTED, "is not trusted; correct service.asterisk.ca"),
            (Refusal.OTHER_HOST, "for another host; correct the host in service."),
        ):
            for method in ("GET", "POST"):
                asked = self.ask(method)
                self.accept().end(CertificateRefused(refusal))
                self.assert_unavailable(asked, text)

    def test_no_tls(self) -> None:
        """What answers there speaks no TLS."""
        asked = self.ask("POST")
        self.accept().end(SSL.Error([("SSL routines", "", "wrong version number")]))
        text = "TLS failed (wrong version number); correct service.asterisk.tls"
        self.assert_lost(asked, text)

    def test_idempotent_asked_once_more(self) -> None:
        """Others are, once."""
        for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"):
            with self.subTest(method):
                self.setUp()
                asked = self.ask(method)
                self.accept().end(ConnectionDone())
                self.assertNoResult(asked)
                self.accept().answer(OK if method != "HEAD" else OK[:-2])
                self.assertEqual(self.successResultOf(asked).status, 200)

    def test_not_asked_a_third_time(self) -> None:
        """Twice lost is lost."""
        asked = self.ask()
        self.accept().end(ConnectionLost())
        self.accept().end(ConnectionLost())
        self.assert_lost(asked, "broke")
        self.assertEqual(len(self.reactor.tcpClients), 2)

    def test_patch_is_not_idempotent(self) -> None:
        """PATCH may have been carried out too (RFC 9110, 9.2.2)."""
        asked = self.ask("PATCH")
        self.accept().end(ConnectionDone())
        self.assert_lost(asked, "broke")

    def test_body_goes_with_each(self) -> None:
        """The second request has the same body."""
        asked = self.ask("PUT", "/x", b'{"a":1}')
        self.accept().end(ConnectionDone())
        wire = self.accept()
        self.assertTrue(wire.value().endswith(b'{"a":1}'))
        wire.answer(OK)
        self.successResultOf(asked)

    def test_truncated(self) -> None:
        """A body shorter than promised is no answer."""
        asked = self.ask("POST")
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        wire.end(ConnectionDone())
        self.assert_lost(asked, "broke before the whole answer came")

    def test_truncated_chunks(self) -> None:
        """Nor is one whose last chunk is missing."""
        asked = self.ask("POST")
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        wire.end(ConnectionDone())
        self.assert_lost(asked, "broke before the whole answer came")

    def test_truncated_head(self) -> None:
        """Nor are half the headers."""
        asked = self.ask("POST")
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Le")
        wire.end(ConnectionDone())
        self.assert_lost(asked, "broke")

    def test_not_http(self) -> None:
        """Something else listens there."""
        for said in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"\xff\xfe\r\n\r\n",
            b"HTTP/1.1 x y\r\n",
        ):
            with self.subTest(said):
                self.setUp()
                asked = self.ask("POST")
                self.accept().answer(said)
                self.assert_lost(asked, "broke")

    def test_bad_length(self) -> None:
        """A length that is no number."""
        asked = self.ask("POST")
        self.accept().answer(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n")
        self.assert_lost(asked, "broke")

    def test_bad_chunks(self) -> None:
        """A chunk that has no length."""
        asked = self.ask("POST")
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}")
        self.assert_lost(asked, "broke")

    def test_late(self) -> None:
        """No answer within the limit: the connection is cut, and not used again."""
        for method in ("POST", "GET"):
            with self.subTest(method):
                self.setUp()
                asked = self.ask(method)
                wire = self.accept()
                self.reactor.advance(TIMEOUT - 0.1)
                self.assertNoResult(asked)
                self.reactor.advance(0.2)
                self.assert_lost(asked, "gave no answer within 30 s")
                self.assertTrue(wire.aborted)
                self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_late_body(self) -> None:
        """The limit is for the whole answer."""
        asked = self.ask("POST")
        wire = self.accept()
        wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{")
        self.reactor.advance(TIMEOUT)
        self.assert_lost(asked, "gave no answer within 30 s")
        self.assertIsNone(wire.client)

    def test_nothing_left(self) -> None:
        """After an answer no timer of the request is left."""
        self.answered(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closed_while_idle(self) -> None:
        """A kept connection that Asterisk closes is not used."""
        self.answered(OK)
        self.reactor.advance(6)
        asked = self.ask("POST")
        self.accept().answer(OK)
        self.successResultOf(asked)


class CheckTests(RestCase):
    """The ping of the health check."""

    def check(self) -> Deferred[None]:
        return ensureDeferred(self.client.check())

    def test_well(self) -> None:
        """200 is well."""
        checked = self.check()
        wire = self.accept()
        self.assertTrue(wire.value().startswith(b"GET /ari/asterisk/ping HTTP/1.1\r\n"))
        wire.answer(OK)
        self.successResultOf(checked)

    def problem(self, answer: bytes) -> str:
        """What is said of this answer."""
        checked = self.check()
        self.accept().answer(answer)
        return str(self.failureResultOf(checked, AsteriskUnavailable).value)

    def test_wrong_password(self) -> None:
        """401 has a cause that can be mended."""
        self.assertEqual(
            self.problem(b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"),
            "127.0.0.1:8088 answers 401 to /asterisk/ping: user or password is wrong",
        )

    def test_other_status(self) -> None:
        """Anything else is told as it is."""
        self.assertEqual(
            self.problem(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"),
            "127.0.0.1:8088 answers 503 to /asterisk/ping",
        )

    def test_refused(self) -> None:
        """Nobody listens."""
        checked = self.check()
        self.refuse()
        error = self.failureResultOf(checked, AsteriskUnavailable).value
        self.assertIn("no connection to 127.0.0.1:8088", str(error))

    def test_late(self) -> None:
        """Two seconds are enough for a ping."""
        checked = self.check()
        wire = self.accept()
        self.reactor.advance(2)
        error = self.failureResultOf(checked, AsteriskUnavailable).value
        self.assertEqual(str(error), "127.0.0.1:8088 gave no answer within 2 s")
        self.assertTrue(wire.aborted)

    def test_lost(self) -> None:
        """A ping whose answer is lost is not tried again: the next check will."""
        checked = self.check()
        self.accept().end(ConnectionDone())
        self.failureResultOf(checked, AsteriskAnswerLost)


class AuthorizationTests(SynchronousTestCase):
    """The header (RFC 7617)."""

    def test_example(self) -> None:
        """The RFC's own example."""
        self.assertEqual(
            basic_authorization("Aladdin", "open sesame"),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        )

    def test_utf8(self) -> None:
        """Other characters go as UTF-8."""
        self.assertEqual(
            basic_authorization("test", "123\u00a3"), "Basic dGVzdDoxMjPCow=="
        )
