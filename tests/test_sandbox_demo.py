"""The demonstration as a user runs it, and as he stops it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ariproxy

ROOT = str(Path(ariproxy.__file__).parent.parent)
LIMIT = 60.0


class DemoTests(SynchronousTestCase):
    """``ari-proxy demo``."""

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Run it, with no terminal, its temporary folder inside our own."""
        self.folder = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.output = self.folder / "output"
        paths = filter(None, [ROOT, os.environ.get("PYTHONPATH")])
        inside = self.folder / "tmp"
        inside.mkdir()
        environment = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(inside)}
        with self.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "ariproxy.cli", "demo", *options],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
            )
        self.addCleanup(process.wait, LIMIT)
        self.addCleanup(process.terminate)
        return process

    def text(self) -> str:
        """What it has printed until now."""
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, process: subprocess.Popen[bytes], text: str) -> None:
        """Wait until it has printed this."""
        wait_until(lambda: text in self.text() or process.poll() is not None)
        self.assertIn(text, self.text())

    def assert_nothing_left(self) -> None:
        """No process that it started, nor its folder."""
        pids = [int(pid) for pid in re.findall(r"pid (\d+)", self.text())]
        self.assertTrue(pids)
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.killpg(pid, 0)
        self.assertEqual(list((self.folder / "tmp").iterdir()), [])

    def test_ends_by_itself(self) -> None:
        """All calls are complete, every command has its answer; plain lines."""
        process = self.start("--calls", "2", "--rate", "10")
        status = process.wait(LIMIT)
        text = self.text()
        self.assertEqual(status, 0, text)
        self.assertIn("2, complete 2", text)
        self.assertNotIn("\x1b", text)
        for line in ("event    STASIS_START", "command  POST", "answer   204", "p99"):
            self.assertIn(line, text)
        self.assert_nothing_left()

    def test_interrupted_at_the_start(self) -> None:
        """Ctrl-C while the parts are still starting."""
        process = self.start()
        self.wait_for(process, "ari-proxy    ")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(LIMIT), 128 + signal.SIGINT, self.text())
        self.assert_nothing_left()

    def test_terminated_while_it_stays(self) -> None:
        """Running calls end first, and nothing is amiss."""
        process = self.start("--stay", "--rate", "10")
        self.wait_for(process, "RECORDING_FINISHED")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT), 0, self.text())
        self.assert_nothing_left()

    def test_bad_options(self) -> None:
        """One line, nothing started."""
        process = self.start("--rate", "0")
        self.assertEqual(process.wait(LIMIT), 2)
        self.assertEqual(
            self.text(), "ari-proxy demo: --calls and --rate must be above 0\n"
        )


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again, until the limit."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"it did not come about within {LIMIT} seconds")
        time.sleep(0.02)
