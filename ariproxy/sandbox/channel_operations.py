"""The operations of ``/channels`` of a simulated Asterisk."""

from __future__ import annotations

from typing import Any

from ariproxy.sandbox.applications import Refused
from ariproxy.sandbox.media_operations import play_on, record_from
from ariproxy.sandbox.objects import Channel, Json
from ariproxy.sandbox.operations import Call, RestAnswer, operation
from ariproxy.sandbox.switchboard import Switchboard

_REASONS = {"normal": 16, "busy": 17, "no_answer": 19, "congestion": 34}
_PLAIN = (
    "/channels/{channelId}/ring",
    "/channels/{channelId}/progress",
    "/channels/{channelId}/hold",
    "/channels/{channelId}/moh",
    "/channels/{channelId}/silence",
)


def controlled(board: Switchboard, call: Call) -> Channel:
    """The channel of the path, which must be in a Stasis application."""
    channel = board.channel(call.ids[0])
    if channel.app is None:
        raise Refused(409, "Channel not in Stasis application")
    return channel


@operation("GET", "/channels")
def list_channels(board: Switchboard, call: Call) -> list[Any]:
    return [channel.as_json() for channel in board.channels.values()]


@operation("GET", "/channels/{channelId}")
def get(board: Switchboard, call: Call) -> Json:
    return board.channel(call.ids[0]).as_json()


@operation("POST", "/channels", "/channels/{channelId}")
def originate(board: Switchboard, call: Call) -> Json:
    endpoint = call.required("endpoint", "Endpoint must be specified")
    app = call.text("app")
    if not app and not call.text("extension"):
        raise Refused(400, "Application or extension must be specified")
    channel = _make(board, call, endpoint)
    if app:
        channel.pending_app = (app, call.several("appArgs"))
        if app in board.applications.known:
            board.own(channel, app)
    number = call.text("callerId").rpartition("<")[2].rstrip(">")
    channel.connected_number = number
    form = channel.as_json()
    board.later(0, lambda made: board.dial(made, call.number("timeout", 30)), channel)
    return form


@operation("POST", "/channels/create")
def create(board: Switchboard, call: Call) -> Json:
    endpoint = call.required("endpoint", "Endpoint must be specified")
    app = call.required("app", "Application must be specified")
    channel = _make(board, call, endpoint)
    return _start_in(board, channel, app, call.several("appArgs"))


@operation("POST", "/channels/externalMedia")
def external_media(board: Switchboard, call: Call) -> Json:
    text = "external_host is required for all but websocket server connections"
    host = call.required("external_host", text)
    call.required("format", "format must be specified")
    app = call.required("app", "app must be specified")
    board.applications.named(app)
    channel = board.media_channel(f"UnicastRTP/{host}", call.text("channelId") or None)
    channel.variables.update(call.variables())
    return _start_in(board, channel, app, [])


@operation("POST", "/channels/{channelId}/snoop", "/channels/{channelId}/snoop/{id}")
def snoop(board: Switchboard, call: Call) -> Json:
    spied_on = board.channel(call.ids[0])
    sides = (call.text("spy", "none"), call.text("whisper", "none"))
    if sides == ("none", "none"):
        text = "Direction must be specified for at least spy or whisper"
        raise Refused(400, text)
    app = call.required("app", "Application name is required")
    snoop_id = call.ids[1] if len(call.ids) > 1 else call.text("snoopId")
    channel = board.media_channel(f"Snoop/{spied_on.id}", snoop_id or None)
    channel.spied_on = spied_on
    form = channel.as_json()
    channel.pending_app = (app, call.several("appArgs"))
    board.later(0, board.start_application, channel)
    return form


@operation("DELETE", "/channels/{channelId}")
def hangup(board: Switchboard, call: Call) -> None:
    channel = board.channel(call.ids[0])
    reason = call.text("reason", "normal")
    if reason not in _REASONS:
        text = "Invalid reason for hangup reason provided"
        raise Refused(400, text, "Invalid Reason")
    board.end_by_request(channel, call.number("reason_code") or _REASONS[reason])


@operation("POST", "/channels/{channelId}/answer")
def answer(board: Switchboard, call: Call) -> None:
    board.answer(controlled(board, call))


@operation("POST", *_PLAIN)
def begin(board: Switchboard, call: Call) -> None:
    controlled(board, call)


@operation("DELETE", *(each for each in _PLAIN if not each.endswith("progress")))
def end(board: Switchboard, call: Call) -> None:
    controlled(board, call)


