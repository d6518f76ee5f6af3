"""Tests of ariproxy.generic."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from ariproxy.commands import CommandStream
from ariproxy.generic import GRACE, GenericCommands
from tests.fakes import FakeSource
from tests.test_commands import CommandCase


class GenericTests(CommandCase):
    """When the generic topic is consumed."""

    def setUp(self) -> None:
        super().setUp()
        self.sources: list[FakeSource] = []
        self.generic = GenericCommands(self.make, self.clock, 10.0)

    def make(self) -> CommandStream:
        self.sources.append(FakeSource())
        return self.make_stream(self.sources[-1])

    def test_while_open(self) -> None:
        """From the opening of the websocket on."""
        self.assertEqual(self.sources, [])
        self.generic.opened()
        self.source = self.sources[0]
        self.send("GET", "/asterisk/info")
        self.assertEqual(len(self.asterisk.requests), 1)
        self.assertEqual(self.values()[0]["commandsTopic"], "ari-commands")

    def test_short_interruption(self) -> None:
        """Nothing changes hands for a moment's sake."""
        self.generic.opened()
        self.generic.closed()
        self.clock.advance(GRACE / 2)
        self.generic.opened()
        self.clock.advance(GRACE)
        self.assertFalse(self.sources[0].stopped)
        self.assertEqual(len(self.sources), 1)

    def test_leaves_and_comes_back(self) -> None:
        """The group is left when Asterisk stays away, and joined anew."""
        self.generic.opened()
        self.generic.closed()
        with capturedLogs() as logs:
            self.clock.advance(GRACE)
        self.assertTrue(self.sources[0].stopped)
        self.assertEqual(len(logs), 1)
        self.generic.opened()
        self.assertEqual([each.stopped for each in self.sources], [True, False])

    def test_stop(self) -> None:
        """At the end it stops, and leaves when all is published."""
        self.generic.opened()
        self.generic.closed()
        self.successResultOf(ensureDeferred(self.generic.stop()))
        self.assertTrue(self.sources[0].paused)
        self.assertFalse(self.sources[0].stopped)
        self.successResultOf(ensureDeferred(self.generic.close()))
        self.assertTrue(self.sources[0].stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_opened(self) -> None:
        """There is nothing to stop."""
        self.successResultOf(ensureDeferred(self.generic.stop()))
        self.successResultOf(ensureDeferred(self.generic.close()))
