"""The operations of a simulated Asterisk that are about no call.

What Asterisk serves only with modules that few load (mailboxes, dynamic
configuration, loggers) is unknown here, as it is there without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ariproxy.sandbox.applications import Application, Refused
from ariproxy.sandbox.objects import Json, timestamp
from ariproxy.sandbox.operations import Call, RestAnswer, operation
from ariproxy.sandbox.switchboard import Switchboard

_ENDPOINT: Json = {"technology": "PJSIP", "resource": "anonymous", "state": "online"}
_SOUNDS: list[Json] = [
    {"id": name, "formats": [{"language": "en", "format": "gsm"}]}
    for name in ("beep", "hello-world", "tt-monkeys")
]


@operation("GET", "/asterisk/ping")
def ping(board: Switchboard, call: Call) -> Json:
    return {
        "ping": "pong",
        "timestamp": timestamp(board.now()),
        "asterisk_id": board.settings.asterisk_id,
    }


@operation("GET", "/asterisk/info")
def info(board: Switchboard, call: Call) -> Json:
    settings = board.settings
    form: Json = {
        "build": {"os": "Linux", "kernel": "unknown", "machine": "unknown"},
        "system": {"version": settings.version, "entity_id": settings.asterisk_id},
        "config": {"name": "", "default_language": "en"},
        "status": {
            "startup_time": board.started,
            "last_reload_time": board.started,
        },
    }
    only = call.several("only")
    return {name: part for name, part in form.items() if not only or name in only}


@operation("GET", "/asterisk/variable")
def get_variable(board: Switchboard, call: Call) -> Json:
    name = call.required("variable", "Variable name is required")
    return {"value": board.variables.get(name, "")}


@operation("POST", "/asterisk/variable")
def set_variable(board: Switchboard, call: Call) -> None:
    name = call.required("variable", "Variable name is required")
    board.variables[name] = call.text("value")


@operation("GET", "/asterisk/modules")
def list_modules(board: Switchboard, call: Call) -> list[Any]:
    return []


@operation("GET", "/applications")
def list_applications(board: Switchboard, call: Call) -> list[Any]:
    return [each.as_json() for each in board.applications.known.values()]


@operation("GET", "/applications/{applicationName}")
def get_application(board: Switchboard, call: Call) -> Json:
    return board.applications.named(call.ids[0]).as_json()


@operation("POST", "/applications/{applicationName}/subscription")
def subscribe(board: Switchboard, call: Call) -> Json:
    application = board.applications.named(call.ids[0])
    for source, sources in _event_sources(board, application, call):
        sources.add(source)
    return application.as_json()


@operation("DELETE", "/applications/{applicationName}/subscription")
def unsubscribe(board: Switchboard, call: Call) -> Json:
    application = board.applications.named(call.ids[0])
    for source, sources in _event_sources(board, application, call):
        if source not in sources:
            raise Refused(409, "Application not subscribed to event source")
        sources.discard(source)
    return application.as_json()


@operation("PUT", "/applications/{applicationName}/eventFilter")
def event_filter(board: Switchboard, call: Call) -> Json:
    application = board.applications.named(call.ids[0])
    lists = [call.body.get("allowed", []), call.body.get("disallowed", [])]
    for each in lists:
        if not isinstance(each, list) or not all(isinstance(e, dict) for e in each):
            raise Refused(400, "Invalid format definition")
    application.allowed, application.disallowed = lists
    return application.as_json()


@operation("POST", "/events/user/{eventName}")
def user_event(board: Switchboard, call: Call) -> None:
    name = call.required("application")
    fields: Json = {"eventname": call.ids[0], "userevent": call.variables()}
    application = board.applications.named(name)
    board.applications.tell(application, "ChannelUserevent", fields)


@operation("GET", "/events")
def events(board: Switchboard, call: Call) -> RestAnswer:
    # Reached only without the headers of an upgrade.
    return RestAnswer(
        426, "Upgrade Required", b"<h1>Upgrade Required</h1>", "text/html"
    )


@operation("GET", "/endpoints", "/endpoints/PJSIP")
def list_endpoints(board: Switchboard, call: Call) -> list[Any]:
    return [_ENDPOINT | {"channel_ids": []}]


@operation("GET", "/endpoints/{tech}/{resource}")
def get_endpoint(board: Switchboard, call: Call) -> Json:
    if call.ids != [_ENDPOINT["technology"], _ENDPOINT["resource"]]:
        raise Refused(404, "Endpoint not found")
    return _ENDPOINT | {"channel_ids": []}


@operation("GET", "/deviceStates")
def list_device_states(board: Switchboard, call: Call) -> list[Any]:
    return [{"name": n, "state": s} for n, s in sorted(board.device_states.items())]


@operation("GET", "/deviceStates/{deviceName}")
def get_device_state(board: Switchboard, call: Call) -> Json:
    name = call.ids[0]
    return {"name": name, "state": board.device_states.get(name, "UNKNOWN")}


@operation("PUT", "/deviceStates/{deviceName}")
def set_device_state(board: Switchboard, call: Call) -> None:
    if not call.ids[0].startswith("Stasis:"):
        raise Refused(409, "Uncontrolled device specified")
    board.device_states[call.ids[0]] = call.required("deviceState")


@operation("DELETE", "/deviceStates/{deviceName}")
def delete_device_state(board: Switchboard, call: Call) -> None:
    if board.device_states.pop(call.ids[0], None) is None:
        raise Refused(404, "Device name is missing")


@operation("GET", "/sounds")
def list_sounds(board: Switchboard, call: Call) -> list[Any]:
    return list(_SOUNDS)


@operation("GET", "/sounds/{soundId}")
def get_sound(board: Switchboard, call: Call) -> Json:
    for sound in _SOUNDS:
        if sound["id"] == call.ids[0]:
            return sound
    raise Refused(404, "Sound not found")


def _event_sources(
    board: Switchboard, application: Application, call: Call
) -> list[tuple[str, set[str]]]:
    kinds: dict[str, tuple[set[str], Iterable[str] | None]] = {
        "channel": (application.made, board.channels),
        "bridge": (application.bridges, board.bridges),
        "endpoint": (application.endpoints, None),
        "deviceState": (application.devices, None),
    }
    call.required("eventSource")
    found = []
    for uri in call.several("eventSource"):
        scheme, _, name = uri.partition(":")
        if scheme not in kinds:
            raise Refused(400, "Invalid event source URI scheme")
        sources, existing = kinds[scheme]
        if existing is not None and name not in set(existing):
            raise Refused(422, "Event source does not exist")
        found.append((name, sources))
    return found
