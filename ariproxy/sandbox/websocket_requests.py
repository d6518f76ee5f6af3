"""REST over the websocket, as a simulated Asterisk answers it.

The texts, and what is refused, are those of Asterisk 22.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ariproxy.sandbox.objects import Json
from ariproxy.sandbox.operations import RestAnswer, RestRequest, refusal
from ariproxy.sandbox.routes import METHODS, parse_query


def answer_frame(
    payload: bytes, carry_out: Callable[[RestRequest], RestAnswer], application: str
) -> Json:
    """The ``RESTResponse`` for one message of the websocket, whatever it holds."""
    try:
        frame = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        unread = RestAnswer(400, "Failed to parse request message JSON")
        return _response({}, "", unread, application)
    if not isinstance(frame, dict):
        frame = {}
    uri = _text(frame, "uri")
    path, _, query = uri.partition("?")
    fault = _fault(frame)
    if fault is not None:
        found = refusal(400, fault, "Bad request")
    elif path.startswith("/"):
        # There the path is relative to /ari/, so this one has an empty segment.
        found = refusal(405, "Invalid method")
    else:
        body = frame.get("message_body") or b""
        if not isinstance(body, str | bytes):
            body = msgspec.json.encode(body)
        content = body.encode() if isinstance(body, str) else body
        parameters = {**parse_query(query), **_parameters(frame)}
        request = RestRequest(frame["method"], f"/{path}", parameters, content)
        found = _as_text(carry_out(request))
    return _response(frame, path, found, application)


def _fault(frame: Json) -> str | None:
    if "type" not in frame:
        return "No 'type' property."
    if frame["type"] != "RESTRequest":
        return "Unknown request type."
    if not _text(frame, "uri"):
        return "Empty or missing 'uri' property."
    if _text(frame, "method") not in METHODS - {"PATCH"}:
        return "Unknown or missing 'method' property."
    if _text(frame, "uri").partition("?")[0] == "events":
        return "Can't upgrade to websocket from a websocket"
    return None


def _as_text(found: RestAnswer) -> RestAnswer:
    """A file cannot be carried in JSON."""
    if found.content_type in (None, "application/json"):
        return found
    return refusal(406, "Binary content is not supported over the websocket")


def _parameters(frame: Json) -> dict[str, str]:
    pairs: Any = frame.get("query_strings")
    if not isinstance(pairs, list):
        return {}
    return {
        _text(pair, "name"): _text(pair, "value")
        for pair in pairs
        if isinstance(pair, dict)
    }


def _response(frame: Json, uri: str, found: RestAnswer, application: str) -> Json:
    response = {
        "type": "RESTResponse",
        "transaction_id": _text(frame, "transaction_id"),
        "request_id": _text(frame, "request_id"),
        "status_code": found.status,
        "reason_phrase": found.reason,
        "uri": uri,
    }
    if found.content_type is not None:
        response["content_type"] = found.content_type
        response["message_body"] = found.body.decode()
    response["application"] = application
    return response


def _text(frame: Json, name: str) -> str:
    value = frame.get(name)
    return value if isinstance(value, str) else ""
