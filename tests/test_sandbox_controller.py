"""The sample call-controller, fed by hand."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ariproxy.sandbox.controller import Controller, Observer, Settings

SETTINGS = Settings(
    # Nothing listens there; nothing is sent before run() anyway.
    bootstrap_servers="127.0.0.1:9",
    commands_topic="commands",
    events_topic="events",
    app="demo",
    recording=0,
    consumer={"log_level": 0},
    producer={"log_level": 0},
)


class ControllerTests(SynchronousTestCase):
    """Which commands follow from which events."""

    def setUp(self) -> None:
        self.sent: list[str] = []
        self.received: list[dict[str, Any]] = []
        self.ended: list[tuple[str, bool]] = []
        observer = Observer(
            self.note,
            self.received.append,
            lambda c, well: self.ended.append((c, well)),
        )
        self.controller = Controller(SETTINGS, observer)

    def note(self, command: dict[str, Any]) -> None:
        """Remember one command as a line."""
        request = command["ariCommand"]
        self.sent.append(f"{request['method']} {request['url']}")

    def take(self, type: str, **payload: Any) -> list[str]:
        """Hand over one record; gives the commands that follow."""
        self.sent.clear()
        self.controller.take({"type": type, "callContext": "x", "payload": payload})
        return list(self.sent)

    def start(self, channel: str = "c") -> list[str]:
        """A channel enters the application."""
        return self.take("STASIS_START", channel={"id": channel})

    def leave(self, channel: str = "c") -> list[str]:
        """A channel leaves it."""
        return self.take("STASIS_END", channel={"id": channel})

    def test_whole_call(self) -> None:
        """Step by step, to the end of both channels."""
        self.assertEqual(
            self.start(), ["POST /channels/c/answer", "POST /channels/c/play"]
        )
        self.assertEqual(
            self.take("PLAYBACK_FINISHED", playback={"id": "x.greeting"}),
            [
                "POST /bridges/x.bridge",
                "POST /bridges/x.bridge/addChannel",
                "POST /channels/x.callee",
            ],
        )
        self.assertEqual(
            self.start("x.callee"),
            ["POST /bridges/x.bridge/addChannel", "POST /bridges/x.bridge/record"],
        )
        self.take("RECORDING_STARTED")
        self.sent.clear()
        self.controller.end_recordings()
        self.assertEqual(self.sent, ["POST /recordings/live/x.recording/stop"])
        self.assertEqual(
            self.take("RECORDING_FINISHED"),
            [
                "DELETE /channels/c",
                "DELETE /channels/x.callee",
                "DELETE /bridges/x.bridge",
            ],
        )
        self.assertEqual(self.leave() + self.leave("x.callee"), [])
        self.assertEqual(self.ended, [("x", True)])
        self.assertEqual(len(self.received), 7)

    def test_caller_hangs_up(self) -> None:
        """What was made is taken down, and nothing else is begun."""
        self.start()
        self.assertEqual(self.leave(), ["DELETE /bridges/x.bridge"])
        self.assertEqual(self.ended, [("x", False)])
        self.assertEqual(
            self.take("PLAYBACK_FINISHED", playback={"id": "x.greeting"}), []
        )
        self.assertEqual(self.start("x.callee"), ["DELETE /channels/x.callee"])

    def test_command_refused(self) -> None:
        """The call is given up, once."""
        self.start()
        refused = {"status_code": 409, "body": {}}
        expected = ["DELETE /channels/c", "DELETE /bridges/x.bridge"]
        self.assertEqual(self.take("RESPONSE", **refused), expected)
        self.assertEqual(self.take("RESPONSE", **refused), [])
        self.leave()
        self.assertEqual(self.ended, [("x", False)])

    def test_calls_of_others(self) -> None:
        """Records of an unknown call context are let pass."""
        self.assertEqual(self.leave("other"), [])
        self.assertEqual(self.take("CHANNELVARSET"), [])
        self.assertEqual(self.ended, [])
