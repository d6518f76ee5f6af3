"""Measures the way of the commands: a flood, and round trips of single ones."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import msgspec
from confluent_kafka import Producer
from msgspec import Struct

from benchmarks.answers import expected_status
from benchmarks.asterisk import Asterisk
from benchmarks.broker import Reader
from benchmarks.frames import CALLS, call_context, channel_id
from benchmarks.programs import Program

_PATIENCE = 15.0
_READY_LIMIT = 30.0
_SILENCE = 4.0


class _Payload(Struct):
    status_code: int


class _Answer(Struct):
    payload: _Payload
    commandId: str = ""
    callContext: str = ""


class Answered(Struct):
    """What one run of commands gave; times in seconds."""

    seconds: float
    cpu: float
    round_trips: list[float]
    unanswered: int = 0
    doubled: int = 0
    wrong: int = 0
    out_of_order: int = 0


class CommandRun:
    """Commands through one program."""

    _decode = msgspec.json.Decoder(_Answer).decode

    def __init__(self, program: Program) -> None:
        self._program = program
        self._reader = Reader(program.broker.bootstrap, program.topic)
        self._producer = Producer(
            {
                "bootstrap.servers": program.broker.bootstrap,
                "linger.ms": 0,
                "partitioner": "murmur2_random",
            }
        )
        self._next = 0
        self._wait_until_consumed()

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _wait_until_consumed(self) -> None:
        """Until the program has its partitions: those sent before are never seen."""
        limit = time.monotonic() + _READY_LIMIT
        reached: set[str] = set()
        while len(reached) < 50:
            if time.monotonic() > limit:
                raise TimeoutError(f"{self._program.name} consumes no commands")
            for _ in range(50):
                self._send(f"probe-{self._next % 50}")
            time.sleep(0.1)
            for message in self._reader.read(0.1):
                reached.add(self._decode(message.value() or b"").commandId)
        while self._reader.read(0.5):
            pass

    def _send(self, command_id: str | None = None) -> str:
        number, self._next = self._next, self._next + 1
        command_id = command_id or f"{number}"
        call = number % CALLS
        value = _command(number, command_id)
        self._producer.produce(self._program.commands_topic, value, call_context(call))
        self._producer.poll(0)
        return command_id

    def flood(self, count: int) -> Answered:
        """``count`` commands at once."""
        return self._run(count, 0.0)

    def queued(self, count: int, asterisk: Asterisk) -> tuple[Answered, float]:
        """``count`` commands for which Asterisk takes its time.

        Gives also how much more memory they needed at most, in MB.
        """
        before = self._program.memory()
        asterisk.fall_silent()
        threading.Timer(_SILENCE, asterisk.speak).start()
        answered = self._run(count, 0.0)
        return answered, self._program.memory("VmHWM") - before

    def paced(self, count: int, rate: float) -> Answered:
        """``count`` commands, ``rate`` a second."""
        return self._run(count, 1 / rate)

    def one_by_one(self, count: int) -> Answered:
        """``count`` commands, each sent when the one before is answered."""
        parts = []
        for _ in range(count):
            parts.append(self._run(1, 0.0, wait=0.0))
            if parts[-1].unanswered:
                break
        return Answered(
            *(sum(each.seconds for each in parts), sum(each.cpu for each in parts)),
            [trip for each in parts for trip in each.round_trips],
            *(sum(each.unanswered for each in parts), sum(e.doubled for e in parts)),
            *(sum(each.wrong for each in parts), sum(e.out_of_order for e in parts)),
        )

    def _run(self, count: int, interval: float, wait: float = 0.3) -> Answered:
        first = self._next
        sent: dict[str, int] = {}
        cpu = self._program.cpu()
        began = time.monotonic()

        def send() -> None:
            for number in range(count):
                if interval and (ahead := began + number * interval) > time.monotonic():
                    time.sleep(max(0.0, ahead - time.monotonic()))
                now = time.monotonic_ns()
                sent[str(self._next)] = now
                self._send()
            self._producer.flush(10)

        sender = threading.Thread(target=send, daemon=True)
        if count == 1:
            send()
        else:
            sender.start()
        found: list[tuple[Any, int]] = []
        last = time.monotonic()
        ended = began
        while len(found) < count and time.monotonic() - last < _PATIENCE:
            if records := self._reader.read(0.1):
                now = time.monotonic_ns()
                found += [(each.value(), now) for each in records]
                last = ended = time.monotonic()
        if wait:
            sender.join()
            found += [(each.value(), 0) for each in self._reader.read(wait)]
        cpu = self._program.cpu() - cpu
        return self._checked(
            Answered(ended - began, cpu, []), found, sent, first, first + count
        )

    def _checked(
        self,
        result: Answered,
        found: list[tuple[Any, int]],
        sent: dict[str, int],
        first: int,
        end: int,
    ) -> Answered:
        answered = set()
        last_of_call: dict[str, int] = {}
        for value, when in found:
            answer = self._decode(value)
            number = int(answer.commandId)
            result.doubled += number in answered
            answered.add(number)
            method, url, _ = _request(number)
            result.wrong += answer.payload.status_code != expected_status(method, url)
            result.wrong += answer.callContext != call_context(number % CALLS)
            result.out_of_order += number < last_of_call.get(answer.callContext, -1)
            last_of_call[answer.callContext] = number
            result.round_trips.append((when - sent[answer.commandId]) / 1e9)
        result.unanswered = len(set(range(first, end)) - answered)
        return result


def _request(number: int) -> tuple[str, str, Any]:
    """The requests of a call in turn: method, url, body."""
    channel = f"/channels/{channel_id(number % CALLS)}"
    kind = (number + number // CALLS) % 5
    if kind == 0:
        return "POST", f"{channel}/answer", None
    if kind == 1:
        body = {"media": "sound:hello", "playbackId": f"playback-{number}"}
        return "POST", f"{channel}/play", body
    if kind == 2:
        return "GET", channel, None
    if kind == 3:
        variables = {"variables": {"STEP": str(number)}}
        return "POST", f"{channel}/variable?variable=STEP&value={number}", variables
    return "DELETE", "/channels/gone", None


def _command(number: int, command_id: str) -> bytes:
    method, url, body = _request(number)
    command: dict[str, Any] = {"method": method, "url": url}
    if body is not None:
        command["body"] = body
    return json.dumps(
        {
            "callContext": call_context(number % CALLS),
            "commandId": command_id,
            "ariCommand": command,
        }
    ).encode()
