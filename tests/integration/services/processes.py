"""The life of one server process: start, stop, crash, freeze, come back.

A server has its own process group, temporary folder and log file. It is ended by its
process id, and cannot outlive the process that started it: a guard (a small shell)
waits at a pipe that the kernel closes when that process ends, whatever the reason,
and then kills the group. (``PR_SET_PDEATHSIG`` would not do: it fires when the
*thread* that started the server ends.)
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from tests.integration.services.ports import accepts

_POLL_SECONDS = 0.02
_GUARD = 'read -r line || { kill -s KILL -- "-$1"; sleep 0.2; rm -rf -- "$2"; }'


class ServerFailed(Exception):
    """A server did not come up or did not go away; the text ends with its log."""


def services_folder() -> Path:
    """Return the folder with the unpacked servers.

    It is ``$ARI_PROXY_SERVICES``, or ``.services`` in the checkout.
    """
    checkout = Path(__file__).parents[3]
    return Path(os.environ.get("ARI_PROXY_SERVICES") or checkout / ".services")


def program(name: str) -> str | None:
    """Return the path of a program, also of one for the administrator."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask for a condition until it holds.

    :returns: whether it held within ``seconds``.
    """
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def start_guarded(
    command: list[str], folder: Path, log: Path
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Start a program in a process group of its own that ends with this process.

    :param folder: where it runs; removed as well when this process dies.
    :param log: the file that gets both its outputs.
    :returns: the process and its guard, which is to be ended by :func:`release` when
        the process is gone.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, "guard", str(process.pid), str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    return process, guard


def release(guard: subprocess.Popen[bytes]) -> None:
    """Tell a guard, by a line, that there is nothing left to do."""
    guard.communicate(b"\n")


class Server:
    """One server on 127.0.0.1, as a context manager or by its methods.

    ``start`` after ``kill`` or ``terminate`` brings the server back on the same
    ports with the same data; ``stop`` ends it for good and removes its folder.

    :ivar folder: its temporary folder, with the data and ``server.log``.
    :ivar pid: its process id, ``None`` while there is no process.
    :ivar ready_after: how long the last start took, in seconds.
    :ivar status: the exit status of the last process that ended, negative for a
        signal.
    """

    name: ClassVar[str]
    ready_limit: ClassVar[float] = 30.0
    """How long a start may take on a busy machine, in seconds."""
    end_limit: ClassVar[float] = 10.0
    """How long an orderly end may take before the process is killed, in seconds."""

    def __init__(self, port: int, parent: Path | None = None) -> None:
        """Make the folder of the server.

        :param port: the TCP port that tells whether the server is there.
        :param parent: where to make the folder; by default among the temporary ones.
        """
        self.port = port
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=parent))
        self.ready_after = 0.0
        self.status: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Tell whether the server, whose port is open, does its work."""
        raise NotImplementedError

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """The file with everything that the server wrote to its two outputs."""
        return self.folder / "server.log"

    def start(self) -> None:
        """Start the process and return when the server does its work.

        :raises ServerFailed: it ended, or is not ready after ``ready_limit``.
        """
        if self._process:
            raise ServerFailed(f"{self.name} runs already (pid {self.pid})")
        began = time.monotonic()
        self._process, self._guard = start_guarded(
            self.command(), self.folder, self.log
        )
        process = self._process
        wait_until(
            lambda: process.poll() is not None or self._answers(), self.ready_limit
        )
        self.ready_after = time.monotonic() - began
        if process.poll() is not None:
            self._fail(f"ended with status {process.returncode} while starting")
        if not self._answers():
            self._fail(f"was not ready after {self.ready_limit:g} seconds")

    def terminate(self) -> None:
        """End the process in good order (SIGTERM); the data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once (SIGKILL); the data stays.

        Returns when the process is gone and its port refuses.
        """
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its ports still accept, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill the process and remove its folder; harmless when repeated."""
        try:
            self.kill()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines that the server wrote."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _answers(self) -> bool:
        return accepts(self.port) and self.is_ready()

    def _signal(self, number: int) -> None:
        if self._process is None:
            raise ServerFailed(f"{self.name} does not run")
        os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        process, guard = self._process, self._guard
        if process is None:
            return
        if process.poll() is None:
            os.killpg(process.pid, number)
            os.killpg(process.pid, signal.SIGCONT)
            try:
                process.wait(self.end_limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.status = process.returncode
        if guard:
            release(guard)
        self._process = self._guard = None
        if not wait_until(lambda: not accepts(self.port), 5):
            self._fail(f"is gone, but port {self.port} still accepts")

    def _fail(self, what: str) -> None:
        tail = self.log_tail()
        if self._process:
            self.kill()
        raise ServerFailed(f"{self.name} {what}. Its last words:\n{tail}")