@operation("POST", "/channels/{channelId}/mute")
@operation("DELETE", "/channels/{channelId}/mute")
def mute(board: Switchboard, call: Call) -> None:
    controlled(board, call)
    direction = call.required("direction", "Direction is required")
    if direction not in {"in", "out", "both"}:
        raise Refused(400, "Invalid direction specified")


@operation("POST", "/channels/{channelId}/dtmf")
def dtmf(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    digits = call.required("dtmf", "DTMF is required")
    # What is sent on one half of a Local channel is received on the other.
    if channel.other_half is not None:
        for digit in digits:
            board.digit(channel.other_half, digit, call.number("duration", 100))


@operation("POST", "/channels/{channelId}/dial")
def dial(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    if channel.state != "Down":
        raise Refused(409, "Channel is not in the 'Down' state")
    timeout = call.number("timeout", 30)
    board.later(0, lambda created: board.dial(created, timeout), channel)


@operation("POST", "/channels/{channelId}/continue")
def leave(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    board.media.end_all(channel)
    board.leave_application(channel)
    # There is no dialplan behind Stasis(); the call ends.
    board.hangup(channel.id)


@operation("POST", "/channels/{channelId}/move")
def move(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    app = call.required("app", "Missing parameter app")
    board.move(channel, app, call.several("appArgs"))


@operation("POST", "/channels/{channelId}/redirect")
def redirect(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    technology, slash, _ = call.required("endpoint").partition("/")
    if not slash:
        raise Refused(422, "Endpoint parameter needs a technology")
    if technology != channel.technology:
        text = f"Endpoint technology '{technology}' does not match"
        raise Refused(422, f"{text} channel technology '{channel.technology}'")
    board.leave_application(channel)
    board.hangup(channel.id)


@operation("POST", "/channels/{channelId}/play", "/channels/{channelId}/play/{id}")
def play(board: Switchboard, call: Call) -> RestAnswer:
    return play_on(board, controlled(board, call), call)


@operation("POST", "/channels/{channelId}/record")
def record(board: Switchboard, call: Call) -> RestAnswer:
    channel = controlled(board, call)
    if channel.bridge is not None:
        raise Refused(409, "Cannot record channel while in bridge")
    return record_from(board, channel, call)


@operation("GET", "/channels/{channelId}/variable")
def get_variable(board: Switchboard, call: Call) -> Json:
    name = call.required("variable", "Variable name is required")
    return {"value": _value(_with_variables(board, call), name)}


@operation("GET", "/channels/{channelId}/variables")
def get_variables(board: Switchboard, call: Call) -> Json:
    call.required("variables", "Variable names are required")
    channel = _with_variables(board, call)
    names = call.several("variables")
    return {"variables": {name: _value(channel, name) for name in names}}


@operation("POST", "/channels/{channelId}/variable")
def set_variable(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    name = call.required("variable", "Variable name is required")
    board.set_variable(channel, name, call.text("value"))


@operation("POST", "/channels/{channelId}/variables")
def set_variables(board: Switchboard, call: Call) -> None:
    channel = controlled(board, call)
    for name, value in call.variables().items():
        board.set_variable(channel, name, value)


@operation("GET", "/channels/{channelId}/rtp_statistics")
def rtp_statistics(board: Switchboard, call: Call) -> Json:
    channel = board.channel(call.ids[0])
    if channel.technology != "PJSIP":
        raise Refused(403, "Unsupported channel type")
    counts = {"txcount": 50, "rxcount": 50, "txploss": 0, "rxploss": 0}
    return {**counts, "channel_uniqueid": channel.id, "rtt": 0.0}


@operation("POST", "/channels/{channelId}/transfer_progress")
def transfer_progress(board: Switchboard, call: Call) -> None:
    controlled(board, call)
    raise Refused(400, "Invalid states value")


def _make(board: Switchboard, call: Call, endpoint: str) -> Channel:
    channel_id = call.ids[0] if call.ids else call.text("channelId")
    other_id = call.text("otherChannelId")
    return board.make_channel(
        endpoint, channel_id or None, other_id or None, call.variables()
    )


def _start_in(board: Switchboard, channel: Channel, app: str, args: list[str]) -> Json:
    """The channel goes into the application without being dialled."""
    board.own(channel, app)
    form = channel.as_json()
    channel.pending_app = (app, args)
    board.later(0, board.start_application, channel)
    return form


def _with_variables(board: Switchboard, call: Call) -> Channel:
    try:
        return board.channel(call.ids[0])
    except Refused:
        text = "Provided channel was not found"
        raise Refused(404, text, "Channel Not Found") from None


def _value(channel: Channel, name: str) -> str:
    try:
        return channel.variables[name]
    except KeyError:
        text = "Provided variable was not found"
        raise Refused(404, text, "Variable Not Found") from None
