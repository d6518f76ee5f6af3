"""Which event carries which resource, and which command names or creates which.

The only file that knows names of events and paths of ARI. Events: the ARI
document ``events.json``; commands: ``channels.json``, ``bridges.json``,
``playbacks.json`` and ``recordings.json`` of Asterisk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ariproxy.jsontext import text_of

CHANNEL = "CHANNEL"
BRIDGE = "BRIDGE"
PLAYBACK = "PLAYBACK"
RECORDING = "RECORDING"
SNOOPING = "SNOOPING"

APPLICATION_REPLACED = "ApplicationReplaced"
REST_RESPONSE = "RESTResponse"
STASIS_START = "StasisStart"
STASIS_END = "StasisEnd"


class Resource(Struct, frozen=True):
    """A resource of Asterisk, in the form in which records list it."""

    type: str
    id: str


class EventType(Struct, frozen=True):
    """One type of event.

    ``name`` is its name in records. ``id_path`` leads to the id of the resource
    by which it is routed, ``None`` where there is no such resource; ``kind`` is
    that resource's kind as records list it, ``None`` where they list nothing.
    ``other_paths`` lead to the resources by which it is routed when the first
    is unknown: to an id, to a list of ids, or to a ``target_uri``. ``ends``: the
    resource is gone after it, and its id free for another.
    """

    name: str
    id_path: tuple[str, ...] | None = None
    kind: str | None = None
    other_paths: tuple[tuple[str, ...], ...] = ()
    ends: bool = False


_ENDS = frozenset(
    {
        "BRIDGE_DESTROYED",
        "CHANNEL_DESTROYED",
        "PLAYBACK_FINISHED",
        "RECORDING_FAILED",
        "RECORDING_FINISHED",
    }
)
# StasisEnd is not among them: a channel may come back into the application.


def _event(
    name: str, path: str | None = None, kind: str | None = None, *others: str
) -> EventType:
    return EventType(
        name,
        tuple(path.split("/")) if path else None,
        kind,
        tuple(tuple(other.split("/")) for other in others),
        name in _ENDS,
    )


def _channel_event(name: str) -> EventType:
    return _event(name, "channel/id", CHANNEL)


EVENT_TYPES: Mapping[str, EventType] = {
    APPLICATION_REPLACED: _event("APPLICATION_REPLACED"),
    "BridgeBlindTransfer": _event(
        "BRIDGE_BLIND_TRANSFER",
        "channel/id",
        CHANNEL,
        "transferee/id",
        "replace_channel/id",
        "bridge/id",
    ),
    "BridgeCreated": _event("BRIDGE_CREATED", "bridge/id", BRIDGE),
    "BridgeDestroyed": _event("BRIDGE_DESTROYED", "bridge/id", BRIDGE),
    "BridgeMerged": _event(
        "BRIDGE_MERGED",
        "bridge/id",
        BRIDGE,
        "bridge_from/id",
        "bridge/channels",
        "bridge_from/channels",
    ),
    "BridgeVideoSourceChanged": _event(
        "BRIDGE_VIDEOSOURCE_CHANGED", "bridge/id", BRIDGE
    ),
    "ChannelCallerId": _channel_event("CHANNEL_CALLERID"),
    "ChannelConnectedLine": _channel_event("CHANNEL_CONNECTED_LINE"),
    "ChannelCreated": _channel_event("CHANNEL_CREATED"),
    "ChannelDestroyed": _channel_event("CHANNEL_DESTROYED"),
    "ChannelDialplan": _channel_event("CHANNEL_DIALPLAN"),
    "ChannelDtmfReceived": _channel_event("CHANNEL_DTMF_RECEIVED"),
    "ChannelEnteredBridge": _event(
        "CHANNEL_ENTERED_BRIDGE", "bridge/id", BRIDGE, "channel/id"
    ),
    "ChannelHangupRequest": _channel_event("CHANNEL_HANGUP_REQUEST"),
    "ChannelHold": _channel_event("CHANNEL_HOLD"),
    "ChannelLeftBridge": _event(
        "CHANNEL_LEFT_BRIDGE", "bridge/id", BRIDGE, "channel/id"
    ),
    "ChannelStateChange": _channel_event("CHANNEL_STATE_CHANGE"),
    "ChannelTalkingFinished": _channel_event("CHANNEL_TALKING_FINISHED"),
    "ChannelTalkingStarted": _channel_event("CHANNEL_TALKING_STARTED"),
    "ChannelTransfer": _event(
        "CHANNEL_TRANSFER", "referred_by/source_channel/id", CHANNEL
    ),
    "ChannelUnhold": _channel_event("CHANNEL_UNHOLD"),
    "ChannelVarset": _channel_event("CHANNELVARSET"),
    "Dial": _event("DIAL", "peer/id", None, "caller/id", "forwarded/id"),
    "PlaybackStarted": _event(
        "PLAYBACK_STARTED", "playback/id", PLAYBACK, "playback/target_uri"
    ),
    "PlaybackContinuing": _event(
        "PLAYBACK_CONTINUING", "playback/id", PLAYBACK, "playback/target_uri"
    ),
    "PlaybackFinished": _event(
        "PLAYBACK_FINISHED", "playback/id", PLAYBACK, "playback/target_uri"
    ),
    "RecordingStarted": _event(
        "RECORDING_STARTED", "recording/name", RECORDING, "recording/target_uri"
    ),
    "RecordingFinished": _event(
        "RECORDING_FINISHED", "recording/name", RECORDING, "recording/target_uri"
    ),
    "RecordingFailed": _event(
        "RECORDING_FAILED", "recording/name", RECORDING, "recording/target_uri"
    ),
    STASIS_START: _channel_event("STASIS_START"),
    STASIS_END: _channel_event("STASIS_END"),
    "AriResponse": _event("RESPONSE"),
}
"""ARI's ``type`` to ours. ``AriResponse`` is no event of Asterisk; the original
knew the word, counted it and dropped it."""

UNKNOWN_EVENT = _event("UNKNOWN")


def _at(event: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(event, dict):
            return None
        event = event.get(name)
    return event


def main_id(event_type: EventType, event: Mapping[str, Any]) -> str:
    """The id of the resource that the event is about; empty if it has none."""
    if event_type.id_path is None:
        return ""
    found = text_of(_at(event, event_type.id_path))
    return found if found.strip() else ""


def other_ids(event_type: EventType, event: Mapping[str, Any]) -> Iterator[str]:
    """The ids by which the event is routed when its main resource is unknown."""
    for path in event_type.other_paths:
        found = _at(event, path)
        if path[-1] == "target_uri":
            # "channel:ID" or "bridge:ID" (models Playback and LiveRecording).
            found = text_of(found).partition(":")[2]
        for each in found if isinstance(found, list) else [found]:
            identifier = text_of(each)
            if identifier.strip():
                yield identifier


def given_call_context(event: Mapping[str, Any]) -> str:
    """The channel variable CALL_CONTEXT of the event's channel; empty if blank."""
    found = text_of(_at(event, ("channel", "channelvars", "CALL_CONTEXT")))
    return found if found.strip() else ""


