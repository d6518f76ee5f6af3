"""What passed in a demonstration: shown line by line, counted, summed up."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {"event": "cyan", "command": "yellow", "answer": "green", "fault": "bold red"}
_SHORT = 8


class Tally:
    """Shows and counts; its methods may be called in any thread.

    :param console: where the lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._times: deque[float] = deque(maxlen=100_000)
        self.events: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.commands = 0
        self.calls = 0
        self.complete = 0
        self.over = 0
        self.faults: list[str] = []

    def placed(self) -> None:
        """A call came in."""
        with self._lock:
            self.calls += 1

    def sent(self, command: dict[str, Any]) -> None:
        """The call-controller sends a command."""
        with self._lock:
            self.commands += 1
            self._waiting[command["commandId"]] = time.monotonic()
        request = command["ariCommand"]
        what = f"{request['method']} {request['url']}"
        self._show(command.get("callContext"), "command", what)

    def received(self, record: dict[str, Any]) -> None:
        """The call-controller got an event or an answer."""
        context = record.get("callContext")
        if record["type"] != "RESPONSE":
            with self._lock:
                self.events[record["type"]] += 1
            ids = " ".join(each["id"] for each in record["resources"])
            self._show(context, "event", f"{record['type']} {ids}")
            return
        status, request = record["payload"]["status_code"], record["commandRequest"]
        with self._lock:
            begin = self._waiting.pop(record.get("commandId", ""), None)
            self.statuses[status] += 1
            if begin is not None:
                seconds = time.monotonic() - begin
                self._times.append(seconds)
        what = f"{status} {request['method']} {request['url']}"
        if begin is None:
            self.fault(f"an answer that belongs to no command: {what}", context)
            return
        kind = "answer" if status < 400 else "fault"
        self._show(context, kind, what, f"{seconds * 1000:.1f} ms")
        if status >= 400:
            with self._lock:
                self.faults.append(what)

    def ended(self, context: str, well: bool) -> None:
        """The call-controller is done with a call."""
        with self._lock:
            self.over += 1
            self.complete += well
        if not well:
            self.fault("the call ended before its time", context)

    def fault(self, what: str, context: str | None = None) -> None:
        """Something that must not be."""
        with self._lock:
            self.faults.append(what)
        self._show(context, "fault", what)

    @property
    def unanswered(self) -> int:
        """How many commands have no answer yet."""
        return len(self._waiting)

    @property
    def done(self) -> bool:
        """Whether all calls came to an end and all commands have an answer."""
        return self.over >= self.calls and not self._waiting

    @property
    def well(self) -> bool:
        """Whether every call was complete and every command answered once."""
        return self.complete == self.calls and not self._waiting and not self.faults

    def summary(self) -> Table:
        """All counts and latencies."""
        table = Table(title="What passed", show_header=False, title_justify="left")
        table.add_row("calls", f"{self.calls}, complete {self.complete}")
        kinds = "\n".join(f"{n:6} {kind}" for kind, n in self.events.most_common())
        table.add_row("events", f"{self.events.total()}\n{kinds}")
        table.add_row("commands", str(self.commands))
        statuses = "\n".join(f"{n:6} {s}" for s, n in sorted(self.statuses.items()))
        table.add_row("answers", f"{self.statuses.total()}\n{statuses}")
        table.add_row("unanswered", str(self.unanswered))
        table.add_row("command to answer", self._latencies())
        # Some end with a log, which was shown when it happened.
        faults = [fault.partition("\n")[0] for fault in self.faults]
        table.add_row("errors", "\n".join(faults) or "none")
        return table

    def _latencies(self) -> str:
        times = sorted(self._times)
        if not times:
            return "none"
        middle, late = times[len(times) // 2], times[int(len(times) * 0.99)]
        return f"p50 {middle * 1000:.1f} ms, p99 {late * 1000:.1f} ms"

    def _show(
        self, context: str | None, kind: str, what: str, duration: str = ""
    ) -> None:
        now = datetime.now().strftime("%H:%M:%S.%f")[:-3]
        short = (context or "")[:_SHORT]
        if context:
            what = what.replace(context, short)
        line = Text(f"{now}  {short:{_SHORT}}  ")
        line.append(f"{kind:8}", _STYLES[kind])
        line.append(f" {what}")
        if duration:
            line.append(f"  {duration}", "bold")
        # A line may be longer than the terminal is wide, or a file has no width.
        self._console.print(line, soft_wrap=True)
