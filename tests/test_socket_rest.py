"""Tests of ariproxy.ari.socket_rest and ariproxy.ari.asterisk."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ariproxy.ari.asterisk import Asterisk
from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.ari.socket_rest import SocketClosed, SocketRest, carried
from ariproxy.errors import AsteriskAnswerLost, AsteriskUnavailable
from ariproxy.interfaces import IAsterisk
from tests.fakes import FakeAsterisk

GET = AsteriskRequest("GET", "/channels/c")
POST = AsteriskRequest("POST", "/channels/c/answer")


class SocketCase(SynchronousTestCase):
    """Requests on a socket that the test answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[dict[str, Any]] = []
        self.is_open = True
        self.rest = SocketRest(self.send, self.clock, 30.0)

    def send(self, message: bytes) -> bool:
        if self.is_open:
            self.sent.append(json.loads(message))
        return self.is_open

    def answer(self, **fields: Any) -> None:
        """The next RESTResponse, for the last request unless it says otherwise."""
        usual = {"type": "RESTResponse", "request_id": self.sent[-1]["request_id"]}
        self.rest.answered({**usual, **fields})

    def open(self, status: int = 200) -> None:
        self.rest.opened()
        self.answer(status_code=status)


class SocketRestTests(SocketCase):
    """What goes over the socket, and what comes back."""

    def test_request(self) -> None:
        """No leading slash; a body has its content type, absent fields are absent."""
        self.rest.request(GET).addErrback(lambda failure: None)
        self.assertEqual(
            self.sent[0],
            {
                "type": "RESTRequest",
                "transaction_id": "ari-proxy",
                "request_id": "1",
                "method": "GET",
                "uri": "channels/c",
            },
        )
        body = AsteriskRequest("POST", "/bridges?name=%C3%A4", b'{"type":"\xc3\xa4"}')
        self.rest.request(body).addErrback(lambda failure: None)
        self.assertEqual(self.sent[1]["uri"], "bridges?name=%C3%A4")
        self.assertEqual(self.sent[1]["content_type"], "application/json")
        self.assertEqual(self.sent[1]["message_body"], '{"type":"ä"}')
        self.assertNotEqual(self.sent[1]["request_id"], self.sent[0]["request_id"])

    def test_answer(self) -> None:
        """As over HTTP: status, body in bytes, content type, size."""
        asked = self.rest.request(GET)
        self.answer(status_code=404, content_type="application/json", message_body="ä")
        self.assertEqual(
            self.successResultOf(asked),
            AsteriskAnswer(404, b"\xc3\xa4", "application/json", 2),
        )
        asked = self.rest.request(POST)
        self.answer(status_code=204)
        self.assertEqual(self.successResultOf(asked), AsteriskAnswer(204, b"", None, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_open(self) -> None:
        """Nothing was sent, so nothing was carried out."""
        self.is_open = False
        self.failureResultOf(self.rest.request(GET), AsteriskUnavailable)

    def test_late(self) -> None:
        """After the limit the outcome is unknown, and a late answer fits nothing."""
        asked = self.rest.request(GET)
        self.clock.advance(30)
        self.failureResultOf(asked, AsteriskAnswerLost)
        with capturedLogs() as logs:
            self.answer(status_code=200)
        self.assertEqual(len(logs), 1)

    def test_each_has_its_time(self) -> None:
        """Those asked later are waited for longer, also if an earlier one was late."""
        first = self.rest.request(GET)
        self.clock.advance(20)
        second, third = self.rest.request(POST), self.rest.request(GET)
        self.clock.advance(10)
        self.failureResultOf(first, AsteriskAnswerLost)
        self.answer(status_code=200)
        self.successResultOf(third)
        self.clock.advance(19.9)
        self.assertNoResult(second)
        self.clock.advance(0.1)
        self.failureResultOf(second, AsteriskAnswerLost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_closed(self) -> None:
        """All that is under way ends."""
        asked = [self.rest.request(GET), self.rest.request(POST)]
        self.rest.closed()
        for each in asked:
            self.failureResultOf(each, SocketClosed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_found_out(self) -> None:
        """It is usable from the first answer on, until the socket closes."""
        self.assertFalse(self.rest.usable)
        self.open()
        self.assertTrue(self.rest.usable)
        self.rest.closed()
        self.assertFalse(self.rest.usable)

    def test_too_old(self) -> None:
        """An Asterisk that says nothing, or refuses, is asked over HTTP."""
        self.rest.opened()
        self.clock.advance(60)
        self.assertFalse(self.rest.usable)
        self.open(status=405)
        self.assertFalse(self.rest.usable)

    def test_strange_answers(self) -> None:
        """They leave what is under way alone, and are told once in a while."""
        asked = self.rest.request(GET)
        with capturedLogs() as logs:
            for fields in (
                {"request_id": "no", "status_code": 200},
                {"request_id": None, "status_code": 200},
                {"request_id": ["1"], "status_code": 200},
                {"status_code": "200"},
                {"status_code": True},
                {"status_code": -1},
                {},
            ):
                self.answer(**fields)
            self.answer(status_code=200, message_body={"no": "text"}, content_type=7)
            self.answer(status_code=200)
        self.assertEqual(self.successResultOf(asked), AsteriskAnswer(200, b"", None, 0))
        self.assertEqual(len(logs), 1)

    @given(
        st.dictionaries(
            st.sampled_from(["request_id", "status_code", "message_body", "x"]),
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.text(), st.lists(st.text())
            ),
        )
    )
    def test_any_answer(self, fields: dict[str, Any]) -> None:
        """Whatever comes, it raises nothing."""
        with capturedLogs():
            self.rest.answered(fields)


class CarriedTests(SynchronousTestCase):
    """What the websocket can carry."""

    def test_methods_and_paths(self) -> None:
        """Four methods; not the base itself, and not a recording's sound."""
        for method, url, expected in (
            ("GET", "/channels", True),
            ("POST", "/channels?x=/file", True),
            ("PUT", "/x", True),
            ("DELETE", "/x", True),
            ("HEAD", "/x", False),
            ("OPTIONS", "/x", False),
            ("PATCH", "/x", False),
            ("GET", "/", False),
            ("GET", "/?x", False),
            ("GET", "/recordings/stored/r/file", False),
            ("GET", "/recordings/stored/r/file?x", False),
            ("GET", "/recordings/stored/file", False),
            ("GET", "/recordings/stored/r", True),
            ("PUT", "/applications/a/eventFilter", False),
            ("POST", "/channels/c/variables", False),
        ):
            self.assertEqual(carried(AsteriskRequest(method, url)), expected, url)
        filled = AsteriskRequest("POST", "/channels/c/variables", b"{}")
        self.assertTrue(carried(filled))


class AsteriskTests(SocketCase):
    """Which way a request takes."""

    def setUp(self) -> None:
        super().setUp()
        self.http = FakeAsterisk()
        self.asterisk = Asterisk(self.http, self.rest, only_socket=False)

    def ask(self, request: AsteriskRequest) -> Deferred[AsteriskAnswer]:
        return ensureDeferred(self.asterisk.request(request))

    def test_interface(self) -> None:
        """It is an IAsterisk."""
        verifyObject(IAsterisk, self.asterisk)

    def test_over_http_until_usable(self) -> None:
        """HTTP before the socket is known to answer, the socket from then on."""
        self.successResultOf(self.ask(GET))
        self.assertEqual(self.http.requests, [GET])
        self.open()
        asked = self.ask(GET)
        self.answer(status_code=200)
        self.assertEqual(self.successResultOf(asked).status, 200)
        self.assertEqual(self.http.requests, [GET])

    def test_what_it_cannot_carry(self) -> None:
        """Goes over HTTP."""
        self.open()
        file = AsteriskRequest("GET", "/recordings/stored/r/file")
        self.successResultOf(self.ask(file))
        self.assertEqual(self.http.requests, [file])

    def test_not_acceptable(self) -> None:
        """What is no JSON is read again over HTTP; nothing is done twice."""
        self.open()
        asked = self.ask(GET)
        self.answer(status_code=406)
        self.assertEqual(self.successResultOf(asked).status, 200)
        asked = self.ask(POST)
        self.answer(status_code=406)
        self.assertEqual(self.successResultOf(asked).status, 406)
        self.assertEqual(self.http.requests, [GET])

    def test_closed_meanwhile(self) -> None:
        """What may be asked again is, over HTTP; the rest has an unknown outcome."""
        self.open()
        idempotent, other = self.ask(GET), self.ask(POST)
        self.rest.closed()
        self.assertEqual(self.successResultOf(idempotent).status, 200)
        self.failureResultOf(other, AsteriskAnswerLost)
        self.assertEqual(self.http.requests, [GET])

    def test_closed_and_away(self) -> None:
        """The first attempt may have arrived, though the second did not."""
        self.open()
        asked = self.ask(AsteriskRequest("DELETE", "/channels/c"))
        self.http.error = AsteriskUnavailable("refused")
        self.rest.closed()
        self.failureResultOf(asked, AsteriskAnswerLost)

    def test_late_is_not_asked_again(self) -> None:
        """A time limit is one limit, not two."""
        self.open()
        asked = self.ask(GET)
        self.clock.advance(30)
        self.failureResultOf(asked, AsteriskAnswerLost)
        self.assertEqual(self.http.requests, [])

    def test_only_socket(self) -> None:
        """Where HTTP is switched off, the answer says what is missing."""
        self.asterisk = Asterisk(self.http, self.rest, only_socket=True)
        failure = self.failureResultOf(self.ask(GET), AsteriskUnavailable)
        self.assertIn("service.asterisk.rest-over-websocket", str(failure.value))
        self.open()
        asked = self.ask(GET)
        self.rest.closed()
        self.failureResultOf(asked, SocketClosed)
        self.assertEqual(self.http.requests, [])

    def test_check(self) -> None:
        """Health asks over HTTP."""
        self.http.error = AsteriskUnavailable("away")
        self.failureResultOf(ensureDeferred(self.asterisk.check()), AsteriskUnavailable)
