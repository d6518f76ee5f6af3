"""Callers: SIPp places calls to Asterisk and counts how they went."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from tests.integration.services.ports import HOST, free_port, free_ports
from tests.integration.services.processes import program, release, start_guarded

_SCENARIOS = Path(__file__).parent


def missing() -> str | None:
    """Tell what is not installed and how to mend it."""
    return None if program("sipp") else "there is no sipp: install sip-tester"


@dataclass(frozen=True)
class Count:
    """How the calls went; ``status`` is 0 when all of them went well."""

    successful: int
    failed: int
    status: int


class SippCalls:
    """Calls under way; a context manager that ends the caller.

    A call goes well when it was answered and the expected side hung up.
    """

    def __init__(
        self,
        sip_port: int,
        dial: Sequence[str],
        *,
        hangs_up: Literal["caller", "asterisk"] = "caller",
        rate: float = 10,
        talk_seconds: float = 1.0,
        limit_seconds: float = 30.0,
    ) -> None:
        """Start to call.

        :param sip_port: where Asterisk takes SIP calls, on this machine.
        :param dial: the number for each call, see
            :class:`~tests.integration.services.asterisk.RealAsterisk`.
        :param hangs_up: the side that ends an answered call.
        :param rate: new calls in a second.
        :param talk_seconds: how long the caller talks before it hangs up.
        :param limit_seconds: how long a call may wait for the next SIP message.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="sipp-"))
        numbers = "".join(f"{number};\n" for number in dial)
        (self._folder / "numbers.csv").write_text(f"SEQUENTIAL\n{numbers}")
        self._process, self._guard = start_guarded(
            [
                *(program("sipp") or "sipp", f"{HOST}:{sip_port}", "-i", HOST),
                *("-p", str(free_port()), "-mp", str(free_ports(4)), "-nostdin"),
                *("-sf", str(_SCENARIOS / f"{hangs_up}_hangs_up.xml")),
                *("-inf", str(self._folder / "numbers.csv"), "-m", str(len(dial))),
                *("-r", str(rate), "-d", str(round(talk_seconds * 1000))),
                *("-recv_timeout", str(round(limit_seconds * 1000))),
                *("-trace_stat", "-stf", str(self._folder / "statistics.csv")),
                *("-trace_err", "-error_file", str(self._folder / "errors.log")),
            ],
            self._folder,
            self._folder / "output.log",
        )

    @property
    def is_done(self) -> bool:
        """Whether the last call has ended."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> Count:
        """Wait until the last call has ended; blocks the thread.

        :raises subprocess.TimeoutExpired: calls go on after ``seconds``.
        """
        status = self._process.wait(seconds)
        statistics = self._folder / "statistics.csv"
        rows = []
        if statistics.exists():
            with statistics.open(newline="") as lines:
                rows = list(csv.DictReader(lines, delimiter=";"))
        last = rows[-1] if rows else {}
        return Count(
            int(last.get("SuccessfulCall(C)") or 0),
            int(last.get("FailedCall(C)") or 0),
            status,
        )

    def errors(self) -> str:
        """Return what SIPp wrote about unexpected messages, for a test's message."""
        for name in ("errors.log", "output.log"):
            log = self._folder / name
            if log.exists():
                return log.read_text(errors="replace")[-2000:]
        return ""

    def stop(self) -> None:
        """End the caller, with calls or without; harmless when repeated."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._guard.poll() is None:
            release(self._guard)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
