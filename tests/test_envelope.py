"""Tests of ariproxy.envelope."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.resources import EVENT_TYPES, Resource, main_id
from ariproxy.envelope import (
    Answer,
    Command,
    asterisk_answer,
    decode_command,
    encode_event,
    encode_response,
    proxy_answer,
)
from ariproxy.errors import UndecodableMessage
from ariproxy.jsontext import parse
from tests import frozen
from tests.test_jsontext import JSON

TOPIC = "ari-commands"
CHANNEL = Resource("CHANNEL", "1724500000.1")
ANSWER_URL = "/channels/1724500000.1/answer"


def response(
    answer: Answer,
    call_context: str | None = "frozen-call",
    command_id: str | None = "c-1",
    method: str | None = "POST",
    url: str | None = ANSWER_URL,
    resources: tuple[Resource, ...] = (CHANNEL,),
) -> bytes:
    """The value of an answer's record."""
    command = Command(call_context, command_id, method, url, {"body": "never"})
    return encode_response(TOPIC, command, resources, answer)


class EncodeEventTests(SynchronousTestCase):
    """Records of events."""

    def test_frozen(self) -> None:
        """Every published type is encoded exactly as it was promised."""
        names = []
        for path in frozen.EVENT_FILES:
            event = parse(frozen.event(path.stem))
            event_type = EVENT_TYPES[path.stem]
            kind = event_type.kind
            value = encode_event(
                event_type.name,
                TOPIC,
                event,
                "frozen-call",
                [Resource(kind, main_id(event_type, event))] if kind else [],
            )
            self.assertEqual(value, frozen.record(event_type.name))
            names.append(event_type.name)
        published = {each.name for each in EVENT_TYPES.values() if each.id_path}
        self.assertEqual(set(names), published)
        self.assertEqual(len(names), 30)

    def test_rewritten(self) -> None:
        """White space and needless escapes go; numbers, order and content stay."""
        event = parse(
            b'{ "z" : 1e2 , "type" : "X",\n\t"a":12345678901234567890123,'
            b'"s":"\\u00e4\\/\\u0001" , "n" : null, "e": {}, "l": [ ] }'
        )
        value = encode_event("X", "t", event, "c", [])
        self.assertEqual(
            value,
            b'{"type":"X","commandsTopic":"t","payload":{"z":100.0,"type":"X",'
            b'"a":12345678901234567890123,"s":"\xc3\xa4/\\u0001","n":null,"e":{},'
            b'"l":[]},"callContext":"c","resources":[],"commandId":null,'
            b'"commandRequest":null}',
        )

    def test_lone_surrogates(self) -> None:
        """Wherever a lone surrogate stands, its escape carries it."""
        for payload, context, resources in (
            ({"a": "\ud800ä"}, "c", []),
            ({"a": "ä"}, "c\udfffä", []),
            ({"a": "ä"}, "c", [Resource("CHANNEL", "\ud800")]),
            ({"\ud800": 1}, "\ud800", [Resource("CHANNEL", "\ud800")]),
        ):
            value = encode_event("X", "t", payload, context, resources)
            found = json.loads(value)
            self.assertEqual(list(found)[:3], ["type", "commandsTopic", "payload"])
            self.assertEqual(found["payload"], payload)
            self.assertEqual(found["callContext"], context)
            self.assertEqual(
                found["resources"], [{"type": r.type, "id": r.id} for r in resources]
            )
            self.assertIsNone(found["commandId"])

    def test_too_deep(self) -> None:
        """An event that is nested too deep raises the declared error."""
        event: dict[str, Any] = {}
        for _ in range(500_000):
            event = {"a": event}
        self.assertRaises(RecursionError, encode_event, "X", "t", event, "c", [])

    @settings(deadline=None)
    @given(st.dictionaries(st.text(), JSON), st.text(st.characters()))
    def test_any_payload(self, payload: dict[str, Any], context: str) -> None:
        """Any event comes out as it came in."""
        found = json.loads(encode_event("X", "t", payload, context, []))
        self.assertEqual(found["payload"], payload)
        self.assertEqual(found["callContext"], context)


