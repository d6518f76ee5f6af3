"""From a command to the request for Asterisk, and what it names and creates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_OID, uuid5

from msgspec import Struct

from ariproxy.ari.messages import AsteriskRequest
from ariproxy.ari.resources import CHANNEL, Resource, Template, match
from ariproxy.ari.urls import CommandUrl, command_url
from ariproxy.envelope import Command
from ariproxy.errors import CommandRefused
from ariproxy.jsontext import compact, text_of
from ariproxy.kafka.records import IncomingRecord

METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)


class Request(Struct, frozen=True):
    """A command made ready: what is asked, and what it names and creates.

    ``created`` are the ids that it creates, as events will spell them.
    """

    asked: AsteriskRequest
    template: Template
    resources: Sequence[Resource]
    created: Sequence[str] = ()


def prepare(record: IncomingRecord, command: Command) -> Request:
    """What Asterisk is asked, and which resources that names and creates.

    Raises ``CommandRefused`` where it must not be sent.
    """
    if command.fault is not None:
        raise CommandRefused(command.fault)
    method = (command.method or "").upper()
    if method not in METHODS:
        raise CommandRefused(
            f"ariCommand.method is {command.method!r}; "
            f"it must be one of {', '.join(sorted(METHODS))}"
        )
    if command.url is None:
        raise CommandRefused("ariCommand.url is missing")
    url = command_url(command.url)
    template, resources = match(url.path)
    body = command.body
    created: list[str] = []
    if template.created is not None:
        fields = body if isinstance(body, dict) else {}
        if method == "POST" and _has_blank_id(template, fields):
            # Asterisk lets it go before the id in the query, and makes its own.
            body = fields = {k: v for k, v in fields.items() if k != template.id_name}
        url, resources, created = _creation(
            record, method, url, template, resources, fields
        )
    return Request(
        AsteriskRequest(method, str(url), _text(body)), template, resources, created
    )


def _has_blank_id(template: Template, fields: Mapping[str, Any]) -> bool:
    name = template.id_name
    return (
        not template.id_in_path and name in fields and not text_of(fields[name]).strip()
    )


def _text(body: Any) -> bytes | None:
    if body is None:
        return None
    try:
        return compact(body)
    except RecursionError:
        raise CommandRefused("ariCommand.body is nested too deep to be sent") from None


def _creation(
    record: IncomingRecord,
    method: str,
    url: CommandUrl,
    template: Template,
    resources: list[Resource],
    fields: Mapping[str, Any],
) -> tuple[CommandUrl, list[Resource], list[str]]:
    """The same for a template on which a POST creates a resource."""
    assert template.created is not None
    is_creation = method == "POST"
    if template.id_in_path:
        found = unquote(resources[0].id)
    else:
        found = text_of(fields.get(template.id_name))
        if not found.strip() and is_creation:
            found = url.parameter(template.id_name)
        if not found.strip() and is_creation and template.id_is_optional:
            found = made_id(record)
            url = url.with_parameter(template.id_name, found)
        resource = Resource(template.created, found)
        if found.strip() and resource not in resources:
            resources = [resource, *resources]
    if not is_creation or not found.strip():
        return url, resources, []
    created = [found]
    if template.created == CHANNEL:
        other = text_of(fields.get("otherChannelId")) or url.parameter("otherChannelId")
        if other.strip():
            created.append(other)
    return url, resources, created


def made_id(record: IncomingRecord) -> str:
    """An id for a resource whose command has none.

    It depends only on where the command stands in Kafka, so that a command
    that is run again asks for the same resource.
    """
    place = f"{record.topic}/{record.partition}/{record.offset}"
    return str(uuid5(NAMESPACE_OID, place))
