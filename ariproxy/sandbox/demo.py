"""``ari-proxy demo``: a whole system on one machine, with nothing to install.

A simulated Asterisk and the daemon run as processes of their own, Kafka and the
sample call-controller inside this one. Everything is in a temporary folder, and
gone afterwards.
"""

from __future__ import annotations

import argparse
import http.client
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ariproxy.sandbox.controller import Controller
    from ariproxy.sandbox.processes import Child
    from ariproxy.sandbox.tally import Tally

APP, USER, GROUP = "demo", "demo", "ari-proxy"
COMMANDS, EVENTS = "ari-commands", "ari-events-and-responses"

START = 20.0
"""Seconds until everything must be ready."""
LAST_CALL = 15.0
"""Seconds until the last call must have come to its end."""
STOP = 15.0
"""Seconds that the daemon may take to end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the subcommand."""
    parser.add_argument(
        "--calls", type=int, default=5, metavar="N", help="how many calls (5)"
    )
    parser.add_argument(
        "--rate", type=float, default=2.0, metavar="R", help="calls per second (2)"
    )
    parser.add_argument(
        "--stay", action="store_true", help="go on making calls until Ctrl-C"
    )


def run(options: argparse.Namespace) -> int:
    """Run the demonstration.

    :return: 0 if every call was complete and every command got one answer, 1 if
        not, 2 for options that make no sense, 128 + the signal that ended it.
    """
    if options.calls < 1 or options.rate <= 0:
        print("ari-proxy demo: --calls and --rate must be above 0", file=sys.stderr)
        return 2
    from rich.console import Console

    from ariproxy.sandbox.tally import Tally

    console = Console(highlight=False)
    tally = Tally(console)
    with _signals() as caught:
        try:
            with ExitStack() as stack:
                _Demo(options, console.print, tally, stack, caught).run()
        except _Interrupted:
            console.print("interrupted; all processes have ended")
        except _Failed as failure:
            tally.fault(str(failure))
    console.print(tally.summary())
    if caught and not options.stay:
        return 128 + caught[0]
    return 0 if tally.well else 1


class _Failed(Exception):
    """The demonstration cannot go on."""


class _Interrupted(Exception):
    """Somebody wants it to end now."""


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, instead of dying by them."""
    caught: list[int] = []
    former = {
        each: signal.signal(each, lambda number, frame: caught.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield caught
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


class _Demo:
    """The parts, started one after the other; ``stack`` ends them in reverse."""

    def __init__(
        self,
        options: argparse.Namespace,
        say: Callable[[str], None],
        tally: Tally,
        stack: ExitStack,
        caught: list[int],
    ) -> None:
        self._options = options
        self._say = say
        self._tally = tally
        self._stack = stack
        self._caught = caught
        self._children: list[Child] = []
        self._password = secrets.token_hex(8)
        self._folder = Path(tempfile.mkdtemp(prefix="ari-proxy-demo-"))
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)

    def run(self) -> None:
        """Start everything, make the calls, wait for their end."""
        kafka = self._start_kafka()
        asterisk = self._start_asterisk()
        self._start_daemon(kafka, asterisk)
        self._start_controller(kafka)
        self._say("ready: a command went to Asterisk and its answer came back")
        try:
            self._make_calls(asterisk)
        except _Interrupted:
            if not self._options.stay:
                raise
            # It is the ordinary end then, and the running calls may end too.
            self._caught.clear()
        if not self._wait(lambda: self._tally.done, LAST_CALL):
            self._tally.fault("calls or answers did not come in time")

    def _start_kafka(self) -> str:
        from ariproxy.sandbox.kafka import EmbeddedKafka

        kafka = EmbeddedKafka([COMMANDS, EVENTS])
        self._stack.callback(kafka.close)
        kafka.begin_group(GROUP, COMMANDS)
        self._say(
            f"Kafka        {kafka.bootstrap_servers}, topics {COMMANDS}, {EVENTS}"
        )
        return kafka.bootstrap_servers

    def _start_asterisk(self) -> str:
        command = [sys.executable, "-m", "ariproxy.sandbox.asterisk", "--port", "0"]
        command += ["--user", USER, "--password", self._password]
        child = self._child(command, "asterisk.log", 5)
        self._wait(lambda: "/ari" in child.tail(), START)
        found = re.search(r"http://(\S+)/ari", child.tail())
        if found is None:
            raise _Failed(f"the simulated Asterisk did not start: {child.tail()}")
        self._say(f"Asterisk     {found[1]}, simulated, pid {child.pid}")
        return found[1]

    def _start_daemon(self, kafka: str, asterisk: str) -> None:
        from ariproxy.sandbox.kafka import CONSUMER
        from ariproxy.sandbox.processes import twistd

        config = self._folder / "service.conf"
        config.write_text(self._config(kafka, asterisk, CONSUMER), encoding="utf-8")
        command = [*twistd(), "-n", "--pidfile=", "ari-proxy", "--config", str(config)]
        child = self._child(command, "ari-proxy.log", STOP, status=0)
        self._say(f"ari-proxy    {config}, pid {child.pid}")

    def _config(self, kafka: str, asterisk: str, consumer: dict[str, int]) -> str:
        properties = ", ".join(f'"{k}" = {v}' for k, v in consumer.items())
        return f"""\
