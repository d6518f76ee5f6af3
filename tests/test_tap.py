"""``twistd ari-proxy``: its options, what it builds, and its signals."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService, IServiceMaker, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.logger import ILogObserver, LogLevel, capturedLogs
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from ariproxy import __version__
from ariproxy.errors import ConfigError
from ariproxy.service import Proxy
from ariproxy.tap import Daemon, LoggingDaemon, Options, makeService

SAMPLE = Path(__file__).parents[1] / "etc" / "ari-proxy" / "service.conf"


class PluginTests(SynchronousTestCase):
    """What twistd finds."""

    def test_offered(self) -> None:
        """twistd lists ``ari-proxy``, once, and finds its options and its service."""
        [plugin] = [
            each for each in getPlugins(IServiceMaker) if each.tapname == "ari-proxy"
        ]
        self.assertIs(plugin.options, Options)
        self.assertIs(plugin.makeService, makeService)


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def refused(self, *arguments: str) -> list[str]:
        """The lines with which it ends."""
        with self.assertRaises(SystemExit) as caught:
            Options().parseOptions(arguments)
        # A text as status: Python prints it, and the status is 1.
        self.assertIsInstance(caught.exception.code, str)
        return str(caught.exception.code).splitlines()

    def file(self, text: str) -> str:
        """A file with this text."""
        path = self.mktemp()
        Path(path).write_text(text)
        return path

    def test_sample(self) -> None:
        """The sample is read."""
        options = Options()
        options.parseOptions(["--config", str(SAMPLE)])
        self.assertEqual(options.loaded.httpport, 8080)

    def test_set(self) -> None:
        """Settings on the command line win over the file, and may be repeated."""
        options = Options()
        options.parseOptions(
            ["-c", str(SAMPLE), "--set", "service.httpport=1", "--set=service.name=x"]
        )
        self.assertEqual((options.loaded.httpport, options.loaded.name), (1, "x"))

    def test_no_file(self) -> None:
        """Without a file there is one line."""
        self.assertEqual(self.refused(), ["ari-proxy: --config FILE is missing"])

    def test_missing_file(self) -> None:
        """One line names the file."""
        [line] = self.refused("--config", "no-such-file.conf")
        self.assertIn("no-such-file.conf", line)

    def test_syntax_error(self) -> None:
        """One line names the file."""
        path = self.file("service {\n")
        [line] = self.refused("--config", path)
        self.assertIn(path, line)

    def test_every_problem(self) -> None:
        """Each problem has its line, which names file and key."""
        path = self.file(SAMPLE.read_text() + "\nservice.httpport = x\n")
        lines = self.refused("--config", path, "--set", "service.no-such-key=1")
        self.assertEqual(len(lines), 2)
        self.assertTrue(all(line.startswith("ari-proxy: ") for line in lines))
        self.assertIn("service.httpport", "\n".join(lines))
        self.assertIn("service.no-such-key", "\n".join(lines))

    def test_version(self) -> None:
        """The version, and nothing is read."""
        out = StringIO()
        with redirect_stdout(out), self.assertRaises(SystemExit) as caught:
            Options().parseOptions(["--version"])
        self.assertEqual(caught.exception.code, 0)
        self.assertEqual(out.getvalue(), f"ari-proxy {__version__}\n")


class MakeServiceTests(SynchronousTestCase):
    """What twistd runs."""

    def setUp(self) -> None:
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        root = logging.getLogger()
        self.addCleanup(root.setLevel, root.level)
        self.addCleanup(setattr, root, "handlers", root.handlers[:])

    def make(self, twistd: dict[str, Any]) -> Any:
        """The service, made from the sample under a twistd with these options."""
        options = Options()
        options.parseOptions(["--config", str(SAMPLE)])
        options.parent = twistd
        return makeService(options)

    def test_quiet(self) -> None:
        """To build it opens no socket and makes no thread, as twistd forks later."""
        threads = threading.active_count()
        sockets = set(reactor.getReaders())
        timers = len(reactor.getDelayedCalls())
        made = self.make({"nodaemon": True})
        self.assertTrue(IService.providedBy(made))
        self.assertEqual(threading.active_count(), threads)
        self.assertEqual(set(reactor.getReaders()), sockets)
        self.assertEqual(len(reactor.getDelayedCalls()), timers)

    def test_proxy_inside(self) -> None:
        """The daemon runs one proxy."""
        made = self.make({"nodaemon": True})
        self.assertIsInstance(made, LoggingDaemon)
        self.assertIsInstance(made._proxy, Proxy)

    def test_own_log(self) -> None:
        """twistd logs our way, unless it was told of another logger."""
        application = Application("ari-proxy")
        self.make({"nodaemon": True}).setServiceParent(application)
        self.assertIsNotNone(application.getComponent(ILogObserver))

    def test_other_logger(self) -> None:
        """``--logger`` and ``--syslog`` of twistd keep their meaning."""
        for option in ("logger", "syslog"):
            made = self.make({"nodaemon": True, option: "x"})
            self.assertNotIsInstance(made, LoggingDaemon)

    def test_logfile(self) -> None:
        """``--logfile`` too, and the file may be moved away (SIGUSR1)."""
        path = self.mktemp()
        self.make({"logfile": path})
        self.assertTrue(os.path.exists(path))
        os.rename(path, path + ".1")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertTrue(os.path.exists(path))


class FakeProxy(Service):
    """Does what the test says."""

    def __init__(self, fails: str = "") -> None:
        self.done: list[str] = []
        self._fails = fails

    def _do(self, what: str) -> None:
        self.done.append(what)
        if what == self._fails:
            raise ConfigError("service.httpport: cannot listen on 8080")

    def privilegedStartService(self) -> None:
        self._do("bound")

    def startService(self) -> None:
        self._do("started")

    def stopService(self) -> Deferred[None]:
        self._do("stopped")
        return succeed(None)


class FakeReactor:
    """Runs at once; what a handler of signals hands over is there to be seen."""

    def callWhenRunning(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


class DaemonTests(SynchronousTestCase):
    """Start, signals and stop of the process."""

    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.ended = 0

    def end(self) -> None:
        self.ended += 1

    def daemon(self, proxy: FakeProxy) -> Daemon:
        made: Any = Daemon
        return made(proxy, FakeReactor(), self.end, {})

    def test_order(self) -> None:
        """Ports are bound before rights are given up, then the rest starts."""
        proxy = FakeProxy()
        daemon = self.daemon(proxy)
        daemon.privilegedStartService()
        daemon.startService()
        self.successResultOf(daemon.stopService())
        self.assertEqual(proxy.done, ["bound", "started", "stopped"])

    def test_cannot_start(self) -> None:
        """What an operator can mend is one line and status 1, no traceback."""
        for fails in ("bound", "started"):
            daemon = self.daemon(FakeProxy(fails))
            with capturedLogs() as log, self.assertRaises(SystemExit) as caught:
                daemon.privilegedStartService()
                daemon.startService()
            self.assertEqual(caught.exception.code, 1)
            [event] = log
            self.assertIs(event["log_level"], LogLevel.critical)
            self.assertNotIn("log_failure", event)

    def test_signals(self) -> None:
        """SIGTERM and SIGINT end the process in good order."""
        self.daemon(FakeProxy()).startService()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        self.assertEqual(self.ended, 2)
