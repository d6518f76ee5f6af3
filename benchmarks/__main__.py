"""``python -m benchmarks [events|latency|commands|memory|start|stores|all]``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.asterisk import Asterisk, running_asterisk
from benchmarks.broker import Broker, running_broker
from benchmarks.commands import Answered, CommandRun
from benchmarks.events import PART, Arrived, EventRun
from benchmarks.figures import Figures, quantile
from benchmarks.programs import (
    BareEvents,
    BareHttp,
    BareWebsocket,
    Program,
    Proxy,
    ProxyByHttp,
    ProxyByWebsocket,
)
from benchmarks.stores import STORES, StoreRuns

_BURSTS = 3
_PARTS = ("events", "latency", "commands", "memory", "start", "stores")
_COMMANDS = (ProxyByWebsocket, BareWebsocket, ProxyByHttp, BareHttp)


class Bench:
    """The measurements, each of which adds its lines to the table."""

    def __init__(
        self, asterisk: Asterisk, broker: Broker, figures: Figures, quick: bool
    ) -> None:
        self._asterisk = asterisk
        self._broker = broker
        self._figures = figures
        self._quick = quick

    def run(self, part: str, repeat: int, only: str, way: str) -> None:
        """One part, ``repeat`` times, proxy and bare loop in turn."""
        kinds = _COMMANDS if part == "commands" else (Proxy, BareEvents)
        for _ in range(1 if part == "memory" else repeat):
            for kind in kinds:
                if only in ("", kind.name) and kind.way.endswith(way):
                    getattr(self, part)(kind)

    def _program(self, kind: type[Program]) -> Program:
        return kind(self._asterisk, self._broker)

    @contextmanager
    def _events(self, kind: type[Program]) -> Iterator[tuple[Program, EventRun]]:
        with (
            self._program(kind) as program,
            closing(EventRun(self._asterisk, program)) as run,
        ):
            yield program, run

    def events(self, kind: type[Program]) -> None:
        """Bursts, one after the other."""
        count = 20_000 if self._quick else 60_000
        with self._events(kind) as (_, run):
            self._check(kind, run.burst(5_000))  # the first are slower
            bursts = [run.burst(count) for _ in range(_BURSTS)]
        add = self._figures.add
        for each in bursts:
            self._check(kind, each)
            add("events in a burst", "1/s", kind.name, count / each.seconds)
            add("CPU per event", "us", kind.name, each.cpu / count * 1e6)

    def latency(self, kind: type[Program]) -> None:
        """At two rates."""
        seconds = 3 if self._quick else 10
        with self._events(kind) as (_, run):
            self._check(kind, run.burst(5_000))
            for rate in (500, 5000):
                arrived = run.paced(rate * seconds, rate)
                self._check(kind, arrived)
                self._latencies(f"event latency at {rate}/s", kind, arrived.latencies)

    def commands(self, kind: type[Program]) -> None:
        """Queued, a flood, one by one, and at a rate."""
        count = 5_000 if self._quick else 20_000
        way = kind.way
        with (
            self._program(kind) as program,
            closing(CommandRun(program)) as run,
        ):
            self._check_answers(kind, run.flood(1_000))  # the first are slower
            answered, more = run.queued(count, self._asterisk)
            self._check_answers(kind, answered)
            add = self._figures.add
            add(f"more with {count} commands queued, {way}", "MB", kind.name, more)
            answered = run.flood(count)
            self._check_answers(kind, answered)
            speed = count / answered.seconds
            add(f"commands in a flood, {way}", "1/s", kind.name, speed)
            add(f"CPU per command, {way}", "us", kind.name, answered.cpu / count * 1e6)
            answered = run.one_by_one(200 if self._quick else 1_000)
            self._check_answers(kind, answered)
            trips = answered.round_trips
            self._latencies(f"round trip one by one, {way}", kind, trips)
            answered = run.paced(600 if self._quick else 2_000, 200)
            self._check_answers(kind, answered)
            trips = answered.round_trips
            self._latencies(f"round trip at 200/s, {way}", kind, trips)

    def memory(self, kind: type[Program]) -> None:
        """Idle, and after a million events in bursts."""
        count = 100_000 if self._quick else 1_000_000
        with self._events(kind) as (program, run):
            time.sleep(2)
            idle = program.memory()
            for _ in range(count // PART):
                self._check(kind, run.burst(PART))
            time.sleep(3)
            after = program.memory()
        self._figures.add("memory idle", "MB", kind.name, idle)
        self._figures.add(f"more after {count} events", "MB", kind.name, after - idle)

    def start(self, kind: type[Program]) -> None:
        """From exec to the open websocket."""
        with self._program(kind) as program:
            seconds = (self._asterisk.opened() - program.began) / 1e9
        self._figures.add("start to open websocket", "s", kind.name, seconds)

    def _latencies(self, name: str, kind: type[Program], times: list[float]) -> None:
        for share in (0.5, 0.99):
            milliseconds = quantile(times, share) * 1e3
            self._figures.add(
                f"{name}, p{share:.0%}"[:-1], "ms", kind.name, milliseconds
            )

    def _check(self, kind: type[Program], arrived: Arrived) -> None:
        if faults := str(arrived.faults):
            self._figures.fault(f"{kind.name}, events: {faults}")

    def _check_answers(self, kind: type[Program], answered: Answered) -> None:
        faults = ("unanswered", "doubled", "wrong", "out_of_order")
        # The bare loop keeps no order.
        for name in faults if issubclass(kind, Proxy) else faults[:3]:
            if count := getattr(answered, name):
                self._figures.fault(f"{kind.name}, {kind.way}: {count} commands {name}")


def main(arguments: Sequence[str]) -> int:
    """Measure what is asked for and print a table; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="?", default="all", choices=(*_PARTS, "all"))
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--repeat", type=int, help="runs of each (3; 1 if quick)")
    parser.add_argument(
        "--store",
        choices=STORES,
        help="the only one of stores; in other parts the daemon's, sqlite or memory",
    )
    parser.add_argument("--only", default="", choices=("proxy", "bare"))
    parser.add_argument("--way", default="", choices=("websocket", "HTTP"))
    parser.add_argument(
        "--profile", metavar="FILE", help="write a cProfile of the daemon (slower)"
    )
    options = parser.parse_args(arguments)
    # For the programs that are measured: they may run elsewhere.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    if options.store in ("redis", "cassandra") and options.part != "stores":
        parser.error(f"--store {options.store} is for the part stores only")
    Proxy.store = options.store or "sqlite"
    if options.profile:
        file = str(Path(options.profile).absolute())
        Proxy.twistd_options = ["--profiler=cprofile", "--savestats", "-p", file]
    figures = Figures()
    with running_broker() as broker, running_asterisk() as asterisk:
        print(f"Kafka: {broker.description}. {_machine()}", flush=True)
        bench = Bench(asterisk, broker, figures, options.quick)
        repeat = options.repeat or (1 if options.quick else 3)
        for part in _PARTS if options.part == "all" else (options.part,):
            print(f"{part} ...", flush=True)
            if part == "stores":
                runs = StoreRuns(asterisk, broker, figures, options.quick)
                names = [options.store] if options.store else STORES
                runs.run(names, repeat, options.only)
            else:
                bench.run(part, repeat, options.only, options.way)
    print(f"{figures.table()}\n{_machine()}")
    if broker.real is None:
        # It takes fewer events than either program can send.
        print("The mock cluster is the limit of a burst: its ratio there says nothing.")
    for fault in figures.faults:
        print(f"WRONG: {fault}")
    return 1 if figures.faults else 0


def _machine() -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{os.cpu_count()} cores, load {load}, Python {sys.version.split()[0]}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
