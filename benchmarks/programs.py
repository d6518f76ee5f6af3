"""What is measured: the daemon as its user starts it, and the bare loops."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from benchmarks.asterisk import Asterisk
from benchmarks.broker import Broker
from benchmarks.frames import APPLICATION
from tests.integration.services.ports import free_port
from tests.integration.services.processes import release, start_guarded

_TICKS = os.sysconf("SC_CLK_TCK")
_END_LIMIT = 30.0


class Program:
    """A process between the simulated Asterisk and Kafka, as a context manager.

    :ivar name: of its column in the table.
    :ivar way: of the commands, as the lines of the table tell it.
    :ivar began: when it was started, in nanoseconds.
    :ivar topic: where it publishes.
    :ivar commands_topic: where it takes commands from.
    """

    name: ClassVar[str]
    way: ClassVar[str] = ""
    _count: ClassVar[int] = 0

    def __init__(self, asterisk: Asterisk, broker: Broker) -> None:
        Program._count += 1
        self.asterisk = asterisk
        self.broker = broker
        self.topic = f"events-{Program._count}"
        self.commands_topic = f"commands-{Program._count}"
        self.began = 0
        self.folder = Path(tempfile.mkdtemp(prefix=f"bench-{self.name}-"))
        self._process: subprocess.Popen[bytes]
        self._guard: subprocess.Popen[bytes]

    def command(self) -> list[str]:
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def __enter__(self) -> Program:
        self.broker.topics(self.topic, self.commands_topic)
        self.asterisk.forget()
        command = self.command()
        self.began = time.monotonic_ns()
        self._process, self._guard = start_guarded(command, self.folder, self._log)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            print(
                f"{self.name} said:\n{self._log.read_text()[-3000:]}", file=sys.stderr
            )
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_END_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        release(self._guard)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self.folder / "output.log"

    def cpu(self) -> float:
        """Seconds of CPU so far, of all threads (``proc(5)``, fields 14 and 15)."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self, field: str = "VmRSS") -> float:
        """Resident memory in MB (10**6 bytes); at its highest with ``VmHWM``."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(each for each in status.splitlines() if each.startswith(field))
        return int(line.split()[1]) * 1024 / 1e6


class Proxy(Program):
    """The daemon by twistd, with the store that is asked for."""

    name = "proxy"
    rest_over_websocket: ClassVar[str] = "auto"
    store = "sqlite"
    settings = ""
    """HOCON after the block ``service``."""
    twistd_options: ClassVar[list[str]] = []

    def command(self) -> list[str]:
        config = self.folder / "service.conf"
        config.write_text(
            _CONFIG.format(
                application=APPLICATION,
                httpport=free_port(),
                rest_over_websocket=self.rest_over_websocket,
                asterisk=f"127.0.0.1:{self.asterisk.port}",
                bootstrap=self.broker.bootstrap,
                commands=self.commands_topic,
                events=self.topic,
                store=self.store,
                database=self.folder / "store.sqlite",
            )
            + self.settings
        )
        twistd = Path(sys.executable).with_name("twistd")
        return [
            *(str(twistd), "-n", "--pidfile=", *self.twistd_options),
            *("ari-proxy", "--config", str(config)),
        ]


class BareEvents(Program):
    """The bare event loop."""

    name = "bare"
    _which: ClassVar[str] = "events"

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "benchmarks.bare", self._which),
            *(str(self.asterisk.port), self.broker.bootstrap),
            *(self.topic, self.commands_topic),
        ]


class ProxyByHttp(Proxy):
    """The daemon, which asks over HTTP alone."""

    way = "over HTTP"
    rest_over_websocket = "off"


class ProxyByWebsocket(Proxy):
    """The daemon, which asks on the websocket alone."""

    way = "on the websocket"
    rest_over_websocket = "on"


class BareHttp(BareEvents):
    """The bare command loop over treq."""

    way = "over HTTP"
    _which = "http"


class BareWebsocket(BareEvents):
    """The bare command loop on the websocket."""

    way = "on the websocket"
    _which = "websocket"


_CONFIG = """\
service {{
  stasis-app = {application}
  httpport = {httpport}
  http.interface = "127.0.0.1"
  asterisk {{
    server = "{asterisk}", user = bench, password = bench
    rest-over-websocket = {rest_over_websocket}
  }}
  kafka {{
    bootstrap-servers = "{bootstrap}"
    consumer-group = {commands}
    commands-topic = {commands}
    events-and-responses-topic = {events}
  }}
  persistence-store = {store}
  sqlite {{ url = "jdbc:sqlite:{database}", ttl = 6h }}
}}
"""
