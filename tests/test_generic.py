"""Tests of ariproxy.generic."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from ariproxy.commands import NOTICED_AFTER, CommandStream
from ariproxy.errors import AsteriskUnavailable
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
        self.assertTrue(self.sources[0].paused)
        self.clock.advance(GRACE / 2)
        self.generic.opened()
        self.assertFalse(self.sources[0].paused)
        self.clock.advance(GRACE)
        self.assertFalse(self.sources[0].stopped)
        self.assertEqual(len(self.sources), 1)

    def test_read_meanwhile(self) -> None:
        """What was read before the socket closed waits, and is run when it opens."""
        self.generic.opened()
        self.source = self.sources[0]
        self.generic.closed()
        self.send("GET", "/asterisk/info")
        self.assertEqual(self.asterisk.requests, [])
        self.assertEqual(self.source.claimed, [])
        self.generic.opened()
        self.assertEqual(len(self.asterisk.requests), 1)
        self.assertEqual(self.values()[0]["payload"]["status_code"], 200)

    def test_left_to_others(self) -> None:
        """What was read and could not be run has no answer here, and is not settled."""
        self.generic.opened()
        self.source = self.sources[0]
        self.asterisk.error = AsteriskUnavailable("away")
        # A connection is refused before the websocket is known to be closed.
        self.send("POST", "/channels/c/answer")
        self.generic.closed()
        self.send("GET", "/asterisk/info", context="other")
        self.clock.advance(GRACE)
        self.clock.advance(0.1)
        self.assertTrue(self.source.stopped)
        self.assertEqual(self.publisher.records, [])
        self.assertEqual(self.source.settled, [])

    def test_reached_again(self) -> None:
        """A command that was refused in a short interruption is run after it."""
        self.generic.opened()
        self.source = self.sources[0]
        self.asterisk.error = AsteriskUnavailable("away")
        self.send("POST", "/channels/c/answer")
        self.generic.closed()
        self.clock.advance(1)
        self.asterisk.error = None
        self.generic.opened()
        self.assertEqual(self.values()[0]["payload"]["status_code"], 200)

    def test_taken_away_meanwhile(self) -> None:
        """What waits is not run here when its partition went to another node."""
        self.generic.opened()
        self.source = self.sources[0]
        self.asterisk.error = AsteriskUnavailable("away")
        record = self.send("POST", "/channels/c/answer")
        self.generic.closed()
        self.clock.advance(1)
        self.source.taken_away.append(record)
        self.asterisk.error = None
        self.generic.opened()
        self.assertEqual(len(self.asterisk.requests), 1)
        self.assertEqual(self.publisher.records, [])

    def test_unreachable_though_open(self) -> None:
        """Where the websocket stays open the command gets its reason."""
        self.generic.opened()
        self.source = self.sources[0]
        self.asterisk.error = AsteriskUnavailable("away")
        self.send("POST", "/channels/c/answer")
        self.clock.advance(NOTICED_AFTER)
        self.assertEqual(self.values()[0]["payload"]["status_code"], 500)
        self.assertEqual(len(self.source.settled), 1)

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


class MarkedGenericTests(GenericTests):
    """The same with commands that are run at most once."""

    marked = True

    def test_mark_withdrawn(self) -> None:
        """Another node may run what Asterisk was not asked here."""
        self.test_left_to_others()
        self.assertEqual(self.store.entries, {})
