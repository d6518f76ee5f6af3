"""A sample call-controller: what a program behind the proxy looks like.

It answers a call, plays a sound, calls a second party, bridges the two, records
them for a moment and hangs up. It knows nothing of Asterisk's address: events
and answers come from one topic of Kafka, commands go to another.

Two things keep it short. The proxy runs the commands of one call context one
after the other, so several may be sent in a row. And whatever is created by a
command belongs to the command's call context, so the events of the second
channel come with the context of the first.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

from confluent_kafka import Consumer, Producer


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the controller is told.

    ``app``: the Stasis application. ``callee``: the endpoint of the second
    party. ``recording``: how long to record, in seconds. ``consumer`` and
    ``producer``: further properties of librdkafka.
    """

    bootstrap_servers: str
    commands_topic: str
    events_topic: str
    app: str
    group: str = "sample-controller"
    callee: str = "Local/1001@default/n"
    recording: float = 0.5
    consumer: Mapping[str, int] = field(default_factory=dict)
    producer: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Call:
    """One call. What it creates has ids that are made from its call context."""

    context: str
    caller: str
    inside: set[str]
    complete: bool = False
    failed: bool = False
    recorded_until: float | None = None

    def id(self, what: str) -> str:
        """The id of its ``callee``, ``greeting``, ``bridge`` or ``recording``."""
        return f"{self.context}.{what}"


@dataclass
class Observer:
    """Somebody who wants to see what passes; called in the controller's thread.

    ``sent`` gets every command, ``received`` every event and answer, ``ended``
    the call context of a call and whether all went well.
    """

    sent: Callable[[dict[str, Any]], None]
    received: Callable[[dict[str, Any]], None]
    ended: Callable[[str, bool], None]


