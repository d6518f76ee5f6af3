"""Playbacks and recordings of a simulated Asterisk.

What is played to a channel or recorded from it runs one after the other, as in
Asterisk; a bridge plays one after the other and records at once.
"""

from __future__ import annotations

import io
import re
import wave
from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ariproxy.sandbox.applications import Applications, Refused
from ariproxy.sandbox.objects import Bridge, Channel, Playback, Recording

FORMATS = frozenset({"wav", "wav16", "gsm", "ulaw", "alaw", "sln", "sln16", "g722"})

_TONE = re.compile(r"tone:[^/]+/(\d+)\Z")
_SKIP = frozenset({"reverse", "forward", "pause", "unpause"})


class Media:
    """Plays and records.

    :param clock: what the durations run on.
    :param length: seconds that a media URI lasts; ``tone:FREQUENCY/MS`` says it
        itself.
    """

    def __init__(
        self, clock: IReactorTime, applications: Applications, length: float
    ) -> None:
        self._clock = clock
        self._applications = applications
        self._length = length
        self._lines: dict[Channel | Bridge, deque[Playback | Recording]] = {}
        self._ends: dict[Playback | Recording, IDelayedCall] = {}
        self._left: dict[Playback, float] = {}
        self.playbacks: dict[str, Playback] = {}
        self.live: dict[str, Recording] = {}
        self.stored: dict[str, tuple[str, bytes]] = {}

    # -- playbacks

    def play(self, playback: Playback) -> None:
        """Queue it; it starts with the next turn of the clock, or after others."""
        self.playbacks[playback.id] = playback
        self._queue(playback)

    def stop(self, playback: Playback, state: str = "done") -> None:
        """End it at once; one that is still queued ends without having begun."""
        self._cancel_end(playback)
        # Asterisk takes the same id twice; the later one is the known one.
        if self.playbacks.get(playback.id) is playback:
            del self.playbacks[playback.id]
        playback.state = state
        self._tell_playback("PlaybackFinished", playback)
        self._next(playback)

    def control(self, playback: Playback, operation: str) -> None:
        """Pause, go on, or start anew; raises ``Refused`` as Asterisk does."""
        if operation not in {*_SKIP, "restart"}:
            raise Refused(400, f"Invalid operation {operation}")
        if playback.state == "queued" and operation in _SKIP:
            raise Refused(409, f"Can only {operation} while media is playing")
        if operation == "pause" and playback.state == "playing":
            end = self._ends.pop(playback)
            self._left[playback] = end.getTime() - self._clock.seconds()
            end.cancel()
            playback.state = "paused"
        elif operation == "unpause" and playback.state == "paused":
            playback.state = "playing"
            self._end_after(playback, self._left.pop(playback))
        elif operation == "restart" and playback.state != "queued":
            self._cancel_end(playback)
            playback.state = "playing"
            self._end_after(playback, self._seconds(playback.media[0]))

    def _start_playback(self, playback: Playback) -> None:
        if playback.state == "queued":
            kind, playback.state = "PlaybackStarted", "playing"
        else:
            kind = "PlaybackContinuing"
        self._tell_playback(kind, playback)
        self._end_after(playback, self._seconds(playback.media[0]))

    def _media_done(self, playback: Playback) -> None:
        if len(playback.media) > 1:
            del playback.media[0]
            self._start_playback(playback)
        else:
            self.stop(playback)

    def _seconds(self, uri: str) -> float:
        tone = _TONE.match(uri)
        return int(tone[1]) / 1000 if tone else self._length

    # -- recordings

    def record(self, recording: Recording, may_replace: bool) -> None:
        """Queue it; raises ``Refused`` (409) if the name is taken."""
        name = recording.name
        if name in self.live or (name in self.stored and not may_replace):
            text = f"Recording '{name}' already exists and can not be overwritten"
            raise Refused(409, text)
        self.live[name] = recording
        if isinstance(recording.target, Bridge):
            self._ends[recording] = self._clock.callLater(
                0, self._start_recording, recording
            )
        else:
            self._queue(recording)

    def stop_recording(self, recording: Recording, state: str = "done") -> None:
        """End it and keep what was recorded, unless it is ``canceled``."""
        started = recording.state != "queued"
        self._cancel_end(recording)
        self.live.pop(recording.name, None)
        recording.state = state
        if started:
            seconds = self._clock.seconds() - recording.started
            if state == "done":
                sound = _silence(seconds)
                self.stored[recording.name] = (recording.format, sound)
            recording.duration = int(seconds)
            self._tell_recording("RecordingFinished", recording)
        self._next(recording)

    def pause_recording(self, recording: Recording, paused: bool) -> None:
        """Pause it or go on; raises ``Refused`` (409) if it has not begun."""
        self._in_session(recording)
        recording.state = "paused" if paused else "recording"

    def mute_recording(self, recording: Recording, muted: bool) -> None:
        """Record silence, or sound again; raises ``Refused`` as above."""
        self._in_session(recording)
        recording.muted = muted

    def recording_channel(self, channel: Channel) -> bool:
        """Whether this channel is being recorded."""
        line = self._lines.get(channel, ())
        return any(isinstance(each, Recording) for each in line)

    def _in_session(self, recording: Recording) -> None:
        if recording.state == "queued":
            raise Refused(409, "Recording not in session")

    def _start_recording(self, recording: Recording) -> None:
        self._ends.pop(recording, None)
        recording.state = "recording"
        recording.started = self._clock.seconds()
        self._tell_recording("RecordingStarted", recording)
        if recording.longest:
            self._end_after(recording, recording.longest)

    # -- both

    def end_all(self, target: Channel | Bridge) -> None:
        """The channel or bridge goes: what plays fails, what records is kept."""
        # The line goes first, so that nothing of it is started any more.
        for each in [*self._lines.pop(target, ()), *self._recordings_of(target)]:
            if isinstance(each, Playback):
                self.stop(each, "failed")
            else:
                self.stop_recording(each)

    def _recordings_of(self, target: Channel | Bridge) -> list[Recording]:
        if isinstance(target, Channel):
            return []
        return [each for each in self.live.values() if each.target is target]

    def _queue(self, item: Playback | Recording) -> None:
        line = self._lines.setdefault(item.target, deque())
        line.append(item)
        if len(line) == 1:
            self._begin(item)

    def _begin(self, item: Playback | Recording) -> None:
        start: Any = self._start_playback
        if isinstance(item, Recording):
            start = self._start_recording
        self._ends[item] = self._clock.callLater(0, start, item)

    def _next(self, done: Playback | Recording) -> None:
        line = self._lines.get(done.target)
        if line is None or done not in line:
            return
        first = line[0] is done
        line.remove(done)
        if not line:
            del self._lines[done.target]
        elif first:
            self._begin(line[0])

    def _end_after(self, item: Playback | Recording, seconds: float) -> None:
        done: Any = self._media_done
        if isinstance(item, Recording):
            done = self.stop_recording
        self._ends[item] = self._clock.callLater(seconds, done, item)

    def _cancel_end(self, item: Playback | Recording) -> None:
        end = self._ends.pop(item, None)
        if end is not None and end.active():
            end.cancel()
        if isinstance(item, Playback):
            self._left.pop(item, None)

    def _tell_playback(self, kind: str, playback: Playback) -> None:
        self._tell(kind, {"playback": playback.as_json()}, playback.target)

    def _tell_recording(self, kind: str, recording: Recording) -> None:
        self._tell(kind, {"recording": recording.as_json()}, recording.target)

    def _tell(self, kind: str, fields: dict[str, Any], on: Channel | Bridge) -> None:
        if isinstance(on, Channel):
            self._applications.emit(kind, fields, [on])
        else:
            self._applications.emit(kind, fields, (), [on])


def _silence(seconds: float) -> bytes:
    """A WAV file of silence: 8,000 samples of 16 bits a second, one channel."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        # A minute at most: nobody listens to it, and it is held in memory.
        sound.writeframes(bytes(int(min(seconds, 60) * 8000) * 2))
    return file.getvalue()
