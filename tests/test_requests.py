"""Tests of ariproxy.requests."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.resources import TEMPLATES, Resource
from ariproxy.envelope import Command, decode_command
from ariproxy.errors import CommandRefused, UndecodableMessage
from ariproxy.kafka.records import IncomingRecord
from ariproxy.requests import METHODS, Request, made_id, prepare
from tests.test_resources import IDS, PLACEHOLDERS, TEMPLATE_TABLE, rows, with_ids

RECORD = IncomingRecord("commands", 3, 42, None, b"")


def ask(method: Any, url: Any, body: Any = None) -> Request:
    """What a command with this request is made of."""
    return prepare(RECORD, Command("c", "1", method, url, body))


class PrepareTests(SynchronousTestCase):
    """From a command to the request for Asterisk."""

    def test_request(self) -> None:
        """Method, url and compact body are as the controller sent them."""
        found = ask("POST", "/channels/1/answer?x=%20", {"b": [1, None], "a": "ë"})
        self.assertEqual(found.asked.method, "POST")
        self.assertEqual(found.asked.url, "/channels/1/answer?x=%20")
        self.assertEqual(found.asked.body, '{"b":[1,null],"a":"ë"}'.encode())
        self.assertEqual(found.template.path, "/channels/{channelId}/answer")
        self.assertEqual(found.resources, [Resource("CHANNEL", "1")])
        self.assertEqual(list(found.created), [])

    def test_bodies(self) -> None:
        """No body and null are none; every other JSON value is sent."""
        self.assertIsNone(ask("PUT", "/x").asked.body)
        for body, sent in (({}, b"{}"), ([], b"[]"), ("", b'""'), (0, b"0")):
            self.assertEqual(ask("PUT", "/x", body).asked.body, sent)
        self.assertEqual(ask("POST", "/channels", False).asked.body, b"false")

    def test_methods(self) -> None:
        """Nine methods are known, in any case; all others are refused."""
        for method in METHODS:
            self.assertEqual(ask(method, "/x").asked.method, method)
            self.assertEqual(ask(method.lower(), "/x").asked.method, method)
        for method in ("", "FETCH", " GET", "GET ", "GET\r\nX: y", None, "5", "BREW"):
            error = self.assertRaises(CommandRefused, ask, method, "/x")
            self.assertIn("GET", str(error))

    def test_refused(self) -> None:
        """A fault, a missing url and a url that leaves /ari are refused."""
        command = Command("c", "1", "GET", "/x", fault="url is an array, not text")
        error = self.assertRaises(CommandRefused, prepare, RECORD, command)
        self.assertIn("an array", str(error))
        for url in (None, "", "x", "/a b", "/../x", "http://example.org/"):
            self.assertRaises(CommandRefused, ask, "GET", url)

    def test_unknown_path(self) -> None:
        """A path that names no resource is sent all the same."""
        for url in ("/applications/demo", "/ari/channels/1/progress"):
            found = ask("POST", url, {"channelId": "x"})
            self.assertEqual(found.template.path, "UNKNOWN")
            self.assertEqual((found.resources, list(found.created)), ([], []))
        self.assertEqual(found.asked.url, "/channels/1/progress")

    def test_deep_body(self) -> None:
        """A body that can be read but not written again is refused with a reason."""
        body: list[Any] = []
        for _ in range(500_000):
            body = [body]
        error = self.assertRaises(CommandRefused, ask, "POST", "/x", body)
        self.assertIn("nested", str(error))

    @settings(deadline=None)
    @given(
        st.binary(max_size=100)
        | st.text().map(
            lambda text: json.dumps(
                {
                    "callContext": text,
                    "ariCommand": {
                        "method": "POST",
                        "url": f"/channels{text}",
                        "body": {"channelId": text},
                    },
                }
            ).encode()
        )
    )
    def test_any_command(self, value: bytes) -> None:
        """Whatever comes, it is undecodable, refused, or a request in ASCII."""
        try:
            found = prepare(RECORD, decode_command(value))
        except (UndecodableMessage, CommandRefused):
            return
        self.assertTrue(found.asked.url.isascii())


class TemplateTests(SynchronousTestCase):
    """What each path names and creates."""

    def test_id_in_path(self) -> None:
        """The id is listed as spelled, and registered decoded on POST only."""
        for path, _, created, place in rows(TEMPLATE_TABLE):
            if place != "path":
                continue
            url = with_ids(path).replace(IDS["{bridgeId}"], "b%2F1+%C3%AB")
            url = url.replace("p-1", "p%201").replace("s-1", "s%201")
            found = ask("POST", url)
            spelled = {
                "BRIDGE": "b%2F1+%C3%AB",
                "PLAYBACK": "p%201",
                "SNOOPING": "s%201",
                "CHANNEL": "1724500000.1",
            }[created]
            decoded = {
                "BRIDGE": "b/1+ë",
                "PLAYBACK": "p 1",
                "SNOOPING": "s 1",
                "CHANNEL": "1724500000.1",
            }[created]
            self.assertEqual(found.resources[0], Resource(created, spelled))
            self.assertEqual(list(found.created), [decoded])
            self.assertEqual(found.asked.url, url)
            others = [each for each in METHODS if each != "POST"]
            for method in others:
                again = ask(method, url)
                self.assertEqual(list(again.created), [])
                self.assertEqual(again.resources, found.resources)

    def test_id_in_body(self) -> None:
        """It is put in front; the list does not depend on the method."""
        for path, kinds, created, place in rows(TEMPLATE_TABLE):
            if place in (None, "path"):
                continue
            url = with_ids(path).replace(" ", "%20")
            named = [
                Resource(each, IDS[PLACEHOLDERS[each]])
                for each in (kinds.split(",") if kinds else [])
            ]
            for found_id, text in (("x%20", "x%20"), (5, "5"), (True, "true")):
                for method in ("POST", "post", "GET", "PUT", "DELETE"):
                    found = ask(method, url, {place: found_id})
                    self.assertEqual(found.resources, [Resource(created, text), *named])
                    registered = [text] if method.upper() == "POST" else []
                    self.assertEqual(list(found.created), registered)
                    self.assertEqual(found.asked.url, url)
            self.assertEqual(ask("GET", url, {place: " "}).resources, named)
            self.assertEqual(ask("GET", f"{url}?{place}=q").resources, named)

    def test_id_in_query(self) -> None:
        """On POST it is honoured, decoded; an id in the body goes before it."""
        for path, _, created, place in rows(TEMPLATE_TABLE):
            if place in (None, "path"):
                continue
            url = f"{with_ids(path)}?a=1&{place}=q%20x".replace(" ", "%20")
            found = ask("POST", url, {"a": 1})
            self.assertEqual(found.resources[0], Resource(created, "q x"))
            self.assertEqual(list(found.created), ["q x"])
            self.assertEqual(found.asked.url, url)
            both = ask("POST", url, {place: "body"})
            self.assertEqual(both.resources[0], Resource(created, "body"))
            self.assertEqual(list(both.created), ["body"])

    def test_made_id(self) -> None:
        """Without an id the proxy makes one, the same whenever the command runs."""
        made = made_id(RECORD)
        self.assertEqual(str(UUID(made)), made)
        self.assertEqual(made, "42720fe9-85ad-5fc2-8d0f-5ef2a93e48a7")
        for path, kinds, created, place in rows(TEMPLATE_TABLE):
            if place in (None, "path", "name"):
                continue
            url = with_ids(path)
            for body in (None, {}, {"a": 1}, {place: ""}, {place: None}, {place: {}}):
                found = ask("POST", url, body)
                self.assertEqual(found.asked.url, f"{url}?{place}={made}")
                self.assertEqual(found.resources[0], Resource(created, made))
                self.assertEqual(
                    len(found.resources), 1 + len(kinds.split(",") if kinds else [])
                )
                self.assertEqual(list(found.created), [made])
            longer = ask("POST", f"{url}?x=%20&{place}=")
            self.assertEqual(longer.asked.url, f"{url}?x=%20&{place}=&{place}={made}")

    def test_blank_id_in_body(self) -> None:
        """Asterisk would let it go before the id in the query: it is not sent."""
        for blank in ("", " ", None, []):
            found = ask("POST", "/bridges", {"bridgeId": blank, "name": "n"})
            self.assertEqual(found.asked.body, b'{"name":"n"}')
            found = ask("POST", "/bridges?bridgeId=q", {"bridgeId": blank})
            self.assertEqual(found.asked.body, b"{}")
            self.assertEqual(list(found.created), ["q"])
        for method, url in (("PUT", "/bridges"), ("POST", "/bridges/b")):
            found = ask(method, url, {"bridgeId": ""})
            self.assertEqual(found.asked.body, b'{"bridgeId":""}')

    def test_record_without_name(self) -> None:
        """No name is made: Asterisk's own refusal is passed on."""
        for url in ("/channels/1/record", "/bridges/1/record"):
            for body in (None, {}, {"name": " "}):
                found = ask("POST", url, body)
                self.assertEqual(found.asked.url, url)
                self.assertEqual(len(found.resources), 1)
                self.assertEqual(list(found.created), [])

    def test_equal_resource_not_twice(self) -> None:
        """A created resource that is listed already is not put in front again."""
        for template in TEMPLATES:
            if template.created and not template.id_in_path:
                found = ask("POST", with_ids(template.path).replace(" ", "%20"))
                self.assertEqual(len(set(found.resources)), len(found.resources))

    def test_other_channel(self) -> None:
        """The second channel of a Local pair is registered, and not listed."""
        for url, body in (
            ("/channels?otherChannelId=o%201", {"channelId": "c"}),
            ("/channels", {"channelId": "c", "otherChannelId": "o 1"}),
            ("/channels/create", {"channelId": "c", "otherChannelId": "o 1"}),
            ("/channels/c?otherChannelId=o+1", None),
        ):
            found = ask("POST", url, body)
            self.assertEqual(found.resources, [Resource("CHANNEL", "c")])
            self.assertEqual(list(found.created), ["c", "o 1"])
        self.assertEqual(
            list(ask("POST", "/bridges/b?otherChannelId=o").created), ["b"]
        )
        self.assertEqual(
            list(ask("POST", "/channels/c?otherChannelId=%20").created), ["c"]
        )


class MadeIdTests(SynchronousTestCase):
    """Ids that the proxy makes."""

    def test_place(self) -> None:
        """Another place in Kafka, another id; headers and value do not matter."""
        places = [("t", 0, 1), ("t", 1, 0), ("t", 0, 0), ("u", 0, 0), ("t", 0, 10)]
        made = [made_id(IncomingRecord(*each, None, b"x")) for each in places]
        self.assertEqual(len(set(made)), len(places))
        self.assertEqual(made[0], made_id(IncomingRecord("t", 0, 1, b"k", b"y")))