class Controller:
    """Serves all calls of one Stasis application, in one thread."""

    def __init__(self, settings: Settings, observer: Observer) -> None:
        self._settings = settings
        self._observer = observer
        self._calls: dict[str, Call] = {}
        self._running = True
        servers = {"bootstrap.servers": settings.bootstrap_servers}
        # The same partitioner as the proxy's: one call context, one partition.
        sending = {"linger.ms": 0, "partitioner": "murmur2_random", "acks": "all"}
        self._producer = Producer({**servers, **sending, **settings.producer})
        group = {"group.id": settings.group, "auto.offset.reset": "latest"}
        self._consumer = Consumer({**servers, **group, **settings.consumer})

    def run(self) -> None:
        """Serve calls until ``stop`` is called."""
        self._consumer.subscribe([self._settings.events_topic])
        try:
            while self._running:
                message = self._consumer.poll(0.05)
                if message is not None and message.error() is None:
                    self.take(json.loads(message.value() or b"{}"))
                self.end_recordings()
                self._producer.poll(0)
        finally:
            self._producer.flush(5)
            self._consumer.close()

    def stop(self) -> None:
        """Let ``run`` return; may be called in any thread."""
        self._running = False

    def take(self, record: dict[str, Any]) -> None:
        """Take one event or answer, and send what follows from it."""
        self._observer.received(record)
        context, type = record.get("callContext", ""), record["type"]
        call = self._calls.get(context)
        if type == "STASIS_START":
            self._started(context, call, record["payload"]["channel"]["id"])
        elif call is not None and type in self._STEPS:
            self._STEPS[type](self, call, record["payload"])

    def end_recordings(self) -> None:
        """Stop the recordings that have lasted long enough."""
        now = time.monotonic()
        for call in self._calls.values():
            if call.recorded_until is not None and call.recorded_until <= now:
                call.recorded_until = None
                url = f"/recordings/live/{call.id('recording')}/stop"
                self._post(call.context, url)

    def send(self, context: str | None, method: str, url: str, body: Any = None) -> str:
        """Send one command; gives its id, by which the answer is known."""
        command: dict[str, Any] = {"callContext": context, "commandId": str(uuid4())}
        command["ariCommand"] = {"method": method, "url": url, "body": body}
        if context is None:
            del command["callContext"]
        self._observer.sent(command)
        self._producer.produce(
            self._settings.commands_topic, json.dumps(command), key=context
        )
        return str(command["commandId"])

    def _started(self, context: str, call: Call | None, channel: str) -> None:
        if channel != f"{context}.callee":
            call = self._calls[context] = Call(context, channel, {channel})
            self._post(context, f"/channels/{channel}/answer")
            greeting = {"media": "sound:beep", "playbackId": call.id("greeting")}
            self._post(context, f"/channels/{channel}/play", greeting)
        elif call is not None:
            call.inside.add(channel)
            bridge = f"/bridges/{call.id('bridge')}"
            self._post(context, f"{bridge}/addChannel", {"channel": channel})
            file = {"name": call.id("recording"), "format": "wav"}
            self._post(context, f"{bridge}/record", file)
        else:
            # The call was over before its second party answered.
            self.send(context, "DELETE", f"/channels/{channel}")

    def _played(self, call: Call, event: Any) -> None:
        if event["playback"]["id"] != call.id("greeting") or not call.inside:
            return
        bridge = f"/bridges/{call.id('bridge')}"
        self._post(call.context, bridge, {"type": "mixing"})
        self._post(call.context, f"{bridge}/addChannel", {"channel": call.caller})
        callee = {"endpoint": self._settings.callee, "app": self._settings.app}
        self._post(call.context, f"/channels/{call.id('callee')}", callee)

    def _recording(self, call: Call, event: Any) -> None:
        call.recorded_until = time.monotonic() + self._settings.recording

    def _recorded(self, call: Call, event: Any) -> None:
        if not call.failed:
            call.complete = True
            self._hang_up(call)

    def _answered(self, call: Call, answer: Any) -> None:
        if answer["status_code"] >= 400 and not call.failed and not call.complete:
            call.failed = True
            self._hang_up(call)

    def _left(self, call: Call, event: Any) -> None:
        call.inside.discard(event["channel"]["id"])
        if not call.complete and not call.failed:
            # Somebody hung up before we did.
            call.failed = True
            self._hang_up(call)
        if not call.inside:
            del self._calls[call.context]
            self._observer.ended(call.context, call.complete)

    def _hang_up(self, call: Call) -> None:
        for channel in sorted(call.inside):
            self.send(call.context, "DELETE", f"/channels/{channel}")
        self.send(call.context, "DELETE", f"/bridges/{call.id('bridge')}")

    def _post(self, context: str, url: str, body: Any = None) -> None:
        self.send(context, "POST", url, body)

    _STEPS: ClassVar[dict[str, Callable[[Controller, Call, Any], None]]] = {
        "PLAYBACK_FINISHED": _played,
        "RECORDING_STARTED": _recording,
        "RECORDING_FINISHED": _recorded,
        "RESPONSE": _answered,
        "STASIS_END": _left,
    }


def main() -> int:
    """Run it as a program until Ctrl-C or SIGTERM; prints what passes."""
    parser = argparse.ArgumentParser(
        prog="python -m ariproxy.sandbox.controller",
        description="A sample call-controller.",
    )
    parser.add_argument("--bootstrap-servers", required=True, metavar="HOST:PORT")
    parser.add_argument("--commands-topic", required=True)
    parser.add_argument("--events-topic", required=True)
    parser.add_argument("--app", required=True, help="the Stasis application")
    parser.add_argument("--group", default=Settings.group, help="the consumer group")
    parser.add_argument("--callee", default=Settings.callee, metavar="ENDPOINT")
    parser.add_argument("--recording", type=float, default=0.5, metavar="SECONDS")
    settings = Settings(**vars(parser.parse_args()))
    printer = Observer(
        sent=lambda command: print("command", json.dumps(command), flush=True),
        received=lambda record: print("record", json.dumps(record), flush=True),
        ended=lambda context, ok: print("ended", context, ok, flush=True),
    )
    controller = Controller(settings, printer)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda number, frame: controller.stop())
    controller.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
