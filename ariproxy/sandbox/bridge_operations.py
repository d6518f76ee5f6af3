"""The operations of ``/bridges`` of a simulated Asterisk."""

from __future__ import annotations

from typing import Any

from ariproxy.sandbox.applications import Refused
from ariproxy.sandbox.media_operations import play_on, record_from
from ariproxy.sandbox.objects import Bridge, Json
from ariproxy.sandbox.operations import Call, RestAnswer, operation
from ariproxy.sandbox.switchboard import Switchboard

_TYPES = frozenset({"mixing", "holding", "dtmf_events", "proxy_media", "video_sfu"})


def of(board: Switchboard, call: Call) -> Bridge:
    """The bridge of the path."""
    return board.bridge(call.ids[0])


@operation("GET", "/bridges")
def list_bridges(board: Switchboard, call: Call) -> list[Any]:
    return [bridge.as_json() for bridge in board.bridges.values()]


@operation("POST", "/bridges", "/bridges/{bridgeId}")
def create(board: Switchboard, call: Call) -> Json:
    bridge_id = call.ids[0] if call.ids else call.text("bridgeId")
    types = call.text("type", "mixing").split(",")
    if not _TYPES.issuperset(types):
        text = "Unable to create bridge. Possible duplicate bridge id"
        raise Refused(500, f"{text} '{bridge_id or '(null)'}'", "Internal Error")
    kind = "holding" if "holding" in types else "mixing"
    bridge = board.make_bridge(bridge_id or None, kind, call.text("name"))
    bridge.variables.update(call.variables())
    return bridge.as_json()


@operation("GET", "/bridges/{bridgeId}")
def get(board: Switchboard, call: Call) -> Json:
    return of(board, call).as_json()


@operation("DELETE", "/bridges/{bridgeId}")
def destroy(board: Switchboard, call: Call) -> None:
    board.end_bridge(of(board, call))


@operation("POST", "/bridges/{bridgeId}/addChannel")
def add_channel(board: Switchboard, call: Call) -> None:
    bridge = of(board, call)
    call.required("channel")
    channels = []
    for channel_id in call.several("channel"):
        channel = board.channels.get(channel_id)
        if channel is None:
            raise Refused(400, "Channel not found")
        if channel.app is None:
            raise Refused(422, "Channel not in Stasis application")
        if board.media.recording_channel(channel):
            raise Refused(409, f"Channel {channel_id} currently recording")
        channels.append(channel)
    for channel in channels:
        board.enter_bridge(channel, bridge)


@operation("POST", "/bridges/{bridgeId}/removeChannel")
def remove_channel(board: Switchboard, call: Call) -> None:
    bridge = of(board, call)
    call.required("channel")
    channels = []
    for channel_id in call.several("channel"):
        channel = board.channels.get(channel_id)
        if channel is None:
            raise Refused(400, "Channel not found")
        if channel.bridge is not bridge:
            raise Refused(422, "Channel not in this bridge")
        channels.append(channel)
    for channel in channels:
        board.leave_bridge(channel)


@operation("POST", "/bridges/{bridgeId}/videoSource/{channelId}")
def set_video_source(board: Switchboard, call: Call) -> None:
    bridge = of(board, call)
    channel = board.channel(call.ids[1])
    if channel.bridge is not bridge:
        raise Refused(422, "Channel not in this bridge")
    bridge.video_source = channel


@operation("DELETE", "/bridges/{bridgeId}/videoSource")
def clear_video_source(board: Switchboard, call: Call) -> None:
    of(board, call).video_source = None


@operation("POST", "/bridges/{bridgeId}/moh")
def start_music(board: Switchboard, call: Call) -> None:
    of(board, call).music = True


@operation("DELETE", "/bridges/{bridgeId}/moh")
def stop_music(board: Switchboard, call: Call) -> None:
    bridge = of(board, call)
    if not bridge.music:
        raise Refused(409, "Bridge isn't playing music")
    bridge.music = False


@operation("POST", "/bridges/{bridgeId}/play", "/bridges/{bridgeId}/play/{playbackId}")
def play(board: Switchboard, call: Call) -> RestAnswer:
    return play_on(board, of(board, call), call)


@operation("POST", "/bridges/{bridgeId}/record")
def record(board: Switchboard, call: Call) -> RestAnswer:
    return record_from(board, of(board, call), call)


@operation("GET", "/bridges/{bridgeId}/variable")
def get_variable(board: Switchboard, call: Call) -> Json:
    name = call.required("variable", "Variable name is required")
    return {"value": _value(of(board, call), name)}


@operation("GET", "/bridges/{bridgeId}/variables")
def get_variables(board: Switchboard, call: Call) -> Json:
    bridge = of(board, call)
    names = call.several("variables")
    return {"variables": {name: _value(bridge, name) for name in names}}


@operation("POST", "/bridges/{bridgeId}/variable")
def set_variable(board: Switchboard, call: Call) -> None:
    name = call.required("variable", "Variable name is required")
    of(board, call).variables[name] = call.text("value")


@operation("POST", "/bridges/{bridgeId}/variables")
def set_variables(board: Switchboard, call: Call) -> None:
    of(board, call).variables.update(call.variables())


def _value(bridge: Bridge, name: str) -> str:
    try:
        return bridge.variables[name]
    except KeyError:
        text = "Provided variable was not found"
        raise Refused(404, text, "Variable Not Found") from None
