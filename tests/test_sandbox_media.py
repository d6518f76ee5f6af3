"""Playbacks and recordings of the simulated Asterisk."""

from __future__ import annotations

import io
import wave

from twisted.trial.unittest import SynchronousTestCase

from tests.test_sandbox_switchboard import Asterisk


class PlaybackTests(SynchronousTestCase):
    """What is played, and for how long."""

    def setUp(self) -> None:
        self.asterisk = Asterisk()
        self.asterisk.callee("c")
        self.asterisk.new_types()

    def play(self, playback_id: str, media: str = "tone:440/300") -> int:
        """Ask for a playback; gives the status."""
        body = {"media": media.split(","), "playbackId": playback_id}
        return self.asterisk.ask("POST", "/channels/c/play", body).status

    def test_lasts_its_time(self) -> None:
        """A tone that names its milliseconds ends neither before nor after."""
        self.assertEqual(self.play("p"), 201)
        self.asterisk.clock.pump([0, 0.299])
        self.assertEqual(self.asterisk.new_types(), ["PlaybackStarted"])
        self.asterisk.clock.advance(0.001)
        self.assertEqual(self.asterisk.events[0]["playback"]["state"], "done")
        self.assertEqual(self.asterisk.ask("GET", "/playbacks/p").status, 404)

    def test_several_media(self) -> None:
        """One playback goes on with the next URI."""
        self.play("p", "tone:1/100,tone:2/100")
        self.asterisk.clock.pump([0, 0.1, 0.1])
        self.assertEqual(
            self.asterisk.new_types(),
            ["PlaybackStarted", "PlaybackContinuing", "PlaybackFinished"],
        )

    def test_one_after_the_other(self) -> None:
        """A second playback of a channel waits for the first."""
        self.play("p")
        self.play("q")
        self.asterisk.clock.advance(0)
        self.assertEqual(self.asterisk.json("GET", "/playbacks/q")["state"], "queued")
        refused = self.asterisk.ask("POST", "/playbacks/q/control?operation=pause")
        self.assertEqual(refused.status, 409)
        self.asterisk.clock.pump([0.3, 0])
        self.assertEqual(self.asterisk.json("GET", "/playbacks/q")["state"], "playing")

    def test_stop(self) -> None:
        """The end comes at once, and only once."""
        self.play("p")
        self.asterisk.clock.advance(0)
        self.assertEqual(self.asterisk.ask("DELETE", "/playbacks/p").status, 204)
        self.asterisk.clock.advance(5)
        self.assertEqual(
            self.asterisk.new_types(), ["PlaybackStarted", "PlaybackFinished"]
        )

    def test_pause(self) -> None:
        """Paused time does not count."""
        control = "/playbacks/p/control?operation="
        self.play("p")
        self.asterisk.clock.pump([0, 0.2])
        self.asterisk.ask("POST", f"{control}pause")
        self.asterisk.clock.advance(5)
        self.asterisk.ask("POST", f"{control}unpause")
        self.asterisk.clock.advance(0.099)
        self.assertEqual(self.asterisk.new_types(), ["PlaybackStarted"])
        self.asterisk.clock.advance(0.002)
        self.assertEqual(self.asterisk.new_types(), ["PlaybackFinished"])

    def test_restart(self) -> None:
        """It lasts its whole time again."""
        self.play("p")
        self.asterisk.clock.pump([0, 0.2])
        self.asterisk.ask("POST", "/playbacks/p/control?operation=restart")
        self.asterisk.clock.advance(0.2)
        self.assertEqual(self.asterisk.new_types(), ["PlaybackStarted"])

    def test_hang_up(self) -> None:
        """What plays and what waits fails, before the channel ends."""
        self.play("p")
        self.play("q")
        self.asterisk.clock.advance(0)
        self.asterisk.new_types()
        self.asterisk.board.hangup("c")
        states = [
            e["playback"]["state"] for e in self.asterisk.events if "playback" in e
        ]
        self.assertEqual(states, ["failed", "failed"])
        self.asterisk.clock.advance(5)
        self.assertEqual(self.asterisk.events[-1]["type"], "ChannelDestroyed")

    def test_nothing_to_play(self) -> None:
        """Asterisk takes the blame upon itself."""
        self.assertEqual(self.asterisk.ask("POST", "/channels/c/play").status, 500)


