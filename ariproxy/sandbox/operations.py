"""What an operation of a simulated Asterisk is: its request, its parameters, its
answer, and how it is registered.

The texts and statuses of all answers are those of Asterisk 22.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from ariproxy.sandbox.applications import Refused
from ariproxy.sandbox.objects import Json
from ariproxy.sandbox.switchboard import Switchboard

REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    412: "Precondition Failed",
    422: "Unprocessable Entity",
    426: "Upgrade Required",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class RestRequest(Struct, frozen=True):
    """One request. ``path`` is relative to ``/ari``, like ``/channels/1/answer``."""

    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes = b""


class RestAnswer(Struct, frozen=True):
    """One answer; without a body there is no content type either."""

    status: int
    reason: str
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Call:
    """What an operation is given: the ids of its path and its parameters.

    Fields of a JSON body and of the query are the same to Asterisk; the body
    wins.
    """

    def __init__(self, ids: list[str], query: dict[str, str], body: Json) -> None:
        self.ids = ids
        self._parameters: Json = {**query, **body}
        self.body = body

    def text(self, name: str, default: str = "") -> str:
        """A parameter; one of another type counts as missing, as in Asterisk."""
        value = self._parameters.get(name)
        return value if isinstance(value, str) and value else default

    def required(self, name: str, message: str | None = None) -> str:
        """A parameter that must be there; raises ``Refused`` (400)."""
        value = self.text(name)
        if not value:
            raise Refused(400, message or f"Missing parameter {name}")
        return value

    def number(self, name: str, default: int = 0) -> int:
        """A whole number, as such or as text; anything else counts as 0."""
        value = self._parameters.get(name, default)
        try:
            return int(value)
        except (TypeError, ValueError):
            return 0

    def several(self, name: str) -> list[str]:
        """A list in a body, or a list with commas in the query."""
        value = self._parameters.get(name)
        if isinstance(value, list):
            return [each for each in value if isinstance(each, str) and each]
        if name in self.body:
            return [value] if isinstance(value, str) and value else []
        return [each for each in self.text(name).split(",") if each]

    def variables(self) -> dict[str, str]:
        """The ``variables`` of the body."""
        value = self.body.get("variables")
        if not isinstance(value, dict):
            return {}
        return {name: str(each) for name, each in value.items()}


Operation = Callable[[Switchboard, Call], "Json | list[Any] | RestAnswer | None"]
"""Answers 200 with JSON, 204 with ``None``, or as it says itself."""

OPERATIONS: dict[str, dict[str, Operation]] = {}
"""Path template to method to operation; filled as the modules are imported."""


def operation(method: str, *templates: str) -> Callable[[Operation], Operation]:
    """Register the function for these path templates."""

    def register(function: Operation) -> Operation:
        for template in templates:
            OPERATIONS.setdefault(template, {})[method] = function
        return function

    return register


def json_answer(status: int, value: Any, reason: str | None = None) -> RestAnswer:
    """An answer with a JSON body."""
    body = msgspec.json.encode(value)
    return RestAnswer(status, reason or REASONS[status], body, "application/json")


def refusal(status: int, message: str, reason: str | None = None) -> RestAnswer:
    """An answer that says what is wrong."""
    return json_answer(status, {"message": message}, reason)
