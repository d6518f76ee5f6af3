"""What a simulated Asterisk holds, each with the JSON form that ARI gives it.

The fields and their order are those of Asterisk 22.10, read from its answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


def timestamp(seconds: float) -> str:
    """Seconds since 1970 in ARI's form, like ``2026-08-24T12:00:00.000+0000``."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}+0000"


@dataclass(eq=False, kw_only=True)
class Channel:
    """One channel. ``app`` is the Stasis application that controls it, if any."""

    id: str
    name: str
    created: str
    state: str = "Down"
    protocol_id: str = ""
    caller_name: str = ""
    caller_number: str = ""
    connected_number: str = ""
    exten: str = "s"
    dialplan: tuple[str, str] = ("", "")
    variables: dict[str, str] = field(default_factory=dict)
    shown_variables: tuple[str, ...] = ()
    app: str | None = None
    bridge: Bridge | None = None
    other_half: Channel | None = None
    spied_on: Channel | None = None
    pending_app: tuple[str, list[str]] | None = None
    dial_string: str = ""
    gone: bool = False

    @property
    def technology(self) -> str:
        """The part of the name before the slash, like ``PJSIP``."""
        return self.name.partition("/")[0]

    def as_json(self) -> Json:
        """The ``Channel`` of ARI."""
        app_name, app_data = self.dialplan
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "protocol_id": self.protocol_id,
            "caller": {"name": self.caller_name, "number": self.caller_number},
            "connected": {"name": "", "number": self.connected_number},
            "accountcode": "",
            "dialplan": {
                "context": "default",
                "exten": self.exten,
                "priority": 1,
                "app_name": app_name,
                "app_data": app_data,
            },
            "creationtime": self.created,
            "language": "en",
            "channelvars": {
                name: self.variables.get(name, "") for name in self.shown_variables
            },
        }


@dataclass(eq=False, kw_only=True)
class Bridge:
    """One bridge and the channels in it."""

    id: str
    name: str
    created: str
    type: str = "mixing"
    channels: list[Channel] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    music: bool = False
    video_source: Channel | None = None

    def as_json(self) -> Json:
        """The ``Bridge`` of ARI."""
        simple = self.type == "mixing" and len(self.channels) <= 2
        technology = "simple_bridge" if simple else "softmix"
        form: Json = {
            "id": self.id,
            "technology": "holding_bridge" if self.type == "holding" else technology,
            "bridge_type": self.type,
            "bridge_class": "stasis",
            "creator": "Stasis",
            "name": self.name,
            "channels": [channel.id for channel in self.channels],
            "creationtime": self.created,
            "video_mode": "talker",
        }
        if self.video_source is not None:
            form["video_mode"] = "single"
            form["video_source_id"] = self.video_source.id
        return form


@dataclass(eq=False, kw_only=True)
class Playback:
    """One playback; ``media`` are the URIs not yet done, the first one current."""

    id: str
    media: list[str]
    target: Channel | Bridge
    language: str = "en"
    state: str = "queued"

    def as_json(self) -> Json:
        """The ``Playback`` of ARI."""
        form: Json = {"id": self.id, "media_uri": self.media[0]}
        if len(self.media) > 1:
            form["next_media_uri"] = self.media[1]
        form["target_uri"] = target_uri(self.target)
        form["language"] = self.language
        form["state"] = self.state
        return form


@dataclass(eq=False, kw_only=True)
class Recording:
    """One live recording; ``longest`` in seconds, 0 for no limit."""

    name: str
    format: str
    target: Channel | Bridge
    longest: float = 0
    state: str = "queued"
    muted: bool = False
    started: float = 0
    duration: int | None = None

    def as_json(self) -> Json:
        """The ``LiveRecording`` of ARI."""
        form: Json = {
            "name": self.name,
            "format": self.format,
            "state": self.state,
            "target_uri": target_uri(self.target),
        }
        if self.duration is not None:
            form["duration"] = self.duration
        return form


def target_uri(target: Channel | Bridge) -> str:
    """``channel:ID`` or ``bridge:ID``."""
    kind = "channel" if isinstance(target, Channel) else "bridge"
    return f"{kind}:{target.id}"
