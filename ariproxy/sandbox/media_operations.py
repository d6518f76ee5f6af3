"""The operations of playbacks and recordings of a simulated Asterisk."""

from __future__ import annotations

from typing import Any

from ariproxy.sandbox.applications import Refused
from ariproxy.sandbox.media import FORMATS
from ariproxy.sandbox.objects import Bridge, Channel, Json, Playback, Recording
from ariproxy.sandbox.operations import Call, RestAnswer, json_answer, operation
from ariproxy.sandbox.switchboard import Switchboard


def play_on(board: Switchboard, target: Channel | Bridge, call: Call) -> RestAnswer:
    """Answer a request to play something to a channel or a bridge."""
    media = call.several("media")
    if not media:
        # What Asterisk does say, though the parameter is the client's fault.
        raise Refused(500, "Failed to queue media for playback")
    playback_id = call.ids[1] if len(call.ids) > 1 else call.text("playbackId")
    playback = Playback(
        id=playback_id or board.new_id(),
        media=media,
        target=target,
        language=call.text("lang", "en"),
    )
    board.media.play(playback)
    return json_answer(201, playback.as_json())


def record_from(board: Switchboard, target: Channel | Bridge, call: Call) -> RestAnswer:
    """Answer a request to record a channel or a bridge."""
    if call.number("maxDurationSeconds") < 0:
        raise Refused(400, "max_duration_seconds cannot be negative")
    if call.text("ifExists", "fail") not in {"fail", "overwrite", "append"}:
        raise Refused(400, "ifExists invalid")
    if call.text("terminateOn", "none") not in {"none", "any", *"0123456789*#"}:
        raise Refused(400, "terminateOn invalid")
    if call.text("format") not in FORMATS:
        raise Refused(422, "specified format is unknown on this system")
    recording = Recording(
        name=call.required("name"),
        format=call.text("format"),
        target=target,
        longest=call.number("maxDurationSeconds"),
    )
    board.media.record(recording, call.text("ifExists", "fail") != "fail")
    return json_answer(201, recording.as_json())


@operation("GET", "/playbacks/{playbackId}")
def get_playback(board: Switchboard, call: Call) -> Json:
    return _playback(board, call).as_json()


@operation("DELETE", "/playbacks/{playbackId}")
def stop_playback(board: Switchboard, call: Call) -> None:
    board.media.stop(_playback(board, call))


@operation("POST", "/playbacks/{playbackId}/control")
def control_playback(board: Switchboard, call: Call) -> None:
    playback = _playback(board, call)
    board.media.control(playback, call.required("operation", "Missing operation"))


@operation("GET", "/recordings/live/{recordingName}")
def get_live(board: Switchboard, call: Call) -> Json:
    return _live(board, call).as_json()


@operation("DELETE", "/recordings/live/{recordingName}")
def cancel(board: Switchboard, call: Call) -> None:
    board.media.stop_recording(_live(board, call), "canceled")


@operation("POST", "/recordings/live/{recordingName}/stop")
def stop_recording(board: Switchboard, call: Call) -> None:
    board.media.stop_recording(_live(board, call))


@operation("POST", "/recordings/live/{recordingName}/pause")
def pause(board: Switchboard, call: Call) -> None:
    board.media.pause_recording(_live(board, call), True)


@operation("DELETE", "/recordings/live/{recordingName}/pause")
def unpause(board: Switchboard, call: Call) -> None:
    board.media.pause_recording(_live(board, call), False)


@operation("POST", "/recordings/live/{recordingName}/mute")
def mute(board: Switchboard, call: Call) -> None:
    board.media.mute_recording(_live(board, call), True)


@operation("DELETE", "/recordings/live/{recordingName}/mute")
def unmute(board: Switchboard, call: Call) -> None:
    board.media.mute_recording(_live(board, call), False)


@operation("GET", "/recordings/stored")
def list_stored(board: Switchboard, call: Call) -> list[Any]:
    return [
        {"name": name, "format": format}
        for name, (format, _) in sorted(board.media.stored.items())
    ]


@operation("GET", "/recordings/stored/{recordingName}")
def get_stored(board: Switchboard, call: Call) -> Json:
    format, _ = _stored(board, call)
    return {"name": call.ids[0], "format": format}


@operation("GET", "/recordings/stored/{recordingName}/file")
def get_file(board: Switchboard, call: Call) -> RestAnswer:
    format, sound = _stored(board, call)
    return RestAnswer(200, "OK", sound, f"audio/{format}")


@operation("POST", "/recordings/stored/{recordingName}/copy")
def copy(board: Switchboard, call: Call) -> RestAnswer:
    stored = _stored(board, call)
    name = call.required("destinationRecordingName")
    if name in board.media.stored:
        text = f"Recording '{name}' already exists and can not be overwritten"
        raise Refused(409, text)
    board.media.stored[name] = stored
    return json_answer(201, {"name": name, "format": stored[0]})


@operation("DELETE", "/recordings/stored/{recordingName}")
def delete_stored(board: Switchboard, call: Call) -> None:
    _stored(board, call)
    del board.media.stored[call.ids[0]]


def _playback(board: Switchboard, call: Call) -> Playback:
    try:
        return board.media.playbacks[call.ids[0]]
    except KeyError:
        raise Refused(404, "Playback not found") from None


def _live(board: Switchboard, call: Call) -> Recording:
    try:
        return board.media.live[call.ids[0]]
    except KeyError:
        raise Refused(404, "Recording not found") from None


def _stored(board: Switchboard, call: Call) -> tuple[str, bytes]:
    try:
        return board.media.stored[call.ids[0]]
    except KeyError:
        raise Refused(404, "Recording not found") from None
