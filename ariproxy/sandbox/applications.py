"""The Stasis applications of a simulated Asterisk, and who is told of what.

An application hears of what it is subscribed to. A channel that enters it is
subscribed until it leaves; a channel that it made is subscribed until the end;
a bridge, from the first of its channels in it. This is what Asterisk 22.10
does, seen on its websocket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ariproxy.sandbox.objects import Bridge, Channel, Json, timestamp

Sink = Callable[[bytes], None]
"""Takes one websocket message: an event as compact JSON."""


class Refused(Exception):
    """A request that Asterisk refuses, with the answer that it gives."""

    def __init__(self, status: int, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason


@dataclass(eq=False)
class Application:
    """One Stasis application; ``sink`` is ``None`` while no websocket serves it."""

    name: str
    sink: Sink | None = None
    hears_all: bool = False
    inside: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    bridges: set[str] = field(default_factory=set)
    endpoints: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    allowed: list[Json] = field(default_factory=list)
    disallowed: list[Json] = field(default_factory=list)

    def as_json(self) -> Json:
        """The ``Application`` of ARI."""
        return {
            "name": self.name,
            "channel_ids": sorted(self.inside | self.made),
            "bridge_ids": sorted(self.bridges),
            "endpoint_ids": sorted(self.endpoints),
            "device_names": sorted(self.devices),
            "events_allowed": self.allowed,
            "events_disallowed": self.disallowed,
        }

    def wants(self, kind: str) -> bool:
        """Whether the event filter lets this type of event through."""
        if any(each.get("type") == kind for each in self.disallowed):
            return False
        return not self.allowed or any(e.get("type") == kind for e in self.allowed)

    def hears(self, channels: Iterable[Channel], bridges: Iterable[Bridge]) -> bool:
        """Whether it is subscribed to one of these."""
        return (
            self.hears_all
            or any(c.id in self.inside or c.id in self.made for c in channels)
            or any(bridge.id in self.bridges for bridge in bridges)
        )


class Applications:
    """All applications of one Asterisk.

    :param now: the time in seconds since 1970.
    :param asterisk_id: the ``asterisk_id`` of every event.
    """

    def __init__(self, now: Callable[[], float], asterisk_id: str) -> None:
        self._now = now
        self.asterisk_id = asterisk_id
        self.known: dict[str, Application] = {}

    def connect(self, names: Iterable[str], sink: Sink, hears_all: bool) -> None:
        """A websocket serves these applications from now on.

        The one that served before is told ``ApplicationReplaced`` and stays
        open, silent.
        """
        for name in names:
            application = self.known.setdefault(name, Application(name))
            former, application.sink = application.sink, sink
            application.hears_all = hears_all
            if former is not None:
                message = {"type": "ApplicationReplaced", "application": name}
                former(msgspec.json.encode(message | {"asterisk_id": self.asterisk_id}))

    def disconnect(self, sink: Sink) -> None:
        """A websocket is gone; only applications with channels inside stay."""
        for application in list(self.known.values()):
            if application.sink == sink:
                application.sink = None
                if not application.inside:
                    del self.known[application.name]

    def named(self, name: str) -> Application:
        """The application; raises ``Refused`` (404) if there is none."""
        try:
            return self.known[name]
        except KeyError:
            raise Refused(404, "Application not found") from None

    def forget_channel(self, channel: Channel) -> None:
        """The channel exists no more."""
        for application in self.known.values():
            application.inside.discard(channel.id)
            application.made.discard(channel.id)

    def emit(
        self,
        kind: str,
        fields: Json,
        channels: Iterable[Channel] = (),
        bridges: Iterable[Bridge] = (),
        leading: Json | None = None,
    ) -> None:
        """Tell every application that is subscribed to one of the resources.

        :param leading: fields that Asterisk writes before ``type``.
        """
        for application in list(self.known.values()):
            if application.hears(channels, bridges):
                self.tell(application, kind, fields, leading)

    def tell(
        self,
        application: Application,
        kind: str,
        fields: Json,
        leading: Json | None = None,
    ) -> None:
        """Send one event to one application, if it is connected and wants it."""
        if application.sink is None or not application.wants(kind):
            return
        event: dict[str, Any] = {
            **(leading or {}),
            "type": kind,
            "timestamp": timestamp(self._now()),
            **fields,
            "asterisk_id": self.asterisk_id,
            "application": application.name,
        }
        application.sink(msgspec.json.encode(event))
