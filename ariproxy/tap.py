"""``twistd ari-proxy``: its options, and the service that it runs.

The only file that touches the global reactor, the clock of the machine and its
randomness.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, NoReturn
from uuid import uuid4

from twisted.application.service import Service
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import usage
from twisted.python.logfile import LogFile

from ariproxy import __version__
from ariproxy.config import Config, load
from ariproxy.errors import ConfigError
from ariproxy.logs import capture_stdlib, observer
from ariproxy.parts import Surroundings
from ariproxy.service import Proxy


class Options(usage.Options):
    """The command line of ``twistd ari-proxy``."""

    synopsis = "[twistd options] ari-proxy --config FILE [--set service.KEY=VALUE ...]"
    longdesc = "Connects Asterisk's REST interface (ARI) to Apache Kafka."
    optParameters = [["config", "c", None, "The configuration (service.conf)."]]

    def __init__(self) -> None:
        super().__init__()
        self.overrides: list[str] = []
        self.loaded: Config

    def opt_set(self, setting: str) -> None:
        """Override one setting of the file, like service.httpport=8081; repeatable."""
        self.overrides.append(setting)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"ari-proxy {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        """Read the configuration; ends the process with one line a problem."""
        if self["config"] is None:
            _give_up(ConfigError("--config FILE is missing"))
        try:
            self.loaded = load(self["config"], self.overrides)
        except ConfigError as error:
            _give_up(error)


def _give_up(error: ConfigError) -> NoReturn:
    # usage.UsageError would print the whole help in front of the line that
    # matters.
    raise SystemExit("\n".join(f"ari-proxy: {line}" for line in error.problems))


class Daemon(Service):
    """The proxy as a process: its log, its signals, its exit status."""

    _log = Logger()

    def __init__(
        self,
        proxy: Proxy,
        reactor: Any,
        end: Callable[[], None],
        twistd: Mapping[str, Any],
    ) -> None:
        self._proxy = proxy
        self._reactor = reactor
        self._end = end
        self._twistd = twistd

    def privilegedStartService(self) -> None:
        """See ``IService``."""
        self._or_exit(self._proxy.privilegedStartService)

    def startService(self) -> None:
        """See ``IService``."""
        super().startService()
        self._or_exit(self._proxy.startService)
        _spare_collections()
        # twistd's own handlers would end the process by the signal, with a
        # status other than 0; stopping in good order is no failure.
        self._reactor.callWhenRunning(self._take_signals)

    def stopService(self) -> Any:
        """See ``IService``."""
        super().stopService()
        return self._proxy.stopService()

    def _take_signals(self) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._end)

    def _or_exit(self, start: Callable[[], None]) -> None:
        try:
            start()
        except ConfigError as error:
            self._log.critical("{error}", error=str(error))
            self._tell_parent(str(error))
            raise SystemExit(1) from None

    def _tell_parent(self, problem: str) -> None:
        """What twistd does itself for errors that it shows with a traceback.

        In the background the process that the operator started waits at a pipe
        for a word: ``0``, or ``1`` and a text of less than 100 bytes.
        """
        if self._twistd.get("pidfile"):
            with suppress(OSError):
                os.unlink(self._twistd["pidfile"])
        pipe = self._twistd.get("statusPipe")
        if pipe is not None:
            os.write(pipe, f"1 {problem}".encode("ascii", "backslashreplace")[:100])
            os.close(pipe)


def _spare_collections() -> None:
    """Look for garbage less often, and never among what lives as long as we do.

    Each event makes some objects that wait for Kafka; with Python's own
    thresholds a burst would be walked over and over (measured by
    ``python -m benchmarks events``).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class LoggingDaemon(Daemon):
    """The same with a log of its own, in place of twistd's."""

    def __init__(self, log_observer: ILogObserver, *args: Any) -> None:
        super().__init__(*args)
        self._observer = log_observer

    def setServiceParent(self, parent: Any) -> None:
        """Hand twistd our way of logging, where it looks for one."""
        parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)


def _log_stream(twistd: Mapping[str, Any]) -> IO[str] | None:
    """Where the log goes; ``None`` if twistd was told of a logger of its own."""
    if twistd.get("logger") or twistd.get("syslog"):
        return None
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if path == "-":
        return sys.stdout
    # logrotate moves the file and sends SIGUSR1, as to any twistd.
    file = LogFile.fromFullPath(path, rotateLength=None)
    signal.signal(signal.SIGUSR1, lambda number, frame: file.reopen())
    return file


def makeService(options: Options) -> Daemon:
    """The service of one proxy, ready to be started by twistd."""
    from twisted.internet import reactor

    ending = False

    def end() -> None:
        nonlocal ending
        if not ending:
            ending = True
            reactor.stop()

    config = options.loaded
    capture_stdlib(config.logging.level, globalLogPublisher)
    around = Surroundings(
        reactor=reactor,
        now=time.time,
        steady=time.monotonic,
        new_id=lambda: str(uuid4()),
        jitter=random.random,
        node=socket.gethostname(),
        end=end,
    )
    try:
        proxy = Proxy(config, around)
    except ConfigError as error:
        _give_up(error)
    twistd: Mapping[str, Any] = options.parent or {}
    stream = _log_stream(twistd)
    if stream is None:
        return Daemon(proxy, reactor, end, twistd)
    log_observer = observer(config.logging.level, config.logging.format, stream)
    return LoggingDaemon(log_observer, proxy, reactor, end, twistd)