class EncodeResponseTests(SynchronousTestCase):
    """Records of answers."""

    def test_frozen(self) -> None:
        """Every kind of answer is encoded exactly as it was promised."""
        file = "/recordings/stored/r-1/file"
        play = "/channels/1724500000.1/play/p-1?media=tone:ring"
        query = "/channels/1724500000.1?x=%C3%AB&y=1"
        json_body = b' { "id" : "1724500000.1", "name": "Zo\\u00eb", '
        json_body += b'"n": [1, 2.5, null, true] }\r\n'
        no_body = Answer(UNSET, 204)
        found = {
            "json-body": response(
                asterisk_answer(200, json_body, "application/json"),
                method="GET",
                url=query,
            ),
            "no-body": response(asterisk_answer(204, b"", None)),
            "null-body": response(asterisk_answer(200, b"null", "application/json")),
            "error": response(
                asterisk_answer(
                    404, b'{"message":"Channel not found"}', "application/json"
                )
            ),
            "not-json": response(
                asterisk_answer(200, b"RIFF\xff\0WAVE", "audio/x-wav"),
                method="GET",
                url=file,
                resources=(Resource("RECORDING", "r-1"),),
            ),
            "without-content-type": response(asterisk_answer(502, b"<html>", None)),
            "proxy-500": response(proxy_answer(500, "Asterisk was not reached")),
            "proxy-400": response(
                proxy_answer(400, "the method is not allowed"),
                method="FETCH",
                url="/channels",
                resources=(),
            ),
            "too-large": response(
                proxy_answer(200, "the answer is too large", size=5_000_000)
            ),
            "without-call-context": response(no_body, call_context=None),
            "without-command-id": response(no_body, command_id=None),
            "without-both": response(
                asterisk_answer(200, b'{"ping": "pong"}', "application/json"),
                call_context=None,
                command_id=None,
                method="GET",
                url="/asterisk/ping",
                resources=(),
            ),
            "two-resources": response(
                asterisk_answer(201, b'{"id":"p-1"}', "application/json"),
                url=play,
                resources=(Resource("PLAYBACK", "p-1"), CHANNEL),
            ),
            "faulty-command": response(
                proxy_answer(400, "ariCommand is missing"),
                method=None,
                url=None,
                resources=(),
            ),
        }
        for name, value in found.items():
            self.assertEqual(value, frozen.record(f"RESPONSE-{name}"))
        known = {each[9:] for each in frozen.KEYS if each.startswith("RESPONSE-")}
        self.assertEqual(set(found), known)

    def test_lone_surrogates(self) -> None:
        """Texts of the controller with a lone surrogate cost no answer."""
        answer = asterisk_answer(200, b'{"a":"\\ud800 \xc3\xa4"}', None)
        for given_, resources in (
            (("\ud800", "1", "GET", "/x"), ()),
            (("c", "\ud800", "GET", "/x"), ()),
            (("c", "1", "\ud800", "/\udfff"), (Resource("CHANNEL", "\ud800"),)),
            (("ä", None, None, None), ()),
        ):
            value = response(answer, *given_, resources)
            found = json.loads(value)
            self.assertEqual(found["payload"]["body"], {"a": "\ud800 ä"})
            self.assertEqual(found["callContext"], given_[0])
            self.assertEqual(found.get("commandId"), given_[1])
            self.assertEqual("commandId" in found, given_[1] is not None)
            self.assertEqual(
                found["commandRequest"], {"method": given_[2], "url": given_[3]}
            )
            self.assertEqual(len(found["resources"]), len(resources))


class AsteriskAnswerTests(SynchronousTestCase):
    """Bodies of Asterisk's answers."""

    def test_blank(self) -> None:
        """A body that is empty or blank is none."""
        for body in (b"", b" ", b"\r\n\t"):
            self.assertEqual(asterisk_answer(200, body, "x"), Answer(UNSET, 200))

    def test_not_json(self) -> None:
        """What is no JSON is carried in base64, cut-off JSON too."""
        for body in (b"{", b"<a/>", b"\xff", b'{"a":"\xff"}', b"NaN", b"{} {}", b"'"):
            answer = asterisk_answer(200, body, "text/plain")
            self.assertEqual(set(answer.body), {"content_type", "base64"})

    def test_every_depth(self) -> None:
        """However deep a body is nested, its answer can be written."""
        for depth in (*range(1, 1100, 7), 10_000, 200_000):
            body = b"[" * depth + b"]" * depth
            answer = asterisk_answer(200, body, None)

            def written(frames: int, answer: Answer = answer) -> bytes:
                """Encode with so many frames less left than there are here."""
                return response(answer) if not frames else written(frames - 1)

            found = written(100)
            self.assertTrue(body in found or b"base64" in found, depth)

    @settings(deadline=None)
    @given(st.integers(100, 599), st.binary(max_size=60))
    def test_any_body(self, status: int, body: bytes) -> None:
        """Any body makes an answer with Asterisk's own status."""
        found = json.loads(response(asterisk_answer(status, body, None)))
        self.assertEqual(found["payload"]["status_code"], status)
        self.assertEqual("body" in found["payload"], bool(body.strip()))

    @settings(deadline=None)
    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        """Any JSON is carried as what it is."""
        body = json.dumps(value).encode()
        found = json.loads(response(asterisk_answer(200, body, None)))
        self.assertEqual(found["payload"], {"body": value, "status_code": 200})


def command(**ari_command: Any) -> bytes:
    """A command with this request."""
    return json.dumps(
        {"callContext": "c", "commandId": "1", "ariCommand": ari_command}
    ).encode()