class Template(Struct, frozen=True):
    """One path of ARI.

    ``created`` is the kind of the resource that a POST on it creates; its id
    stands in the path (``id_name`` is one of the placeholders) or in the body
    or query under ``id_name``. ``id_is_optional``: Asterisk makes an id itself
    where the command has none.
    """

    path: str
    created: str | None = None
    id_name: str = ""
    id_is_optional: bool = True

    @property
    def id_in_path(self) -> bool:
        """Whether the created resource is named by the path itself."""
        return f"{{{self.id_name}}}" in self.path


def _channel_actions(*actions: str) -> tuple[Template, ...]:
    return tuple(Template(f"/channels/{{channelId}}/{action}") for action in actions)


TEMPLATES: tuple[Template, ...] = (
    Template("/channels", CHANNEL, "channelId"),
    Template("/channels/create", CHANNEL, "channelId"),
    Template("/channels/externalMedia", CHANNEL, "channelId"),
    Template("/channels/{channelId}", CHANNEL, "channelId"),
    Template("/channels/{channelId}/play", PLAYBACK, "playbackId"),
    Template("/channels/{channelId}/play/{playbackId}", PLAYBACK, "playbackId"),
    Template("/channels/{channelId}/record", RECORDING, "name", id_is_optional=False),
    Template("/channels/{channelId}/snoop", SNOOPING, "snoopId"),
    Template("/channels/{channelId}/snoop/{snoopId}", SNOOPING, "snoopId"),
    *_channel_actions("continue", "move", "redirect", "answer", "ring", "dtmf"),
    *_channel_actions("mute", "hold", "moh", "silence", "variable", "dial"),
    *_channel_actions("rtp_statistics", "transfer_progress"),
    Template("/bridges", BRIDGE, "bridgeId"),
    Template("/bridges/{bridgeId}", BRIDGE, "bridgeId"),
    Template("/bridges/{bridgeId}/play", PLAYBACK, "playbackId"),
    Template("/bridges/{bridgeId}/play/{playbackId}", PLAYBACK, "playbackId"),
    Template("/bridges/{bridgeId}/record", RECORDING, "name", id_is_optional=False),
    Template("/bridges/{bridgeId}/addChannel"),
    Template("/bridges/{bridgeId}/removeChannel"),
    Template("/bridges/{bridgeId}/videoSource"),
    Template("/bridges/{bridgeId}/videoSource/{channelId}"),
    Template("/bridges/{bridgeId}/moh"),
    Template("/playbacks/{playbackId}"),
    Template("/playbacks/{playbackId}/control"),
    Template("/recordings/stored"),
    Template("/recordings/stored/{recordingName}"),
    Template("/recordings/stored/{recordingName}/file"),
    Template("/recordings/stored/{recordingName}/copy"),
    Template("/recordings/live/{recordingName}"),
    Template("/recordings/live/{recordingName}/stop"),
    Template("/recordings/live/{recordingName}/pause"),
    Template("/recordings/live/{recordingName}/mute"),
)

