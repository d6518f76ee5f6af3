"""The state of the simulated Asterisk, on a clock of the test."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.sandbox.routes import RestAnswer, answer, request_of
from ariproxy.sandbox.settings import Settings
from ariproxy.sandbox.switchboard import Switchboard

NOON = 1_787_572_800.0


class Asterisk:
    """A switchboard with one connected application, and shorthands."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        ids = count(1)
        self.board = Switchboard(
            self.clock,
            lambda: NOON + self.clock.seconds(),
            lambda: f"new-{next(ids)}",
            Settings(**settings),
        )
        self.events: list[dict[str, Any]] = []
        self.board.connect(["demo"], self.take)

    def take(self, message: bytes) -> None:
        """The websocket of the application."""
        self.events.append(msgspec.json.decode(message))

    def ask(self, method: str, url: str, body: Any = None) -> RestAnswer:
        """Make one request."""
        content = b"" if body is None else msgspec.json.encode(body)
        return answer(self.board, request_of(method, url, content))

    def json(self, method: str, url: str, body: Any = None) -> Any:
        """Make one request and read the JSON of its answer."""
        return msgspec.json.decode(self.ask(method, url, body).body)

    def new_types(self) -> list[str]:
        """The types of the events since the last time."""
        types = [event["type"] for event in self.events]
        self.events.clear()
        return types

    def callee(self, channel_id: str = "callee", endpoint: str = "PJSIP/bob") -> str:
        """A second channel, in the application."""
        body = {"endpoint": endpoint, "app": "demo"}
        self.ask("POST", f"/channels/{channel_id}", body)
        self.clock.pump([0, 0.05])
        return channel_id


class IncomingCallTests(SynchronousTestCase):
    """Calls that come in at the telephone's side."""

    def test_starts_in_the_application(self) -> None:
        """The event carries the whole channel, in Asterisk's form."""
        asterisk = Asterisk()
        channel = asterisk.board.call("1000", "4930", "ctx")
        self.assertEqual(
            asterisk.events,
            [
                {
                    "type": "StasisStart",
                    "timestamp": "2026-08-24T12:00:00.000+0000",
                    "args": [],
                    "channel": {
                        "id": channel,
                        "name": "PJSIP/anonymous-00000000",
                        "state": "Ring",
                        "protocol_id": "new-1",
                        "caller": {"name": "", "number": "4930"},
                        "connected": {"name": "", "number": ""},
                        "accountcode": "",
                        "dialplan": {
                            "context": "default",
                            "exten": "1000",
                            "priority": 1,
                            "app_name": "Stasis",
                            "app_data": "demo",
                        },
                        "creationtime": "2026-08-24T12:00:00.000+0000",
                        "language": "en",
                        "channelvars": {"CALL_CONTEXT": "ctx"},
                    },
                    "asterisk_id": "02:00:00:00:00:01",
                    "application": "demo",
                }
            ],
        )

    def test_events_of_a_whole_call(self) -> None:
        """The order is that of a real call through Stasis, hung up by ARI."""
        asterisk = Asterisk()
        channel = asterisk.board.call("1000", "4930")
        self.assertEqual(
            asterisk.ask("POST", f"/channels/{channel}/answer").status, 204
        )
        asterisk.ask("POST", f"/channels/{channel}/play?media=tone:1004/300")
        asterisk.clock.advance(0)
        self.assertEqual(asterisk.ask("DELETE", f"/channels/{channel}").status, 204)
        self.assertEqual(
            asterisk.new_types(),
            [
                "StasisStart",
                "ChannelStateChange",
                "PlaybackStarted",
                *["ChannelVarset"] * 5,
                "ChannelHangupRequest",
                "PlaybackFinished",
                "StasisEnd",
            ],
        )
        self.assertEqual(asterisk.ask("GET", f"/channels/{channel}").status, 404)

    def test_far_side_hangs_up(self) -> None:
        """The application hears of it; a second time is harmless."""
        asterisk = Asterisk()
        channel = asterisk.board.call("1000", "4930")
        asterisk.board.hangup(channel)
        asterisk.board.hangup(channel)
        self.assertEqual(
            asterisk.new_types(), ["StasisStart", "ChannelHangupRequest", "StasisEnd"]
        )

    def test_without_application(self) -> None:
        """Nobody is told, and the channel is gone."""
        asterisk = Asterisk()
        asterisk.board.disconnect(asterisk.take)
        asterisk.board.call("1000", "4930")
        self.assertEqual((asterisk.events, asterisk.board.channels), ([], {}))


