"""What the demonstration shows and counts."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.sandbox.tally import Tally

CONTEXT = "0123456789abcdef"


def command(number: int, url: str = "/channels/c/answer") -> dict[str, Any]:
    """A command of the one call."""
    request = {"method": "POST", "url": url}
    return {"callContext": CONTEXT, "commandId": str(number), "ariCommand": request}


def answered(number: int, status: int = 204) -> dict[str, Any]:
    """Its answer."""
    return {
        "type": "RESPONSE",
        "callContext": CONTEXT,
        "commandId": str(number),
        "commandRequest": {"method": "POST", "url": "/channels/c/answer"},
        "resources": [],
        "payload": {"status_code": status},
    }


class TallyTests(SynchronousTestCase):
    """Counts, and the verdict."""

    def setUp(self) -> None:
        self.output = io.StringIO()
        self.tally = Tally(Console(file=self.output, width=60))

    def test_all_well(self) -> None:
        """One call, one event, one command, one answer."""
        self.tally.placed()
        resources = [{"type": "CHANNEL", "id": f"{CONTEXT}.callee"}]
        event = {"type": "STASIS_START", "callContext": CONTEXT}
        self.tally.received({**event, "resources": resources})
        self.tally.sent(command(1))
        self.tally.ended(CONTEXT, True)
        self.assertFalse(self.tally.done)
        self.tally.received(answered(1))
        self.assertTrue(self.tally.done)
        self.assertTrue(self.tally.well)
        event_line, command_line, answer_line = self.output.getvalue().splitlines()
        self.assertRegex(
            event_line,
            r"^\d\d:\d\d:\d\d\.\d{3}  01234567  event    STASIS_START 01234567.callee$",
        )
        self.assertIn("command  POST /channels/c/answer", command_line)
        self.assertRegex(answer_line, r"answer   204 POST \S+  \d+\.\d ms$")

    def test_long_lines_stay_whole(self) -> None:
        """Also where the terminal is narrow, or there is none."""
        self.tally.sent(command(1, "/channels/" + "c" * 200))
        self.assertEqual(self.output.getvalue().count("\n"), 1)

    def test_not_well(self) -> None:
        """Each of the things that must not be."""
        for spoil in (
            lambda tally: tally.placed(),
            lambda tally: tally.sent(command(1)),
            lambda tally: tally.received(answered(1)),
            lambda tally: tally.ended(CONTEXT, False),
            lambda tally: tally.fault("something"),
        ):
            tally = Tally(Console(file=io.StringIO()))
            self.assertTrue(tally.well)
            spoil(tally)
            self.assertFalse(tally.well)

    def test_two_answers(self) -> None:
        """The second belongs to no command."""
        self.tally.sent(command(1))
        self.tally.received(answered(1))
        self.assertTrue(self.tally.well)
        self.tally.received(answered(1))
        self.assertFalse(self.tally.well)

    def test_refused_command(self) -> None:
        """Is answered, and an error all the same."""
        self.tally.sent(command(1))
        self.tally.received(answered(1, 404))
        self.assertEqual(self.tally.unanswered, 0)
        self.assertEqual(self.tally.faults, ["404 POST /channels/c/answer"])

    def test_summary(self) -> None:
        """Every count is there."""
        self.tally.placed()
        self.tally.sent(command(1))
        self.tally.received(answered(1))
        console = Console(file=self.output, width=100)
        console.print(self.tally.summary())
        text = self.output.getvalue()
        for expected in ("1, complete 0", "commands", "1 204", "p50", "p99", "none"):
            self.assertIn(expected, text)
