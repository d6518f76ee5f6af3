"""Tests of ariproxy.events: events that are lost, and why."""

from __future__ import annotations

from twisted.logger import LogLevel, capturedLogs

from ariproxy.errors import (
    BufferFull,
    PublishFailed,
    RecordTooLarge,
)
from tests.events_case import (
    AWAY,
    EventStreamCase,
    channel_event,
    stasis_start,
)


class LossTests(EventStreamCase):
    """Events that Kafka does not take."""

    def test_reasons(self) -> None:
        """Each loss is counted under its reason and told, once per 10 s."""
        self.system.receive(stasis_start("c", "ctx"))
        for error, reason in (
            (BufferFull("100000 records wait"), "buffer-full"),
            (RecordTooLarge("2 MB"), "too-large"),
            (PublishFailed("closed"), "not-taken"),
        ):
            self.system.publisher.refuse = lambda _, error=error: error
            with capturedLogs() as logs:
                self.system.receive(*[channel_event("ChannelHold", "c")] * 5)
                self.system.clock.advance(9.9)
                self.system.receive(channel_event("ChannelHold", "c"))
                self.system.clock.advance(0.1)
                self.system.receive(channel_event("ChannelHold", "c"))
            self.assertEqual(self.system.counted("dropped_", reason=reason), 7)
            told = [each for each in logs if each["log_level"] is LogLevel.error]
            self.assertEqual([each["count"] for each in told], [1, 6])
            self.assertEqual(told[0]["resource_id"], "c")
            self.assertEqual(told[0]["call_context"], "ctx")
            self.assertIs(told[0]["error"], error)

    def test_settled_later(self) -> None:
        """An event counts as published when Kafka has acknowledged it."""
        self.system.publisher.holding = True
        self.system.receive(stasis_start("c", "ctx"), channel_event("StasisEnd", "c"))
        self.assertEqual(self.system.counted("published_"), 0)
        self.check_balance()
        with capturedLogs():
            self.system.publisher.release(0, PublishFailed("timed out"))
        self.system.publisher.release()
        self.assertEqual(self.system.counted("published_"), 1)
        self.assertEqual(self.system.counted("dropped_", reason="not-taken"), 1)


class DefectTests(EventStreamCase):
    """A defect of ours costs one event, not the stream."""

    def test_started_fails(self) -> None:
        """The event is counted, logged as a failure, and those behind go on."""

        def broken() -> str:
            raise KeyError("defect")

        self.system.contexts._new_id = broken
        self.system.receive(stasis_start("c"), stasis_start("d", "given"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.system.passed(), [("STASIS_START", "given")])
        self.assertEqual(self.system.counted("dropped_", reason="defect"), 1)

    def test_look_up_fails(self) -> None:
        """The same for the look-ups of events, held ones too."""
        self.system.store.error = AWAY
        self.system.receive(*[channel_event("ChannelHold", "held")] * 3)
        self.system.store.error = KeyError("defect")
        self.system.receive(channel_event("ChannelHold", "c"))
        self.system.clock.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 2)
        self.assertEqual(self.system.counted("dropped_", reason="defect"), 4)
        self.assertEqual(self.system.stream.waiting, 0)
        self.system.store.error = None
        self.system.knows("held", "ctx")
        self.system.receive(channel_event("ChannelHold", "held"))
        self.assertEqual(self.system.passed(), [("CHANNEL_HOLD", "ctx")])