UNKNOWN_TEMPLATE = Template("UNKNOWN")
"""Stands for every path that names no resource; it is sent all the same."""

_KIND_OF_PLACEHOLDER = {
    "{channelId}": CHANNEL,
    "{bridgeId}": BRIDGE,
    "{playbackId}": PLAYBACK,
    "{recordingName}": RECORDING,
    "{snoopId}": SNOOPING,
}


_Shape = tuple[str, ...]
"""The segments of a path, with ``{}`` in place of each placeholder."""


def _shape(segments: Sequence[str], placeholders: Collection[int]) -> _Shape:
    return tuple(
        "{}" if position in placeholders else segment
        for position, segment in enumerate(segments)
    )


def _index() -> tuple[dict[int, list[tuple[int, ...]]], dict[_Shape, Template]]:
    """Where placeholders may stand, by number of segments; templates by shape."""
    places: dict[int, set[tuple[int, ...]]] = defaultdict(set)
    by_shape = {}
    for template in TEMPLATES:
        segments = template.path.split("/")[1:]
        at = tuple(i for i, s in enumerate(segments) if s in _KIND_OF_PLACEHOLDER)
        places[len(segments)].add(at)
        by_shape[_shape(segments, at)] = template
    # A literal (/channels/create) goes before a placeholder (/channels/{channelId}).
    return {n: sorted(found, key=len) for n, found in places.items()}, by_shape


_PLACEHOLDERS, _BY_SHAPE = _index()


def match(path: str) -> tuple[Template, list[Resource]]:
    """The template of a path (without query) and the resources that it names.

    The resources stand from right to left; their ids are as spelled in the
    path.
    """
    root, *segments = path.split("/")
    for placeholders in [] if root else _PLACEHOLDERS.get(len(segments), []):
        if not all(segments[position] for position in placeholders):
            continue
        template = _BY_SHAPE.get(_shape(segments, placeholders))
        if template is not None:
            names = template.path.split("/")[1:]
            return template, [
                Resource(_KIND_OF_PLACEHOLDER[names[position]], segments[position])
                for position in reversed(placeholders)
            ]
    return UNKNOWN_TEMPLATE, []
