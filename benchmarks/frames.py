"""Frames of the websocket: ready-made events of a busy Asterisk, and those of a client.

About 700 bytes each, of the types that come most often, over ``CALLS`` live calls in
turn. Each carries in a field ``sent`` its number, its call and the time of sending.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

CALLS = 500
APPLICATION = "bench"
_SENT = b'"sent":"'
_NUMBER = b"########"
_PLACE = b"@@@@@@@@:@@@:@@@@@@@@@@@@@@@@"


def call_context(call: int) -> str:
    """The call context of a call."""
    return f"call-{call:03d}"


def channel_id(call: int) -> str:
    """The id of the channel of a call."""
    return f"1795535{call:03d}.{call}"


TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
"""Opcodes of frames (RFC 6455, 5.2)."""


def server_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One frame of a server: not masked (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    return bytes((0x80 | opcode, 126)) + size.to_bytes(2) + payload


def frames_of_client(held: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take the complete frames out of ``held``: opcode and payload without its mask.

    None is in parts, and none longer than 65,535 bytes.
    """
    at = 0
    while (begin := at + 6) <= len(held):
        size = held[at + 1] & 0x7F
        if size == 126:
            size = int.from_bytes(held[at + 2 : at + 4])
            begin += 2
        if (end := begin + size) > len(held):
            break
        mask = bytes(held[begin - 4 : begin]) * (size // 4 + 1)
        # One operation on two long numbers is much faster than one on each byte.
        clear = int.from_bytes(held[begin:end]) ^ int.from_bytes(mask[:size])
        yield held[at] & 0x0F, clear.to_bytes(size)
        at = end
    del held[:at]


GIVEN, NEW, LATER = "given", "new", "later"
"""Events of numbered channels of their own: a StasisStart with a call context, one
without, and what comes later of such a channel."""


def channel_context(number: int) -> str:
    """The call context that the StasisStart of a numbered channel gives."""
    return f"call-of-{number:08d}"


class Frames:
    """Makes the frames of numbered events; event ``n`` is of call ``n % CALLS``."""

    def __init__(self) -> None:
        self._channels = {kind: _channel_parts(kind) for kind in (GIVEN, NEW, LATER)}
        self._starts = [_halves(_event("StasisStart", call)) for call in range(CALLS)]
        self._others = [
            [_halves(_event(name, call)) for call in range(CALLS)] for name in _FIELDS
        ]

    def start(self, number: int, now: int) -> bytes:
        """The StasisStart of a call; ``now`` in nanoseconds."""
        return self._filled(self._starts, number, now)

    def event(self, number: int, now: int) -> bytes:
        """Another event of a call."""
        # A call gets the types in turn, as do the calls.
        kind = (number + number // CALLS) % len(self._others)
        return self._filled(self._others[kind], number, now)

    def channel(self, kind: str, number: int, now: int) -> bytes:
        """An event of the channel of this number alone."""
        before, after = self._channels[kind]
        digits = b"%08d" % number
        return (
            before.replace(_NUMBER, digits)
            + b"%08d:%03d:%016d" % (number, number % CALLS, now)
            + after
        )

    @staticmethod
    def _filled(halves: list[tuple[bytes, bytes]], number: int, now: int) -> bytes:
        call = number % CALLS
        before, after = halves[call]
        return before + b"%08d:%03d:%016d" % (number, call, now) + after


def read_sent(value: bytes) -> tuple[int, int, int]:
    """Number, call and time of sending of the event in a record."""
    at = value.index(_SENT) + len(_SENT)
    return (
        int(value[at : at + 8]),
        int(value[at + 9 : at + 12]),
        int(value[at + 13 :][:16]),
    )


def _channel_parts(kind: str) -> tuple[bytes, bytes]:
    event = _event("ChannelDtmfReceived" if kind == LATER else "StasisStart", 0)
    number = _NUMBER.decode()
    event["channel"]["id"] = f"17955350.{number}"
    context = channel_context(0).replace(f"{0:08d}", number)
    event["channel"]["channelvars"] = {"CALL_CONTEXT": context} if kind == GIVEN else {}
    return _halves(event)


def _halves(event: dict[str, Any]) -> tuple[bytes, bytes]:
    text = json.dumps(event, separators=(",", ":")).encode()
    before, after = server_frame(text).split(_PLACE)
    return before, after


_QUALITY = "ssrc=1264523;themssrc=9954;lp=0;rxjitter=0.0008;rxcount=412;txcount=409"
_FIELDS: dict[str, dict[str, Any]] = {
    "ChannelDtmfReceived": {"digit": "5", "duration_ms": 120},
    "ChannelVarset": {"variable": "RTPAUDIOQOS", "value": _QUALITY},
    "ChannelStateChange": {},
    "ChannelTalkingFinished": {"duration": 1480},
    "ChannelDialplan": {"dialplan_app": "Stasis", "dialplan_app_data": "bench"},
}


def _event(name: str, call: int) -> dict[str, Any]:
    fields = {"args": []} if name == "StasisStart" else _FIELDS[name]
    return {
        "type": name,
        "timestamp": "2026-11-24T15:55:17.123+0000",
        **fields,
        "channel": _channel(call),
        "asterisk_id": "00:16:3e:5a:11:7c",
        "application": APPLICATION,
        "sent": _PLACE.decode(),
    }


def _channel(call: int) -> dict[str, Any]:
    return {
        "id": channel_id(call),
        "name": f"PJSIP/trunk-{call:08x}",
        "state": "Up",
        "protocol_id": f"{call:08x}-7a2f-4d11-9b0c-1f2e3d4c5b6a",
        "caller": {"name": "Anna Müller", "number": f"+4930555{call:04d}"},
        "connected": {"name": "", "number": ""},
        "accountcode": "",
        "dialplan": {
            "context": "from-trunk",
            "exten": "1000",
            "priority": 3,
            "app_name": "Stasis",
            "app_data": "bench",
        },
        "creationtime": "2026-11-24T15:54:58.001+0000",
        "language": "en",
        "channelvars": {"CALL_CONTEXT": call_context(call)},
    }
