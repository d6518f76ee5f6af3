"""The wire format: records of Kafka, from bytes to values and back.

The only file that spells the field names of records. The contract of every
record, for readers of any language, is in ``docs/wire-format.rst``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from ariproxy.ari.resources import Resource
from ariproxy.errors import UndecodableMessage
from ariproxy.jsontext import compact, parse, parse_first, text_of

_NAMES = {
    "commands_topic": "commandsTopic",
    "call_context": "callContext",
    "command_id": "commandId",
    "command_request": "commandRequest",
}

_encode = msgspec.json.Encoder().encode


class Command(Struct, frozen=True):
    """A command as the call-controller sent it.

    ``method`` and ``url`` are ``None`` where they are missing; ``body`` is any
    JSON value. ``fault`` tells why the command cannot be carried out, though it
    could be read; ``None`` means that nothing is wrong with its form.
    """

    call_context: str | None = None
    command_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: Any = None
    fault: str | None = None


class _CommandRequest(Struct):
    method: str | None
    url: str | None


class _Event(Struct, rename=_NAMES):
    type: str
    commands_topic: str
    payload: Any
    call_context: str
    resources: Sequence[Resource]
    command_id: None = None
    command_request: None = None


class Answer(Struct, frozen=True):
    """The ``payload`` of an answer: ``body`` is left out where it is UNSET.

    ``body`` is Asterisk's as JSON already (``Raw``), or the proxy's own.
    """

    body: Any
    status_code: int


class _Response(Struct, rename=_NAMES):
    type: str
    commands_topic: str
    payload: Answer
    call_context: str | UnsetType
    resources: Sequence[Resource]
    command_id: str | UnsetType
    command_request: _CommandRequest


def _encoded(record: Struct) -> bytes:
    try:
        return _encode(record)
    except UnicodeEncodeError:
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if value is not UNSET:
                setattr(record, name, _escaped(value))
        return _encode(record)


def _escaped(value: Any) -> Raw:
    """The value as JSON; with escapes where a lone surrogate has no UTF-8 form."""
    try:
        return Raw(_encode(value))
    except UnicodeEncodeError:
        return Raw(compact(msgspec.to_builtins(value)))


def encode_event(
    name: str,
    commands_topic: str,
    payload: Mapping[str, Any],
    call_context: str,
    resources: Sequence[Resource],
) -> bytes:
    """The value of an event's record; ``payload`` is the event as parsed.

    Raises ``RecursionError`` for one that is nested too deep to be written.
    """
    return _encoded(_Event(name, commands_topic, payload, call_context, resources))


def encode_response(
    commands_topic: str,
    command: Command,
    resources: Sequence[Resource],
    answer: Answer,
) -> bytes:
    """The value of an answer's record."""
    record = _Response(
        "RESPONSE",
        commands_topic,
        answer,
        UNSET if command.call_context is None else command.call_context,
        resources,
        UNSET if command.command_id is None else command.command_id,
        _CommandRequest(command.method, command.url),
    )
    return _encoded(record)


def asterisk_answer(status: int, body: bytes, content_type: str | None) -> Answer:
    """Asterisk's answer as a payload: JSON as JSON, anything else in base64.

    JSON that is nested too deep to be read or written counts as anything else.
    """
    if not body.strip():
        return Answer(UNSET, status)
    try:
        return Answer(Raw(compact(parse(body))), status)
    except (ValueError, RecursionError):
        encoded = base64.b64encode(body).decode("ascii")
        return Answer({"content_type": content_type, "base64": encoded}, status)


def proxy_answer(status: int, message: str, **facts: Any) -> Answer:
    """An answer made by the proxy itself; ``message`` says what failed and why."""
    return Answer({"message": message, "proxy": True, **facts}, status)


def decode_command(value: bytes | None) -> Command:
    """Read a command, strict on what is needed, tolerant to all else.

    Raises ``UndecodableMessage`` where there is no JSON object to read; every
    other mistake is the ``fault`` of the command, so that it can be answered.
    """
    if not value:
        raise UndecodableMessage("the record has no value; a command is a JSON object")
    try:
        found = parse_first(value)
    except RecursionError:
        raise UndecodableMessage("the JSON is nested too deep to be read") from None
    except ValueError as error:
        raise UndecodableMessage(f"the value is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise UndecodableMessage(f"the value is {_kind(found)}, not a JSON object")
    return _command(found)


def _command(found: Mapping[str, Any]) -> Command:
    faults: list[str] = []
    call_context = _text(found, "callContext", "callContext", faults)
    if call_context is not None:
        call_context = text_of(call_context)  # It must fit a store and a key.
    command_id = _text(found, "commandId", "commandId", faults)
    wanted = found.get("ariCommand")
    if not isinstance(wanted, dict):
        faults.append(f"ariCommand is {_kind(wanted)}, not an object")
        wanted = {}
    method = _text(wanted, "method", "ariCommand.method", faults)
    url = _text(wanted, "url", "ariCommand.url", faults)
    return Command(
        call_context,
        command_id,
        method,
        url,
        wanted.get("body"),
        "; ".join(faults) or None,
    )


def _text(
    found: Mapping[str, Any], name: str, place: str, faults: list[str]
) -> str | None:
    value = found.get(name)
    if isinstance(value, (dict, list)):
        faults.append(f"{place} is {_kind(value)}, not text")
        return None
    return value if value is None or isinstance(value, str) else text_of(value)


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else "a text, number or boolean"