class OutgoingCallTests(SynchronousTestCase):
    """Channels that ARI makes."""

    def test_originate(self) -> None:
        """The answer shows the channel before it is dialled."""
        asterisk = Asterisk()
        body = {"endpoint": "PJSIP/bob", "app": "demo", "channelId": "c1"}
        self.assertEqual(asterisk.json("POST", "/channels", body)["state"], "Down")
        asterisk.clock.pump([0, 0.05])
        self.assertEqual(
            asterisk.new_types(),
            [
                "Dial",
                "ChannelStateChange",
                "ChannelStateChange",
                "Dial",
                "ChannelVarset",
                "StasisStart",
            ],
        )
        asterisk.ask("DELETE", "/channels/c1?reason=busy")
        self.assertEqual(asterisk.events[-1]["type"], "ChannelDestroyed")
        self.assertEqual(asterisk.events[-1]["cause"], 17)

    def test_create_then_dial(self) -> None:
        """A created channel is in the application at once, and not yet up."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/channels/create?endpoint=PJSIP/bob&app=demo&channelId=c")
        asterisk.clock.advance(0)
        self.assertEqual(asterisk.events[-1]["type"], "StasisStart")
        self.assertEqual(asterisk.ask("POST", "/channels/c/answer").status, 412)
        self.assertEqual(asterisk.ask("POST", "/channels/c/dial").status, 204)
        asterisk.clock.pump([0, 0.05])
        self.assertEqual(asterisk.events[-1]["dialstatus"], "ANSWER")
        self.assertEqual(asterisk.ask("POST", "/channels/c/dial").status, 409)

    def test_endpoints_that_do_not_answer(self) -> None:
        """The dialling ends with its status, the channel with its cause."""
        cases = [("busy", "BUSY", 17), ("noanswer", "NOANSWER", 19)]
        for endpoint, status, cause in cases:
            asterisk = Asterisk()
            url = f"/channels?endpoint=PJSIP/{endpoint}&app=demo&timeout=1"
            asterisk.ask("POST", url)
            asterisk.clock.pump([0, 1])
            dials = [e["dialstatus"] for e in asterisk.events if e["type"] == "Dial"]
            self.assertEqual(dials, ["", status])
            self.assertEqual(asterisk.events[-1]["cause"], cause)

    def test_hung_up_while_ringing(self) -> None:
        """It does not answer any more."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/channels/c?endpoint=PJSIP/bob&app=demo")
        asterisk.clock.advance(0)
        asterisk.ask("DELETE", "/channels/c")
        asterisk.new_types()
        asterisk.clock.advance(60)
        self.assertEqual(asterisk.events, [])

    def test_local_has_two_halves(self) -> None:
        """A digit sent on one is received on the other; both end together."""
        asterisk = Asterisk()
        asterisk.callee("e", "Local/7@default/n")
        asterisk.ask("POST", "/channels/e/dtmf?dtmf=12")
        digits = [e for e in asterisk.events if e["type"] == "ChannelDtmfReceived"]
        self.assertEqual(
            [(e["digit"], e["channel"]["id"]) for e in digits],
            [("1", "e;2"), ("2", "e;2")],
        )
        asterisk.ask("DELETE", "/channels/e")
        self.assertEqual(asterisk.ask("GET", "/channels/e;2").status, 404)

    def test_id_in_use(self) -> None:
        """A conflict, also with the id of the other half."""
        asterisk = Asterisk()
        asterisk.callee("c", "Local/7@default")
        for url in ("/channels/c", "/channels/x?otherChannelId=c;2"):
            body = {"endpoint": "Local/7@default", "app": "demo"}
            self.assertEqual(asterisk.ask("POST", url, body).status, 409)

    def test_snoop_ends_with_its_channel(self) -> None:
        """A snoop is a channel in the application, as long as the other."""
        asterisk = Asterisk()
        asterisk.callee()
        asterisk.ask("POST", "/channels/callee/snoop/s?app=demo&spy=both")
        asterisk.clock.advance(0)
        self.assertEqual(asterisk.events[-1]["channel"]["id"], "s")
        asterisk.ask("DELETE", "/channels/callee")
        self.assertEqual(asterisk.board.channels, {})

    def test_move(self) -> None:
        """To an application that exists; otherwise the channel stays."""
        asterisk = Asterisk()
        asterisk.callee()
        asterisk.board.connect(["other"], asterisk.take)
        asterisk.new_types()
        asterisk.ask("POST", "/channels/callee/move?app=nope")
        self.assertEqual(asterisk.new_types(), ["ApplicationMoveFailed"])
        asterisk.ask("POST", "/channels/callee/move?app=other&appArgs=a,b")
        self.assertEqual(asterisk.events[-1]["application"], "other")
        self.assertEqual(asterisk.events[-1]["args"], ["a", "b"])


