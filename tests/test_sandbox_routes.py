"""REST requests to the simulated Asterisk, over HTTP's shape and the websocket's."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.sandbox.operations import REASONS, RestAnswer, RestRequest
from ariproxy.sandbox.routes import METHODS, answer, request_of
from ariproxy.sandbox.websocket_requests import answer_frame
from tests.test_sandbox_switchboard import Asterisk

SEGMENTS = """
    channels bridges playbacks recordings applications asterisk live stored create
    externalMedia play record snoop variable control subscription eventFilter
    answer addChannel c demo %2e
""".split()
SEGMENTS.append("")
PARAMETERS = ["media", "app", "endpoint", "name", "format", "variables"]
FIELDS = ["type", "method", "uri", "query_strings", "message_body"]


class RouteTests(SynchronousTestCase):
    """Which operation is meant, and what is no operation."""

    def test_statuses(self) -> None:
        """The path is judged before the method, the method before the rest."""
        asterisk = Asterisk()
        for method, url, status, message in (
            ("GET", "/nonsense", 404, "Resource not found"),
            ("GET", "/channels/c/nonsense", 404, "Resource not found"),
            ("GET", "/channels/c/answer/more", 404, "Resource not found"),
            ("PATCH", "/channels", 405, "Invalid method"),
            ("DELETE", "/channels", 405, "Invalid method"),
            ("GET", "/channels/create", 405, "Invalid method"),
            ("GET", "/channels/none", 404, "Channel not found"),
            ("POST", "/channels/none/answer", 404, "Channel not found"),
            ("GET", "/bridges/none", 404, "Bridge not found"),
            ("GET", "/playbacks/none", 404, "Playback not found"),
            ("GET", "/recordings/live/none", 404, "Recording not found"),
            ("GET", "/applications/none", 404, "Application not found"),
            ("POST", "/channels", 400, "Endpoint must be specified"),
            (
                "POST",
                "/channels?endpoint=x&app=demo",
                400,
                "Invalid endpoint specified",
            ),
        ):
            found = asterisk.ask(method, url)
            self.assertEqual(found.status, status, url)
            self.assertEqual(msgspec.json.decode(found.body), {"message": message})

    def test_options(self) -> None:
        """Tells the methods, as Asterisk does."""
        found = Asterisk().ask("OPTIONS", "/channels/c/moh")
        self.assertEqual(found.headers, (("Allow", "DELETE,OPTIONS,POST"),))

    def test_body_that_is_no_json(self) -> None:
        """Refused before anything is done."""
        for body in (b"{", b"\xff", b"nonsense"):
            found = answer(Asterisk().board, request_of("POST", "/bridges/b", body))
            self.assertEqual(found.status, 400)

    def test_ids_are_decoded(self) -> None:
        """An escaped id in the path is the id that the body spelled out."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/bridges", {"bridgeId": "a b/c"})
        self.assertEqual(asterisk.json("GET", "/bridges/a%20b%2Fc")["id"], "a b/c")

    def test_body_and_query(self) -> None:
        """Both give parameters; one of a wrong type counts as missing."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/bridges/a?name=query", {"name": "body"})
        asterisk.ask("POST", "/bridges/b?name=query", {"name": 5})
        self.assertEqual(asterisk.json("GET", "/bridges/a")["name"], "body")
        self.assertEqual(asterisk.json("GET", "/bridges/b")["name"], "")

    def test_variables(self) -> None:
        """Set one by one or together, read back, refused when unknown."""
        asterisk = Asterisk()
        asterisk.callee("c")
        asterisk.ask("POST", "/channels/c/variable?variable=A&value=1")
        asterisk.ask("POST", "/channels/c/variables", {"variables": {"B": "2"}})
        self.assertEqual(asterisk.events[-1]["variable"], "B")
        self.assertEqual(
            asterisk.json("GET", "/channels/c/variables?variables=A,B"),
            {"variables": {"A": "1", "B": "2"}},
        )
        missing = asterisk.ask("GET", "/channels/c/variable?variable=C")
        self.assertEqual((missing.status, missing.reason), (404, "Variable Not Found"))

    def test_not_in_the_application(self) -> None:
        """A channel that is still being dialled cannot be controlled."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/channels/c?endpoint=PJSIP/bob&app=demo")
        self.assertEqual(asterisk.ask("POST", "/channels/c/moh").status, 409)

    @settings(deadline=None)
    @given(
        method=st.sampled_from(sorted(METHODS)),
        segments=st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4),
        body=st.dictionaries(
            st.sampled_from(
                ["media", "app", "endpoint", "name", "format", "variables"]
            ),
            st.one_of(st.none(), st.integers(), st.text(), st.lists(st.text())),
        ),
    )
    def test_any_request(
        self, method: str, segments: list[str], body: dict[str, Any]
    ) -> None:
        """Whatever is asked, there is an answer, and never a failure of our own."""
        asterisk = Asterisk()
        asterisk.callee("c")
        found = asterisk.ask(method, "/" + "/".join(segments), body)
        self.assertIn(found.status, REASONS)
        self.assertEqual(bool(found.body), found.content_type is not None)


