"""REST requests to a simulated Asterisk: which operation answers, with what.

One table serves HTTP and the websocket. The order of the checks is that of
Asterisk: the path (404), the method (405), the body (400), then the operation's
own.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import msgspec

from ariproxy.sandbox import (
    bridge_operations,
    channel_operations,
    media_operations,
    system_operations,
)
from ariproxy.sandbox.applications import Refused
from ariproxy.sandbox.objects import Json
from ariproxy.sandbox.operations import (
    OPERATIONS,
    REASONS,
    Call,
    Operation,
    RestAnswer,
    RestRequest,
    json_answer,
    refusal,
)
from ariproxy.sandbox.switchboard import Switchboard

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})

# Importing them has registered their operations.
MODULES = (bridge_operations, channel_operations, media_operations, system_operations)

_Route = tuple[tuple[str, ...], dict[str, Operation]]


def answer(board: Switchboard, request: RestRequest) -> RestAnswer:
    """Carry the request out on the switchboard."""
    try:
        methods, ids = _find(request.path)
        if request.method == "OPTIONS":
            allowed = ",".join(sorted({"OPTIONS", *methods}))
            return RestAnswer(204, REASONS[204], headers=(("Allow", allowed),))
        if request.method not in methods:
            raise Refused(405, "Invalid method")
        call = Call(ids, request.query, _body(request.body))
        result = methods[request.method](board, call)
    except Refused as refused:
        return refusal(refused.status, refused.message, refused.reason)
    if isinstance(result, RestAnswer):
        return result
    if result is None:
        return RestAnswer(204, REASONS[204])
    return json_answer(200, result)


def request_of(method: str, url: str, body: bytes = b"") -> RestRequest:
    """The request for a url like ``/channels/1/play?media=tone:440``."""
    path, _, query = url.partition("?")
    return RestRequest(method, path, parse_query(query), body)


def parse_query(query: str) -> dict[str, str]:
    """The parameters of a query, decoded; of equal names the first counts."""
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters.setdefault(name, value)
    return parameters


def _find(path: str) -> tuple[dict[str, Operation], list[str]]:
    segments = _split(path)
    for template, methods in _ROUTES.get(len(segments), ()):
        pairs = list(zip(template, segments, strict=True))
        if all(t == s or (t == "{}" and s) for t, s in pairs):
            return methods, [unquote(s) for t, s in pairs if t == "{}"]
    raise Refused(404, "Resource not found")


def _split(path: str) -> list[str]:
    return path.removeprefix("/").split("/")


def _body(body: bytes) -> Json:
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(400, "Error parsing request body") from None
    return value if isinstance(value, dict) else {}


def _arranged() -> dict[int, list[_Route]]:
    """The routes by their number of segments, the literal ones first."""
    merged: dict[tuple[str, ...], dict[str, Operation]] = {}
    for path, methods in OPERATIONS.items():
        template = tuple("{}" if s[0] == "{" else s for s in _split(path))
        merged.setdefault(template, {}).update(methods)
    routes: dict[int, list[_Route]] = {}
    # /channels/create must not be taken for the channel with the id "create".
    for template in sorted(merged, key=lambda t: [segment == "{}" for segment in t]):
        routes.setdefault(len(template), []).append((template, merged[template]))
    return routes


_ROUTES = _arranged()