service {{
  stasis-app = {APP}
  httpport = {_free_port()}
  http.interface = "127.0.0.1"
  asterisk {{
    server = "{asterisk}"
    user = {USER}
    password = "{self._password}"
  }}
  kafka {{
    bootstrap-servers = "{kafka}"
    consumer-group = {GROUP}
    commands-topic = {COMMANDS}
    events-and-responses-topic = {EVENTS}
    librdkafka {{ {properties} }}
  }}
  persistence-store = "io.retel.ariproxy.persistence.plugin.SQLitePersistenceStore"
  sqlite {{
    url = "jdbc:sqlite:{self._folder}/store.db"
    ttl = 6h
  }}
}}
"""

    def _start_controller(self, kafka: str) -> None:
        from ariproxy.sandbox.controller import Controller, Observer, Settings
        from ariproxy.sandbox.kafka import CONSUMER

        probe: list[str] = []
        answered = threading.Event()

        def received(record: dict[str, Any]) -> None:
            if record.get("commandId") in probe:
                answered.set()
            else:
                self._tally.received(record)

        def sent(command: dict[str, Any]) -> None:
            if "callContext" in command:
                self._tally.sent(command)

        controller = Controller(
            Settings(
                bootstrap_servers=kafka,
                commands_topic=COMMANDS,
                events_topic=EVENTS,
                app=APP,
                consumer=CONSUMER,
            ),
            Observer(sent, received, self._tally.ended),
        )
        self._run_controller(controller)
        # The groups need some seconds; once this answer is here, all stand.
        probe.append(controller.send(None, "GET", "/asterisk/ping"))
        if not self._wait(answered.is_set, START):
            raise _Failed(f"no answer to the first command. {self._logs()}")

    def _run_controller(self, controller: Controller) -> None:
        def serve() -> None:
            try:
                controller.run()
            except Exception as error:
                self._tally.fault(f"the call-controller failed: {error!r}")

        thread = threading.Thread(target=serve, name="controller", daemon=True)
        thread.start()
        # Runs first of all at the end, so that it reads until then.
        self._stack.callback(thread.join, 10)
        self._stack.callback(controller.stop)

    def _make_calls(self, asterisk: str) -> None:
        begin = time.monotonic()
        placed = 0
        while self._options.stay or placed < self._options.calls:
            self._place_call(asterisk, placed)
            placed += 1
            self._wait_until(begin + placed / self._options.rate)

    def _place_call(self, asterisk: str, number: int) -> None:
        self._tally.placed()
        token = b64encode(f"{USER}:{self._password}".encode()).decode()
        connection = http.client.HTTPConnection(asterisk, timeout=5)
        try:
            url = f"/sandbox/call?exten=1000&caller=4930{number:06}"
            connection.request("POST", url, headers={"Authorization": f"Basic {token}"})
            connection.getresponse().read()
        finally:
            connection.close()

    def _child(
        self, command: list[str], log: str, patience: float, status: int | None = None
    ) -> Child:
        from ariproxy.sandbox.processes import Child

        child = Child(command, self._folder / log)
        self._children.append(child)

        def end() -> None:
            self._children.remove(child)
            ended = child.end(patience)
            if status is not None and ended != status:
                self._tally.fault(f"{log}: ended with status {ended}")

        self._stack.callback(end)
        return child

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds; ``False`` if it does not in time.

        Raises ``_Interrupted`` after a signal, ``_Failed`` when a child has ended.
        """
        end = time.monotonic() + seconds
        while not condition():
            if self._caught:
                raise _Interrupted
            if time.monotonic() > end:
                return False
            for child in self._children:
                if child.status is not None:
                    raise _Failed(f"{child.log.name} ended: {child.tail()}")
            time.sleep(0.02)
        return True

    def _wait_until(self, moment: float) -> None:
        self._wait(lambda: time.monotonic() >= moment, float("inf"))

    def _logs(self) -> str:
        return "\n".join(f"{each.log.name}:\n{each.tail()}" for each in self._children)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