class DecodeCommandTests(SynchronousTestCase):
    """Commands, strict on what is needed and tolerant to all else."""

    def test_whole(self) -> None:
        """All fields of a command."""
        for body in ({"a": [1, None]}, [], "x", 0, False, None):
            self.assertEqual(
                decode_command(command(method="POST", url="/x", body=body)),
                Command("c", "1", "POST", "/x", body),
            )

    def test_only_what_is_needed(self) -> None:
        """Method and url are enough; null counts as missing."""
        for value in (
            b'{"ariCommand":{"method":"GET","url":"/x"}}',
            b'{"callContext":null,"commandId":null,'
            b'"ariCommand":{"method":"GET","url":"/x","body":null}}',
        ):
            self.assertEqual(
                decode_command(value), Command(None, None, "GET", "/x", None)
            )

    def test_tolerated(self) -> None:
        """Unknown fields, white space, text behind, escapes, bytes not of UTF-8."""
        expected = Command("c", "1", "GET", "/x")
        whole = command(method="GET", url="/x")
        for value in (
            whole + b" trailing {",
            whole + whole,
            whole + b"\xff\x00",
            b" \r\n\t" + whole,
            command(method="GET", url="/x", extra={"a": [1]}),
            whole[:-1] + b',"more":{"deep":[[]]}}',
            whole.replace(b'"c"', b'"\\u0063"'),
            b'{"callContext":"gone",' + whole[1:],
        ):
            self.assertEqual(decode_command(value), expected, value)
        found = decode_command(whole.replace(b'"c"', b'"c\xff"'))
        self.assertEqual(found.call_context, "c\ufffd")

    def test_numbers_as_text(self) -> None:
        """Numbers and booleans count as text in every text field."""
        value = (
            b'{"callContext":17,"commandId":true,"ariCommand":{"method":1.5,"url":2}}'
        )
        self.assertEqual(decode_command(value), Command("17", "true", "1.5", "2"))
        half = b'{"callContext":"a\\ud800","commandId":"\\ud800","ariCommand":{}}'
        found = decode_command(half)
        self.assertEqual((found.call_context, found.command_id), ("a?", "\ud800"))
        big = b'{"callContext":' + b"9" * 5000 + b"}"
        self.assertEqual(decode_command(big).call_context, "9" * 5000)

    def test_undecodable(self) -> None:
        """Where there is no object to read, there is nothing to answer."""
        for value in (
            None,
            b"",
            b" ",
            b"null",
            b"true",
            b"17",
            b'"text"',
            b"[]",
            b'[{"ariCommand":{}}]',
            b"{",
            b'{"callContext"',
            b'{"callContext":"c"',
            command(method="GET", url="/x")[:-1],
            b"{'a':1}",
            b'{"a":NaN}',
            b"\xff\xfe",
            b"\x00",
            b"\x1f\x8b\x08",
            b"<xml/>",
            b"{" * 10_000,
            b'{"a":' * 500_000 + b"1" + b"}" * 500_000,
            b'{"ariCommand":{"body":' + b"[" * 500_000 + b"]" * 500_000 + b"}}",
        ):
            error = self.assertRaises(UndecodableMessage, decode_command, value)
            self.assertLess(len(str(error)), 200)

    def test_ten_thousand_deep(self) -> None:
        """It depends on the interpreter whether it can be read; nothing breaks."""
        for deep in (
            b"[" * 10_000 + b"]" * 10_000,
            b'{"a":' * 9999 + b"1" + b"}" * 9999,
        ):
            value = b'{"ariCommand":{"method":"GET","url":"/x","body":' + deep + b"}}"
            try:
                self.assertEqual(decode_command(value).url, "/x")
            except UndecodableMessage as error:
                self.assertIn("nested", str(error))

    def test_faults(self) -> None:
        """A mistake inside an object is told, and what can be read is kept."""
        for value, fault, call_context in (
            (b"{}", "ariCommand", None),
            (b'{"callContext":"c"}', "ariCommand", "c"),
            (b'{"callContext":"c","ariCommand":null}', "ariCommand", "c"),
            (b'{"callContext":"c","ariCommand":[]}', "ariCommand", "c"),
            (b'{"callContext":"c","ariCommand":"GET /x"}', "ariCommand", "c"),
            (b'{"callContext":{},"ariCommand":{}}', "callContext", None),
            (b'{"callContext":"c","commandId":[],"ariCommand":{}}', "commandId", "c"),
            (command(method={}, url="/x"), "ariCommand.method", "c"),
            (command(method="GET", url=["/x"]), "ariCommand.url", "c"),
        ):
            found = decode_command(value)
            self.assertIn(fault, found.fault or "")
            self.assertEqual(found.call_context, call_context)
        both = decode_command(b'{"callContext":[],"commandId":{},"ariCommand":1}')
        for place in ("callContext", "commandId", "ariCommand"):
            self.assertIn(place, both.fault or "")

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, value: bytes) -> None:
        """Bytes are a command, or raise the declared error and no other."""
        try:
            found = decode_command(value)
        except UndecodableMessage:
            return
        self.assertIsInstance(found, Command)

    @settings(deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["callContext", "commandId", "ariCommand", "x"]),
            JSON
            | st.dictionaries(st.sampled_from(["method", "url", "body", "x"]), JSON),
        )
    )
    def test_any_object(self, value: dict[str, Any]) -> None:
        """Every object is a command, and its answer can be written."""
        found = decode_command(json.dumps(value).encode())
        for each in (found.call_context, found.command_id, found.method, found.url):
            self.assertIsInstance(each, (str, type(None)))
        answer = proxy_answer(400, found.fault or "")
        self.assertTrue(json.loads(encode_response("t", found, [], answer)))
