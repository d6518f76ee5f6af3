"""Measures the way of the events: bursts, latency at a rate, memory, start."""

from __future__ import annotations

import time

from confluent_kafka import Message
from msgspec import Struct, field

from benchmarks.asterisk import Asterisk
from benchmarks.broker import Reader
from benchmarks.frames import (
    CALLS,
    NEW,
    call_context,
    channel_context,
    read_sent,
)
from benchmarks.programs import Program

_PATIENCE = 15.0
"""Seconds without any record after which the missing ones are lost."""

PART = 50_000
"""Events that are made ready, and read, at once."""


class Faults(Struct):
    """Events that did not arrive as they should."""

    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    wrong_key: int = 0

    def __str__(self) -> str:
        counts = {name: getattr(self, name) for name in self.__struct_fields__}
        return ", ".join(f"{n} {name}" for name, n in counts.items() if n)


class Arrived(Struct):
    """What one run of events gave; times in seconds."""

    seconds: float
    cpu: float
    latencies: list[float]
    faults: Faults = field(default_factory=Faults)


class EventRun:
    """Events through one program, whose calls have begun."""

    def __init__(self, asterisk: Asterisk, program: Program) -> None:
        self._asterisk = asterisk
        self._program = program
        self._reader = Reader(program.broker.bootstrap, program.topic)
        self._next = 0
        self._last_of_call = [-1] * CALLS
        asterisk.opened()
        asterisk.start_calls()
        found, _ = self._read(CALLS)
        if len(found) != CALLS:
            raise RuntimeError(f"{len(found)} of {CALLS} calls began: {program.name}")

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def burst(self, count: int) -> Arrived:
        """``count`` events as fast as they are taken."""
        return self._run(count, None)

    def paced(self, count: int, rate: float) -> Arrived:
        """``count`` events, ``rate`` a second."""
        return self._run(count, rate)

    def channels(self, kind: str, first: int, count: int) -> Arrived:
        """An event of each of these channels, as fast as they are taken."""
        cpu = self._program.cpu()
        self._asterisk.begin_channels(kind, first, count)
        found, times = self._read(count)
        arrived = self._arrived(cpu, times)
        faults = arrived.faults
        numbers = []
        for message in found:
            number, _, _ = read_sent(message.value() or b"")
            numbers.append(number)
            expected = channel_context(number).encode()
            faults.wrong_key += kind != NEW and message.key() != expected
        faults.doubled = len(numbers) - len(set(numbers))
        faults.lost = len(set(range(first, first + count)) - set(numbers))
        return arrived

    def _run(self, count: int, rate: float | None) -> Arrived:
        first, self._next = self._next, self._next + count
        cpu = self._program.cpu()
        if rate is None:
            self._asterisk.begin_burst(first, count)
        else:
            self._asterisk.begin_paced(first, count, rate)
        found, times = self._read(count)
        arrived = self._arrived(cpu, times)
        arrived.faults, arrived.latencies = self._checked(found, times, first, count)
        return arrived

    def _arrived(self, cpu: float, times: list[int]) -> Arrived:
        began = self._asterisk.ended()
        # Acknowledgements are worked off after the last record is there.
        time.sleep(0.3)
        seconds = (times[-1] - began) / 1e9 if times else 0.0
        return Arrived(seconds, self._program.cpu() - cpu, [])

    def _read(self, count: int) -> tuple[list[Message], list[int]]:
        """``count`` records, or those that come; and when each was there."""
        found: list[Message] = []
        times: list[int] = []
        last = time.monotonic()
        while len(found) < count and time.monotonic() - last < _PATIENCE:
            if records := self._reader.read(0.1):
                now = time.monotonic_ns()
                found += records
                times += [now] * len(records)
                last = time.monotonic()
        # Doubles would come later.
        if more := self._reader.read(0.05):
            found += more
            times += [time.monotonic_ns()] * len(more)
        return found, times

    def _checked(
        self, found: list[Message], times: list[int], first: int, count: int
    ) -> tuple[Faults, list[float]]:
        faults, latencies = Faults(), []
        seen = set()
        for message, when in zip(found, times, strict=True):
            number, call, sent = read_sent(message.value() or b"")
            latencies.append((when - sent) / 1e9)
            faults.doubled += number in seen
            faults.out_of_order += number < self._last_of_call[call]
            faults.wrong_key += message.key() != call_context(call).encode()
            self._last_of_call[call] = number
            seen.add(number)
        faults.lost = len(set(range(first, first + count)) - seen)
        return faults, latencies
