"""Processes that a demonstration starts, and ends again whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ariproxy


class Child:
    """A process in a process group of its own; its output goes to a file.

    A Ctrl-C in the terminal does not reach it: it is ended by ``end`` alone.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        # The child must find this very package, also in a checkout.
        here = str(Path(ariproxy.__file__).parent.parent)
        paths = filter(None, [here, os.environ.get("PYTHONPATH")])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The id of the process, which is that of its group too."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; ``None`` while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 15) -> str:
        """The end of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def end(self, patience: float) -> int:
        """Ask it to end, kill it and all that it started after ``patience`` s.

        Gives its exit status.
        """
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()


def twistd() -> list[str]:
    """The command that runs twistd of this Python, as a user would."""
    script = Path(sys.executable).parent / "twistd"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