class BridgeTests(SynchronousTestCase):
    """Bridges and who is in them."""

    def test_two_channels(self) -> None:
        """Entering, naming the peers, leaving, the end."""
        asterisk = Asterisk()
        caller, callee = asterisk.board.call("1000", "1"), asterisk.callee()
        asterisk.new_types()
        asterisk.ask("POST", "/bridges/b?type=mixing")
        url = f"/bridges/b/addChannel?channel={caller},{callee}"
        self.assertEqual(asterisk.ask("POST", url).status, 204)
        self.assertEqual(asterisk.events[0]["bridge"]["channels"], [caller])
        self.assertEqual(
            asterisk.new_types(),
            ["ChannelEnteredBridge"] * 2 + ["ChannelVarset"] * 2,
        )
        asterisk.ask("POST", f"/bridges/b/removeChannel?channel={callee}")
        asterisk.ask("DELETE", "/bridges/b")
        self.assertEqual(
            asterisk.new_types(),
            [
                "ChannelLeftBridge",
                "ChannelVarset",
                "ChannelLeftBridge",
                "BridgeDestroyed",
            ],
        )

    def test_a_channel_is_in_one_bridge(self) -> None:
        """Entering a second one takes it out of the first."""
        asterisk = Asterisk()
        asterisk.callee()
        for bridge in ("a", "b"):
            asterisk.ask("POST", f"/bridges/{bridge}")
            asterisk.ask("POST", f"/bridges/{bridge}/addChannel?channel=callee")
        self.assertEqual(asterisk.json("GET", "/bridges/a")["channels"], [])
        self.assertEqual(asterisk.json("GET", "/bridges/b")["channels"], ["callee"])

    def test_hang_up_leaves_the_bridge(self) -> None:
        """In the order in which Asterisk says it."""
        asterisk = Asterisk()
        channel = asterisk.board.call("1000", "1")
        asterisk.ask("POST", "/bridges/b")
        asterisk.ask("POST", f"/bridges/b/addChannel?channel={channel}")
        asterisk.new_types()
        asterisk.board.hangup(channel)
        self.assertEqual(
            asterisk.new_types(),
            ["ChannelHangupRequest", "ChannelLeftBridge", "StasisEnd"],
        )

    def test_refusals(self) -> None:
        """What cannot be bridged, with Asterisk's own status."""
        asterisk = Asterisk()
        asterisk.callee("l", "Local/7@default")
        asterisk.ask("POST", "/bridges/b")
        for url, status in (
            ("/bridges/b", 409),
            ("/bridges?type=nonsense", 500),
            ("/bridges/none/addChannel?channel=l", 404),
            ("/bridges/b/addChannel", 400),
            ("/bridges/b/addChannel?channel=none", 400),
            ("/bridges/b/addChannel?channel=l;2", 422),
            ("/bridges/b/removeChannel?channel=l", 422),
        ):
            self.assertEqual(asterisk.ask("POST", url).status, status, url)


class ApplicationTests(SynchronousTestCase):
    """Who is told of what."""

    def test_replaced(self) -> None:
        """The first websocket is told once and then hears nothing more."""
        asterisk = Asterisk()
        second: list[bytes] = []
        asterisk.board.connect(["demo"], second.append)
        asterisk.board.call("1000", "1")
        self.assertEqual(asterisk.new_types(), ["ApplicationReplaced"])
        self.assertEqual(len(second), 1)
        asterisk.board.disconnect(asterisk.take)
        self.assertIn("demo", asterisk.board.applications.known)

    def test_gap(self) -> None:
        """An application with a live channel outlasts its websocket."""
        asterisk = Asterisk()
        channel = asterisk.board.call("1000", "1")
        asterisk.board.disconnect(asterisk.take)
        asterisk.ask("POST", f"/channels/{channel}/answer")
        asterisk.board.connect(["demo"], asterisk.take)
        asterisk.board.hangup(channel)
        self.assertEqual(asterisk.events[0]["type"], "StasisStart")
        self.assertNotIn("ChannelStateChange", asterisk.new_types())

    def test_hears_all(self) -> None:
        """One that subscribes to all hears of what is not its own."""
        asterisk = Asterisk()
        heard: list[bytes] = []
        asterisk.board.connect(["all"], heard.append, hears_all=True)
        asterisk.ask("POST", "/bridges/b")
        self.assertEqual(asterisk.events, [])
        self.assertEqual(msgspec.json.decode(heard[0])["type"], "BridgeCreated")

    def test_event_filter(self) -> None:
        """Only the allowed types come, and none of the forbidden."""
        asterisk = Asterisk()
        lists = {"disallowed": [{"type": "ChannelStateChange"}]}
        asterisk.ask("PUT", "/applications/demo/eventFilter", lists)
        channel = asterisk.board.call("1000", "1")
        asterisk.ask("POST", f"/channels/{channel}/answer")
        self.assertEqual(asterisk.new_types(), ["StasisStart"])
        self.assertEqual(
            asterisk.json("GET", "/applications/demo")["events_disallowed"],
            [{"type": "ChannelStateChange"}],
        )

    def test_subscription(self) -> None:
        """To a bridge that is nobody's yet, and away from it."""
        asterisk = Asterisk()
        asterisk.ask("POST", "/bridges/b")
        url = "/applications/demo/subscription?eventSource="
        self.assertEqual(asterisk.json("POST", f"{url}bridge:b")["bridge_ids"], ["b"])
        self.assertEqual(asterisk.ask("POST", f"{url}bridge:none").status, 422)
        self.assertEqual(asterisk.ask("POST", f"{url}nonsense:b").status, 400)
        self.assertEqual(asterisk.json("DELETE", f"{url}bridge:b")["bridge_ids"], [])