class RecordingTests(SynchronousTestCase):
    """What is recorded, and what remains of it."""

    def setUp(self) -> None:
        self.asterisk = Asterisk()
        self.asterisk.callee("c")
        self.asterisk.new_types()

    def record(self, name: str, more: str = "") -> int:
        """Ask for a recording of the channel; gives the status."""
        url = f"/channels/c/record?name={name}&format=wav{more}"
        status = self.asterisk.ask("POST", url).status
        self.asterisk.clock.advance(0)
        return status

    def test_stopped(self) -> None:
        """It is stored as a sound file that lasts as long."""
        self.assertEqual(self.record("r"), 201)
        self.asterisk.clock.advance(2.5)
        stopped = self.asterisk.ask("POST", "/recordings/live/r/stop")
        self.assertEqual(stopped.status, 204)
        self.assertEqual(self.asterisk.events[-1]["recording"]["duration"], 2)
        file = self.asterisk.ask("GET", "/recordings/stored/r/file")
        self.assertEqual(file.content_type, "audio/wav")
        with wave.open(io.BytesIO(file.body)) as sound:
            self.assertEqual(sound.getnframes() / sound.getframerate(), 2.5)

    def test_longest_duration(self) -> None:
        """It ends by itself."""
        self.record("r", "&maxDurationSeconds=1")
        self.asterisk.clock.advance(1)
        self.assertEqual(
            self.asterisk.new_types(), ["RecordingStarted", "RecordingFinished"]
        )

    def test_canceled(self) -> None:
        """Nothing is kept."""
        self.record("r")
        self.asterisk.ask("DELETE", "/recordings/live/r")
        self.assertEqual(self.asterisk.events[-1]["recording"]["state"], "canceled")
        self.assertEqual(self.asterisk.json("GET", "/recordings/stored"), [])

    def test_hang_up_keeps_it(self) -> None:
        """The end of the channel is the end of its recording, as if stopped."""
        self.record("r")
        self.asterisk.board.hangup("c")
        self.assertEqual(
            self.asterisk.json("GET", "/recordings/stored"),
            [{"name": "r", "format": "wav"}],
        )

    def test_pause_and_mute(self) -> None:
        """Only once it has begun."""
        self.record("r")
        self.record("s")
        for what in ("pause", "mute"):
            for method in ("POST", "DELETE"):
                url = f"/recordings/live/%s/{what}"
                self.assertEqual(self.asterisk.ask(method, url % "r").status, 204)
                self.assertEqual(self.asterisk.ask(method, url % "s").status, 409)
        self.asterisk.ask("POST", "/recordings/live/r/pause")
        self.assertEqual(
            self.asterisk.json("GET", "/recordings/live/r")["state"], "paused"
        )

    def test_name_in_use(self) -> None:
        """A conflict while it runs; afterwards, unless it may be replaced."""
        self.record("r")
        self.assertEqual(self.record("r", "&ifExists=overwrite"), 409)
        self.asterisk.ask("POST", "/recordings/live/r/stop")
        self.assertEqual(self.record("r"), 409)
        self.assertEqual(self.record("r", "&ifExists=overwrite"), 201)

    def test_bad_parameters(self) -> None:
        """Each with Asterisk's own status."""
        for more, status in (
            ("&maxDurationSeconds=-1", 400),
            ("&ifExists=nonsense", 400),
            ("&terminateOn=nonsense", 400),
            ("&format=nonsense", 422),
        ):
            url = f"/channels/c/record?name=r{more}"
            if "format" not in more:
                url += "&format=wav"
            self.assertEqual(self.asterisk.ask("POST", url).status, status, more)

    def test_bridge(self) -> None:
        """A bridge is recorded while it plays; a recorded channel is not bridged."""
        ask = self.asterisk.ask
        ask("POST", "/bridges/b")
        self.record("r")
        self.assertEqual(ask("POST", "/bridges/b/addChannel?channel=c").status, 409)
        ask("POST", "/recordings/live/r/stop")
        ask("POST", "/bridges/b/addChannel?channel=c")
        self.assertEqual(self.record("s"), 409)
        self.asterisk.new_types()
        ask("POST", "/bridges/b/play?media=tone:440/100")
        ask("POST", "/bridges/b/record?name=t&format=wav")
        self.asterisk.clock.advance(0)
        self.assertEqual(
            self.asterisk.new_types(), ["PlaybackStarted", "RecordingStarted"]
        )
        ask("DELETE", "/bridges/b")
        self.assertEqual(
            self.asterisk.new_types(),
            [
                "PlaybackFinished",
                "RecordingFinished",
                "ChannelLeftBridge",
                "BridgeDestroyed",
            ],
        )

    def test_stored(self) -> None:
        """Copy, get, delete."""
        ask = self.asterisk.ask
        self.record("r")
        ask("POST", "/recordings/live/r/stop")
        copy = "/recordings/stored/r/copy?destinationRecordingName=s"
        self.assertEqual([ask("POST", copy).status for _ in "12"], [201, 409])
        self.assertEqual(ask("DELETE", "/recordings/stored/r").status, 204)
        self.assertEqual(ask("GET", "/recordings/stored/r").status, 404)
        self.assertEqual(ask("GET", "/recordings/stored/s").status, 200)
