"""Tests of ariproxy.events: order, and a store that is away."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.logger import LogLevel, capturedLogs

from ariproxy.callcontext import KEY_PREFIX
from tests.events_case import (
    AWAY,
    EventStreamCase,
    System,
    channel_event,
    event,
    stasis_start,
)


class OrderTests(EventStreamCase):
    """Look-ups end in any order, events leave as they came."""

    def test_waits_for_the_one_in_front(self) -> None:
        """A known call waits behind an event whose call is looked up."""
        self.system.receive(stasis_start("known", "a"))
        self.system.knows("c", "b")
        self.system.store.holding = True
        self.system.receive(
            channel_event("ChannelHold", "c"),
            channel_event("ChannelHold", "known"),
        )
        self.assertEqual(self.system.stream.waiting, 2)
        self.system.store.release()
        self.assertEqual(
            [context for _, context in self.system.passed()], ["a", "b", "a"]
        )
        self.assertEqual(self.system.stream.waiting, 0)

    def test_start_and_what_follows(self) -> None:
        """Events right behind the StasisStart that makes their call follow it."""
        self.system.store.holding = True
        self.system.receive(
            stasis_start("c"),
            channel_event("ChannelHold", "c"),
            channel_event("StasisEnd", "c"),
        )
        self.assertEqual(self.system.values(), [])
        self.system.store.release_all()
        self.assertEqual(
            self.system.passed(),
            [
                (each, "made-1")
                for each in ("STASIS_START", "CHANNEL_HOLD", "STASIS_END")
            ],
        )

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0, 0, 0.1])),
            max_size=40,
        ),
        st.sets(st.integers(0, 5)),
        st.randoms(use_true_random=False),
    )
    def test_arrival_order(
        self, arrivals: list[tuple[int, bool, float]], known: set[int], chance: Any
    ) -> None:
        """Whatever order the store answers in, events leave in order of arrival."""
        self.system = system = System()
        for number in known:
            system.knows(f"c{number}", f"ctx{number}")
        system.store.holding = True
        sent = []
        for number, (channel, starts, pause) in enumerate(arrivals):
            ari_type = "StasisStart" if starts else "ChannelDtmfReceived"
            system.receive(channel_event(ari_type, f"c{channel}", digit=number))
            sent.append(channel)
            while system.store.held and chance.random() < 0.4:
                system.store.release(chance.randrange(len(system.store.held)))
            system.clock.advance(pause if self._patient(system) else 0)
        while system.store.held:
            system.store.release(chance.randrange(len(system.store.held)))
        self.assertEqual(system.stream.waiting, 0)
        numbers = [each["payload"]["digit"] for each in system.values()]
        self.assertEqual(numbers, sorted(numbers))
        contexts = defaultdict(set)
        for value in system.values():
            contexts[sent[value["payload"]["digit"]]].add(value["callContext"])
        for channel, found in contexts.items():
            self.assertEqual(len(found), 1)
            if channel in known:
                self.assertEqual(found, {f"ctx{channel}"})
        dropped = system.counted("unrouted_")
        self.assertEqual(len(numbers) + dropped, len(arrivals))
        self.check_balance()

    @staticmethod
    def _patient(system: System) -> bool:
        """Whether all that is asked will be answered within the second."""
        calls = system.clock.getDelayedCalls()
        return (
            not calls or min(c.getTime() for c in calls) > system.clock.seconds() + 0.2
        )

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                st.sampled_from(["event", "event", "start", "pause"]),
                st.sampled_from(["well", "away", "hangs"]),
            ),
            max_size=40,
        ),
        st.randoms(use_true_random=False),
    )
    def test_order_of_each_call(
        self, steps: list[tuple[int, str, str]], chance: Any
    ) -> None:
        """With a store that comes and goes nothing is lost, or out of order."""
        self.system = system = System()
        for number in range(4):
            system.knows(f"c{number}", f"ctx{number}")
        sent = 0
        for number, (channel, what, state) in enumerate(steps):
            system.store.error = AWAY if state == "away" else None
            system.store.holding = state == "hangs"
            if what == "pause":
                system.clock.advance(chance.choice([0.1, 0.5, 1.0]))
            else:
                # A start has its call context with it: without, and without the
                # store, it would begin another call.
                given_context = {"CALL_CONTEXT": f"ctx{channel}"}
                found = {"id": f"c{channel}", "channelvars": given_context}
                ari_type = "StasisStart" if what == "start" else "ChannelDtmfReceived"
                system.receive(event(ari_type, channel=found, digit=number))
                sent += 1
            self.assertEqual(system.balance(), 0)
        system.store.error, system.store.holding = None, False
        system.store.release_all()
        system.clock.pump([0.5] * 12)
        self.assertEqual(system.stream.waiting, 0)
        self.assertEqual(len(system.values()), sent)
        for channel in range(4):
            numbers = [
                each["payload"]["digit"]
                for each in system.values()
                if each["callContext"] == f"ctx{channel}"
            ]
            self.assertEqual(numbers, sorted(numbers))


class StoreAwayTests(EventStreamCase):
    """A store that fails, hangs or comes back."""

    def test_start_while_it_fails(self) -> None:
        """A call starts at once, and is written when the store is back."""
        self.system.store.error = AWAY
        with capturedLogs():
            self.system.receive(stasis_start("c"), channel_event("ChannelHold", "c"))
        self.assertEqual(
            self.system.passed(),
            [("STASIS_START", "made-1"), ("CHANNEL_HOLD", "made-1")],
        )
        self.system.store.error = None
        self.system.clock.advance(1)
        self.assertEqual(self.system.store.entries, {KEY_PREFIX + "c": "made-1"})

    def test_start_while_it_hangs(self) -> None:
        """A call starts within a second, and so does what follows it."""
        for given_context, expected in ((None, "made-1"), ("given", "given")):
            self.system = System()
            self.system.store.holding = True
            self.system.receive(
                stasis_start("c", given_context), channel_event("ChannelHold", "c")
            )
            self.assertEqual(self.system.values(), [])
            self.system.clock.advance(1)
            self.assertEqual(
                self.system.passed(),
                [("STASIS_START", expected), ("CHANNEL_HOLD", expected)],
            )
            self.system.store.holding = False
            self.system.store.release_all()
            self.system.clock.pump([1, 1])
            self.assertEqual(self.system.store.entries, {KEY_PREFIX + "c": expected})
            self.check_balance()

    def test_held(self) -> None:
        """An event of an unknown call is held, and published when the store is back."""
        self.system.knows("c", "ctx")
        for hangs in (False, True):
            self.system.store.error = None if hangs else AWAY
            self.system.store.holding = hangs
            channel = f"c{hangs}"
            self.system.knows(channel, "ctx")
            self.system.publisher.records.clear()
            self.system.receive(
                channel_event("ChannelDtmfReceived", channel, digit=1),
                channel_event("ChannelDtmfReceived", channel, digit=2),
            )
            self.system.clock.advance(1)
            self.system.receive(channel_event("ChannelDtmfReceived", channel, digit=3))
            self.assertEqual(self.system.values(), [])
            self.assertEqual(self.system.stream.waiting, 3)
            self.check_balance()
            self.system.store.error, self.system.store.holding = None, False
            self.system.store.release_all()
            self.system.clock.pump([0.5, 0.5, 0.5])
            self.assertEqual(self.system.digits(), [1, 2, 3])
            self.assertEqual(self.system.stream.waiting, 0)

    def test_others_go_on(self) -> None:
        """A held event stands in nobody's way."""
        self.system.receive(stasis_start("known", "a"))
        self.system.store.error = AWAY
        self.system.receive(
            channel_event("ChannelHold", "c"), channel_event("ChannelHold", "known")
        )
        self.assertEqual(
            self.system.passed(), [("STASIS_START", "a"), ("CHANNEL_HOLD", "a")]
        )
        self.assertEqual(self.system.stream.waiting, 1)

    def test_error_is_not_absence(self) -> None:
        """A failed look-up of the main resource does not lead to the next one."""
        self.system.receive(stasis_start("c", "channel-call"))
        self.system.knows("b", "bridge-call")
        self.system.store.error = AWAY
        self.system.receive(
            event("ChannelEnteredBridge", bridge={"id": "b"}, channel={"id": "c"})
        )
        self.assertEqual(self.system.counted("unrouted_"), 0)
        self.system.store.error = None
        self.system.clock.advance(1)
        self.assertEqual(
            self.system.passed()[1], ("CHANNEL_ENTERED_BRIDGE", "bridge-call")
        )

    def test_absent_after_all(self) -> None:
        """A held event whose call the store does not know is counted and dropped."""
        self.system.store.error = AWAY
        self.system.receive(channel_event("ChannelHold", "c"))
        self.system.store.error = None
        self.system.clock.advance(1)
        self.assertEqual(self.system.counted("unrouted_"), 1)
        self.assertEqual(self.system.stream.waiting, 0)

    def test_held_leave_before_their_start(self) -> None:
        """A StasisStart that makes the call takes what is held of its channel along."""
        self.system.store.error = AWAY
        with capturedLogs():
            self.system.receive(
                channel_event("ChannelCreated", "c"),
                channel_event("ChannelVarset", "c"),
                stasis_start("c"),
                channel_event("ChannelHold", "c"),
            )
        names = ["CHANNEL_CREATED", "CHANNELVARSET", "STASIS_START", "CHANNEL_HOLD"]
        self.assertEqual(self.system.passed(), [(each, "made-1") for each in names])
        self.assertEqual(self.system.stream.waiting, 0)
        self.system.store.error = None
        self.system.clock.pump([1, 1])
        self.assertEqual(len(self.system.values()), 4)
        self.assertEqual(self.system.clock.getDelayedCalls(), [])

    def test_held_behind_their_start(self) -> None:
        """An event that comes after a StasisStart is not taken along by it."""
        self.system.store.error = AWAY
        self.system.receive(channel_event("ChannelDtmfReceived", "c", digit=1))
        self.system.store.holding = True
        self.system.receive(
            stasis_start("c", "ctx"),
            channel_event("ChannelDtmfReceived", "c", digit=2),
        )
        self.system.store.error, self.system.store.holding = None, False
        self.system.store.release_all()
        self.system.clock.pump([0.5] * 4)
        self.assertEqual(
            [each["type"] for each in self.system.values()],
            ["CHANNEL_DTMF_RECEIVED", "STASIS_START", "CHANNEL_DTMF_RECEIVED"],
        )

    def test_answered_while_another_is_held(self) -> None:
        """A later event whose look-up ends well stays behind a held one."""
        self.system.receive(stasis_start("x", "x"))
        self.system.knows("c", "ctx")
        self.system.knows("d", "ctx")
        self.system.store.holding = True
        self.system.receive(
            channel_event("ChannelDtmfReceived", "d", digit=0),
            channel_event("ChannelDtmfReceived", "c", digit=1),
        )
        self.system.store.release(1, AWAY)
        self.system.receive(channel_event("ChannelDtmfReceived", "c", digit=2))
        self.system.store.holding = False
        self.system.store.release_all()
        self.system.clock.pump([0.5] * 4)
        self.assertEqual(self.system.digits(), [0, 1, 2])

    def test_bound(self) -> None:
        """Beyond the bound events are lost: counted, and told in one line."""
        self.system = System(held=3)
        self.system.store.error = AWAY
        with capturedLogs() as logs:
            for number in range(10):
                self.system.receive(
                    channel_event("ChannelDtmfReceived", f"c{number % 2}", digit=number)
                )
        self.assertEqual(self.system.stream.waiting, 3)
        self.assertEqual(self.system.counted("dropped_", reason="buffer-full"), 7)
        told = [each for each in logs if each["log_level"] is LogLevel.error]
        self.assertEqual(len(told), 1)
        self.assertEqual(told[0]["event_type"], "CHANNEL_DTMF_RECEIVED")
        self.system.knows("c0", "a")
        self.system.knows("c1", "b")
        self.system.store.error = None
        self.system.clock.advance(1)
        self.assertEqual(sorted(self.system.digits()), [0, 1, 2])

    def test_drain(self) -> None:
        """It waits for what waits for the store, and tells what still does."""
        self.system.knows("c", "ctx")
        self.system.store.error = AWAY
        self.system.receive(channel_event("ChannelHold", "c"))
        drained = ensureDeferred(self.system.stream.drain(2.0))
        self.system.clock.pump([0.05] * 10)
        self.assertNoResult(drained)
        self.system.store.error = None
        self.system.clock.pump([0.05] * 15)
        self.assertEqual(self.successResultOf(drained), 0)
        self.system.store.error = AWAY
        self.system.receive(channel_event("ChannelHold", "d"))
        drained = ensureDeferred(self.system.stream.drain(2.0))
        self.system.clock.pump([0.05] * 45)
        self.assertEqual(self.successResultOf(drained), 1)


class EndTests(EventStreamCase):
    """What becomes of the entry of a resource that has ended."""

    def test_forgotten_after_a_while(self) -> None:
        """Late events still find their call; later the entry is gone."""
        for name, resource in (
            ("ChannelDestroyed", {"channel": {"id": "x"}}),
            ("BridgeDestroyed", {"bridge": {"id": "x"}}),
            ("PlaybackFinished", {"playback": {"id": "x"}}),
            ("RecordingFinished", {"recording": {"name": "x"}}),
            ("RecordingFailed", {"recording": {"name": "x"}}),
        ):
            self.system.knows("x", "call")
            self.system.receive(event(name, **resource))
            self.system.clock.advance(299)
            self.assertIn(KEY_PREFIX + "x", self.system.store.entries)
            self.system.clock.advance(2)
            self.assertNotIn(KEY_PREFIX + "x", self.system.store.entries)

    def test_stasis_end_is_no_end(self) -> None:
        """A channel may come back."""
        self.system.knows("x", "call")
        self.system.receive(event("StasisEnd", channel={"id": "x"}))
        self.system.clock.advance(1000)
        self.assertIn(KEY_PREFIX + "x", self.system.store.entries)