class WebsocketRequestTests(SynchronousTestCase):
    """REST over the websocket."""

    def frame(self, payload: bytes | dict[str, Any]) -> dict[str, Any]:
        """The answer to one message."""
        asterisk = Asterisk()
        asterisk.callee("c")
        message = (
            payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        )
        return answer_frame(message, lambda r: answer(asterisk.board, r), "demo")

    def request(self, **fields: Any) -> dict[str, Any]:
        """The answer to one request."""
        return self.frame({"type": "RESTRequest", **fields})

    def test_answer(self) -> None:
        """The ids come back; the body is text."""
        answered = self.request(
            transaction_id="t", request_id="r", method="GET", uri="bridges"
        )
        self.assertEqual(
            answered,
            {
                "type": "RESTResponse",
                "transaction_id": "t",
                "request_id": "r",
                "status_code": 200,
                "reason_phrase": "OK",
                "uri": "bridges",
                "content_type": "application/json",
                "message_body": "[]",
                "application": "demo",
            },
        )

    def test_no_content(self) -> None:
        """Neither a body nor its type."""
        answered = self.request(method="POST", uri="channels/c/answer")
        self.assertEqual(answered["status_code"], 204)
        self.assertNotIn("message_body", answered)

    def test_parameters(self) -> None:
        """From the uri, the query strings and the body, as text or as it is."""
        pairs = [{"name": "name", "value": "n"}]
        for more in (
            {"uri": "bridges/b?name=n"},
            {"uri": "bridges/b", "query_strings": pairs},
            {"uri": "bridges/b", "message_body": '{"name":"n"}'},
            {"uri": "bridges/b", "message_body": {"name": "n"}},
        ):
            answered = self.request(method="POST", **more)
            body = msgspec.json.decode(answered["message_body"])
            self.assertEqual(body["name"], "n", more)

    def test_refusals(self) -> None:
        """Each of Asterisk's reasons to refuse a frame."""
        for frame, reason, message in (
            ({}, "Bad request", "No 'type' property."),
            ({"type": "x"}, "Bad request", "Unknown request type."),
            (
                {"type": "RESTRequest", "uri": "bridges"},
                "Bad request",
                "Unknown or missing 'method' property.",
            ),
            (
                {"type": "RESTRequest", "method": "GET"},
                "Bad request",
                "Empty or missing 'uri' property.",
            ),
        ):
            answered = self.frame(frame)
            self.assertEqual(answered["status_code"], 400)
            self.assertEqual(answered["reason_phrase"], reason)
            self.assertIn(message, answered["message_body"])
        unread = self.frame(b"nonsense")
        self.assertEqual(
            unread["reason_phrase"], "Failed to parse request message JSON"
        )

    def test_leading_slash(self) -> None:
        """Is wrong here, as there."""
        answered = self.request(method="GET", uri="/bridges")
        self.assertEqual(answered["status_code"], 405)

    def test_binary(self) -> None:
        """A file cannot be had this way."""

        def file(request: RestRequest) -> RestAnswer:
            return RestAnswer(200, "OK", b"\xff", "audio/wav")

        frame = {"type": "RESTRequest", "method": "GET", "uri": "x"}
        answered = answer_frame(msgspec.json.encode(frame), file, "demo")
        self.assertEqual(answered["status_code"], 406)

    @settings(deadline=None)
    @given(
        st.one_of(
            st.binary(),
            st.dictionaries(
                st.sampled_from(
                    ["type", "method", "uri", "query_strings", "message_body"]
                ),
                st.one_of(
                    st.none(),
                    st.integers(),
                    st.sampled_from(["RESTRequest", "GET", "bridges", "?", "{"]),
                    st.lists(st.text()),
                ),
            ),
        )
    )
    def test_any_message(self, payload: Any) -> None:
        """Whatever comes, there is one answer."""
        self.assertEqual(self.frame(payload)["type"], "RESTResponse")
