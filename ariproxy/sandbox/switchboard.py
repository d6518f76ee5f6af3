"""The state of a simulated Asterisk: channels, bridges, calls.

Free of any transport: requests come in by :mod:`ariproxy.sandbox.routes`, events
go out to the sinks of its applications. What Asterisk does in threads of its own
(dialling, media, snooping) goes through the clock, also where it takes no time;
everything else happens before the method returns.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet.interfaces import IReactorTime

from ariproxy.sandbox.applications import Applications, Refused, Sink
from ariproxy.sandbox.media import Media
from ariproxy.sandbox.objects import Bridge, Channel, Json, timestamp
from ariproxy.sandbox.settings import Settings

TECHNOLOGIES = frozenset({"PJSIP", "Local", "AudioSocket", "WebSocket"})

CAUSES = {
    16: "Normal Clearing",
    17: "User busy",
    19: "User alerting, no answer",
    34: "Circuit/channel congestion",
}

_FAILURES = {"busy": ("BUSY", 17), "congestion": ("CONGESTION", 34)}

# AST_SOFTHANGUP_EXPLICIT, which Asterisk reports as the cause of a hang-up by ARI.
_HANGUP_BY_REQUEST: Json = {"cause": 32, "soft": True}
_RTP_VARIABLES = ("", "JITTER", "LOSS", "RTT", "MES")


class Switchboard:
    """One simulated Asterisk.

    :param clock: what every delay runs on.
    :param now: the time in seconds since 1970.
    :param new_id: makes ids for what is created without one.
    """

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        new_id: Callable[[], str],
        settings: Settings,
    ) -> None:
        self._clock = clock
        self.now = now
        self._serial = count()
        self.new_id = new_id
        self.settings = settings
        self.started = timestamp(now())
        self.applications = Applications(now, settings.asterisk_id)
        self.media = Media(clock, self.applications, settings.media)
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}
        self.variables: dict[str, str] = {}
        self.device_states: dict[str, str] = {}

    # -- the websocket's side

    def connect(self, names: list[str], sink: Sink, hears_all: bool = False) -> None:
        """Send the events of these applications to ``sink`` from now on."""
        self.applications.connect(names, sink, hears_all)

    def disconnect(self, sink: Sink) -> None:
        """``sink`` takes no more events."""
        self.applications.disconnect(sink)

    # -- the telephone's side

    def call(
        self,
        exten: str,
        caller: str,
        call_context: str | None = None,
        app: str | None = None,
    ) -> str:
        """A call comes in and the dialplan hands it to the Stasis application.

        :param app: by default the first connected application. Without any, or
            with one that does not exist, the call ends at once, unheard of.
        :return: the id of the channel.
        """
        channel = self._new_channel(f"PJSIP/anonymous-{next(self._serial):08x}")
        channel.state, channel.exten = "Ring", exten
        channel.caller_number, channel.protocol_id = caller, self.new_id()
        if call_context is not None:
            channel.variables["CALL_CONTEXT"] = call_context
        app = app or next(iter(self.applications.known), None)
        if app is None or app not in self.applications.known:
            self.hangup(channel.id)
        else:
            self._enter_application(channel, app, [])
        return channel.id

    def hangup(self, channel_id: str, cause: int = 16) -> None:
        """The far side of this channel hangs up; harmless if it is gone."""
        channel = self.channels.get(channel_id)
        if channel is not None:
            self.end_channel(channel, cause, {"cause": cause})

    def digit(self, channel: Channel, digit: str, milliseconds: int = 100) -> None:
        """The far side of this channel presses a key."""
        fields: Json = {"digit": digit, "duration_ms": milliseconds}
        self._tell(channel, "ChannelDtmfReceived", fields)

    # -- channels

    def channel(self, channel_id: str) -> Channel:
        """The channel; raises ``Refused`` (404) if there is none."""
        try:
            return self.channels[channel_id]
        except KeyError:
            raise Refused(404, "Channel not found") from None

    def make_channel(
        self,
        endpoint: str,
        channel_id: str | None,
        other_id: str | None,
        variables: dict[str, str],
    ) -> Channel:
        """A channel towards an endpoint, not yet dialled; Local has two halves.

        Raises ``Refused`` for an endpoint that cannot be, or an id in use.
        """
        technology, slash, resource = endpoint.partition("/")
        if not slash or not resource:
            raise Refused(400, "Invalid endpoint specified")
        if technology not in TECHNOLOGIES:
            raise Refused(500, "Allocation failed")
        if {channel_id, other_id} & self.channels.keys():
            raise Refused(409, "Channel with given unique ID already exists")
        stem = f"{technology}/{resource.removesuffix('/n')}-{next(self._serial):08x}"
        local = technology == "Local"
        channel = self._new_channel(f"{stem};1" if local else stem, channel_id)
        channel.exten = resource.partition("@")[0]
        channel.dialplan = ("AppDial2", "(Outgoing Line)")
        channel.variables.update(variables)
        channel.dial_string = resource
        if local:
            other = self._new_channel(f"{stem};2", other_id or f"{channel.id};2")
            other.exten, other.other_half = channel.exten, channel
            other.variables.update(variables)
            channel.other_half = other
        return channel

    def media_channel(self, technology: str, channel_id: str | None) -> Channel:
        """A channel that is up from the start: a snoop, or external media."""
        if channel_id in self.channels:
            raise Refused(409, "Channel with given unique ID already exists")
        name = f"{technology}-{next(self._serial):08x}"
        channel = self._new_channel(name, channel_id)
        channel.state = "Up"
        return channel

    def own(self, channel: Channel, app: str) -> None:
        """This application made the channel and hears of it until its end."""
        halves = filter(None, (channel, channel.other_half))
        self.applications.named(app).made.update(each.id for each in halves)

    def later(
        self, seconds: float, step: Callable[[Channel], None], channel: Channel
    ) -> None:
        """Take a step with a channel, unless it is gone by then."""
        self._clock.callLater(seconds, lambda: None if channel.gone else step(channel))

    def dial(self, channel: Channel, timeout: float) -> None:
        """Call the endpoint; it answers after a while and enters the application.

        Endpoints named ``busy`` and ``congestion`` fail, one named ``noanswer``
        rings until ``timeout`` seconds have passed.
        """
        self._tell_dial(channel, "")
        if channel.other_half is not None:
            channel.other_half.state = "Ring"
        else:
            self._set_state(channel, "Ringing")
        if channel.exten == "noanswer":
            self.later(timeout, lambda c: self._dial_failed(c, "NOANSWER", 19), channel)
            return
        step: Callable[[Channel], None] = self._answered
        if channel.exten in _FAILURES:
            status, cause = _FAILURES[channel.exten]

            def step(channel: Channel) -> None:
                self._dial_failed(channel, status, cause)

        self.later(self.settings.answer_after, step, channel)

    def answer(self, channel: Channel) -> None:
        """Answer a call that came in; nothing happens if it is up."""
        if channel.state == "Down":
            raise Refused(412, "Channel in invalid state")
        self._set_state(channel, "Up")

    def set_variable(self, channel: Channel, name: str, value: str) -> None:
        """Set a channel variable and tell of it."""
        channel.variables[name] = value
        leading: Json = {"variable": name, "value": value}
        self._tell(channel, "ChannelVarset", {}, leading)

    def start_application(self, channel: Channel) -> None:
        """The channel enters the application that waits for it, if any does."""
        if channel.pending_app is not None:
            (app, args), channel.pending_app = channel.pending_app, None
            self._enter_application(channel, app, args)

    def move(self, channel: Channel, app: str, args: list[str]) -> None:
        """Hand the channel to another application, if that one exists."""
        if app not in self.applications.known:
            fields: Json = {"channel": channel.as_json(), "destination": app}
            fields["args"] = args
            self.applications.emit("ApplicationMoveFailed", fields, [channel])
            return
        self.leave_application(channel)
        self._enter_application(channel, app, args)

    def leave_application(self, channel: Channel) -> None:
        """The channel leaves its application, and its bridge before."""
        self.leave_bridge(channel)
        if channel.app is None:
            return
        application = self.applications.known.get(channel.app)
        channel.app = None
        if application is not None:
            fields = {"channel": channel.as_json()}
            self.applications.tell(application, "StasisEnd", fields)
            application.inside.discard(channel.id)

    def end_channel(self, channel: Channel, cause: int, request: Json) -> None:
        """Hang up: the end of its media, its bridge, its application, itself."""
        if channel.gone:
            return
        channel.gone = True
        if channel.technology == "PJSIP" and channel.state == "Up":
            for each in _RTP_VARIABLES:
                self.set_variable(channel, f"RTPAUDIOQOS{each}", "lost=0;jitter=0.000")
        self._tell(channel, "ChannelHangupRequest", {}, request)
        self.media.end_all(channel)
        self.leave_application(channel)
        if "STASISSTATUS" in channel.variables:
            self.set_variable(channel, "STASISSTATUS", "SUCCESS")
        del self.channels[channel.id]
        fields: Json = {"cause": cause, "cause_txt": CAUSES.get(cause, "Unknown")}
        self._tell(channel, "ChannelDestroyed", fields)
        self.applications.forget_channel(channel)
        if channel.other_half is not None:
            self.end_channel(channel.other_half, cause, {"cause": cause})
        for other in list(self.channels.values()):
            if other.spied_on is channel:
                self.end_channel(other, cause, {"cause": cause})

    def end_by_request(self, channel: Channel, cause: int) -> None:
        """Hang up because ARI said so."""
        self.end_channel(channel, cause, _HANGUP_BY_REQUEST)

    # -- bridges

    def bridge(self, bridge_id: str) -> Bridge:
        """The bridge; raises ``Refused`` (404) if there is none."""
        try:
            return self.bridges[bridge_id]
        except KeyError:
            raise Refused(404, "Bridge not found") from None

    def make_bridge(self, bridge_id: str | None, type: str, name: str) -> Bridge:
        """A new bridge; raises ``Refused`` for an id in use."""
        bridge_id = bridge_id or self.new_id()
        if bridge_id in self.bridges:
            raise Refused(409, f"Bridge with id '{bridge_id}' already exists")
        created = timestamp(self.now())
        bridge = Bridge(id=bridge_id, name=name, created=created, type=type)
        self.bridges[bridge_id] = bridge
        self._tell_bridge("BridgeCreated", bridge)
        return bridge

    def enter_bridge(self, channel: Channel, bridge: Bridge) -> None:
        """Put the channel into the bridge, out of another one if it was there."""
        if channel.bridge is bridge:
            return
        self.leave_bridge(channel)
        bridge.channels.append(channel)
        channel.bridge = bridge
        application = self.applications.known.get(channel.app or "")
        if application is not None:
            application.bridges.add(bridge.id)
        self._tell_bridge("ChannelEnteredBridge", bridge, channel)
        self._name_peers(bridge)

    def leave_bridge(self, channel: Channel) -> None:
        """Take the channel out of its bridge, if it is in one."""
        bridge = channel.bridge
        if bridge is None:
            return
        bridge.channels.remove(channel)
        channel.bridge = None
        if bridge.video_source is channel:
            bridge.video_source = None
        self._tell_bridge("ChannelLeftBridge", bridge, channel)
        self._name_peers(bridge)

    def end_bridge(self, bridge: Bridge) -> None:
        """Destroy the bridge; its channels stay, outside."""
        self.media.end_all(bridge)
        for channel in list(bridge.channels):
            self.leave_bridge(channel)
        del self.bridges[bridge.id]
        self._tell_bridge("BridgeDestroyed", bridge)
        for application in self.applications.known.values():
            application.bridges.discard(bridge.id)

    # -- details

    def _new_channel(self, name: str, channel_id: str | None = None) -> Channel:
        now = self.now()
        channel = Channel(
            id=channel_id or f"{int(now)}.{next(self._serial)}",
            name=name,
            created=timestamp(now),
            shown_variables=self.settings.shown_variables,
        )
        self.channels[channel.id] = channel
        self._tell(channel, "ChannelCreated")
        return channel

    def _enter_application(self, channel: Channel, app: str, args: list[str]) -> None:
        application = self.applications.known.get(app)
        if application is None:
            self.end_channel(channel, 16, {"cause": 16})
            return
        channel.app = app
        channel.dialplan = ("Stasis", ",".join([app, *args]))
        self.set_variable(channel, "STASISSTATUS", "")
        application.inside.add(channel.id)
        fields: Json = {"args": args, "channel": channel.as_json()}
        self.applications.tell(application, "StasisStart", fields)

    def _answered(self, channel: Channel) -> None:
        if channel.other_half is not None:
            self._set_state(channel.other_half, "Up")
        self._set_state(channel, "Up")
        self._tell_dial(channel, "ANSWER")
        self.start_application(channel)

    def _dial_failed(self, channel: Channel, status: str, cause: int) -> None:
        self._tell_dial(channel, status)
        self.end_channel(channel, cause, {"cause": cause})

    def _set_state(self, channel: Channel, state: str) -> None:
        if channel.state != state:
            channel.state = state
            self._tell(channel, "ChannelStateChange")

    def _name_peers(self, bridge: Bridge) -> None:
        # With one channel left there is no peer, and Asterisk says so.
        for channel in bridge.channels:
            peers = [each.name for each in bridge.channels if each is not channel]
            if peers or "BRIDGEPEER" in channel.variables:
                self.set_variable(channel, "BRIDGEPEER", ",".join(peers))

    def _tell(
        self,
        channel: Channel,
        kind: str,
        fields: Json | None = None,
        leading: Json | None = None,
    ) -> None:
        told = {**(fields or {}), "channel": channel.as_json()}
        self.applications.emit(kind, told, [channel], (), leading)

    def _tell_dial(self, channel: Channel, status: str) -> None:
        fields: Json = {"dialstatus": status, "forward": ""}
        fields |= {"dialstring": channel.dial_string, "peer": channel.as_json()}
        self.applications.emit("Dial", fields, [channel])

    def _tell_bridge(
        self, kind: str, bridge: Bridge, channel: Channel | None = None
    ) -> None:
        fields: Json = {"bridge": bridge.as_json()}
        if channel is not None:
            fields["channel"] = channel.as_json()
        self.applications.emit(kind, fields, [channel] if channel else (), [bridge])
