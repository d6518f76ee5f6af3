"""Tests of ariproxy.callcontext."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ariproxy import callcontext
from ariproxy.callcontext import (
    KEY_PREFIX,
    PATIENCE,
    RETRY_AFTER,
    CallContexts,
    Registration,
)
from ariproxy.errors import StoreRefused, StoreUnavailable
from ariproxy.store.cached import CachedStore
from tests.fakes import FakeStore, make_metrics

AWAY = StoreUnavailable("connection refused")


class CallContextsCase(SynchronousTestCase):
    """A map over a store that does what the test says."""

    def setUp(self) -> None:
        """An empty store behind an empty cache."""
        self.clock = Clock()
        self.store = FakeStore()
        self.made = 0
        self.contexts = self.make()

    def make(self, size: int = 1000) -> CallContexts:
        """A proxy that has just started, over the store as it is."""
        cache = CachedStore(
            self.store, size, 3600, self.clock.seconds, make_metrics(self.clock)
        )
        return CallContexts(cache, self.clock, self.new_id, 300.0)

    def new_id(self) -> str:
        """made-1, made-2, ..."""
        self.made += 1
        return f"made-{self.made}"

    def now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of something that needs no waiting."""
        return self.successResultOf(ensureDeferred(coroutine))

    def stored(self) -> dict[str, str]:
        """What the store holds, without the prefix of its keys."""
        return {
            key.removeprefix(KEY_PREFIX): value
            for key, value in self.store.entries.items()
        }

    def put(self, resource_id: str, call_context: str) -> None:
        """An entry that another process has written."""
        self.store.entries[KEY_PREFIX + resource_id] = call_context


class FindTests(CallContextsCase):
    """Looking up."""

    def test_prefix(self) -> None:
        """Keys are those of the original, so that entries carry over."""
        self.store.entries["ari-proxy:call-context-provider:c"] = "ctx"
        self.assertEqual(self.now(self.contexts.find("c")), "ctx")

    def test_known_without_waiting(self) -> None:
        """What was found once is known without asking the store."""
        self.put("c", "ctx")
        self.assertIsNone(self.contexts.peek("c"))
        self.now(self.contexts.find("c"))
        self.assertEqual(self.contexts.peek("c"), "ctx")
        self.assertEqual(self.store.calls, [("get", KEY_PREFIX + "c")])

    def test_absent(self) -> None:
        """None only when the store has said so."""
        self.assertIsNone(self.now(self.contexts.find("c")))

    def test_errors(self) -> None:
        """A store that fails, refuses or hangs is an error, never absence."""
        for error in (AWAY, StoreRefused("disk full")):
            self.store.error = error
            found = ensureDeferred(self.contexts.find("c"))
            self.assertIs(self.failureResultOf(found).value, error)
        self.store.holding = True
        found = ensureDeferred(self.contexts.find("c"))
        self.clock.advance(PATIENCE - 0.01)
        self.assertNoResult(found)
        self.clock.advance(0.01)
        self.failureResultOf(found, StoreUnavailable)

    def test_made_meanwhile(self) -> None:
        """An entry made while the store was asked is found, hang or failure."""
        for release in (True, False):
            resource = f"c{release}"
            self.store.holding = True
            found = ensureDeferred(self.contexts.find(resource))
            self.store.holding = False
            self.now(self.contexts.start(resource, "ctx"))
            if release:
                self.store.release_all()
            else:
                self.clock.advance(PATIENCE)
            self.assertEqual(self.successResultOf(found), "ctx")


class StartTests(CallContextsCase):
    """The call context of a channel that enters the application."""

    def test_given(self) -> None:
        """The channel variable is used and stored, and beats the stored one."""
        self.assertEqual(self.now(self.contexts.start("c", "given")), "given")
        self.assertEqual(self.stored(), {"c": "given"})
        self.assertEqual(self.now(self.contexts.start("c", "newer")), "newer")
        self.put("d", "stored")
        self.assertEqual(self.now(self.contexts.start("d", "given")), "given")
        self.assertEqual(self.stored(), {"c": "newer", "d": "given"})
        self.assertEqual(self.made, 0)

    def test_stored(self) -> None:
        """Without the variable the stored one is used, and not written again."""
        self.put("c", "stored")
        self.assertEqual(self.now(self.contexts.start("c", "")), "stored")
        self.assertEqual(self.store.calls, [("get", KEY_PREFIX + "c")])

    def test_new(self) -> None:
        """Without both a new one is made, and stored before the event goes on."""
        self.store.holding = True
        started = ensureDeferred(self.contexts.start("c", ""))
        self.store.release()
        self.assertNoResult(started)
        self.store.release()
        self.assertEqual(self.successResultOf(started), "made-1")
        self.assertEqual(self.stored(), {"c": "made-1"})

    def test_two_at_once(self) -> None:
        """Two events that start one channel make one call context."""
        self.store.holding = True
        started = [ensureDeferred(self.contexts.start("c", "")) for _ in range(2)]
        self.store.release_all()
        self.assertEqual(
            [self.successResultOf(each) for each in started], ["made-1"] * 2
        )

    def test_store_away(self) -> None:
        """The call is served at once, and written when the store returns."""
        self.store.error = AWAY
        with capturedLogs() as logs:
            self.assertEqual(self.now(self.contexts.start("c", "")), "made-1")
            self.assertEqual(self.now(self.contexts.start("d", "given")), "given")
        warned = [e["log_format"] for e in logs if e["log_level"] is LogLevel.warn]
        self.assertEqual(len(warned), 1)
        self.assertEqual(self.contexts.peek("c"), "made-1")
        self.assertEqual(self.contexts.unwritten, 2)
        self.store.error = None
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "made-1", "d": "given"})
        self.assertEqual(self.contexts.unwritten, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_store_hangs(self) -> None:
        """The store costs the call a second in all, not one for each question."""
        self.store.holding = True
        for given in ("", "given"):
            started = ensureDeferred(self.contexts.start("c" + given, given))
            self.clock.advance(PATIENCE)
            self.assertEqual(self.successResultOf(started), given or "made-1")

    def test_late_answer(self) -> None:
        """An answer that comes after a new one was made does not change it."""
        self.put("c", "stored")
        self.store.holding = True
        started = ensureDeferred(self.contexts.start("c", ""))
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(started), "made-1")
        self.store.holding = False
        self.store.release_all()
        self.assertEqual(self.contexts.peek("c"), "made-1")
        self.assertEqual(self.now(self.contexts.find("c")), "made-1")
        self.clock.advance(RETRY_AFTER + PATIENCE)
        self.assertEqual(self.stored(), {"c": "made-1"})

    def test_one_line_for_many(self) -> None:
        """A store that is away for many calls is one line."""
        self.store.error = AWAY
        with capturedLogs() as logs:
            for number in range(50):
                self.now(self.contexts.start(str(number), ""))
        warned = [each for each in logs if each["log_level"] is not LogLevel.debug]
        self.assertEqual(len(warned), 1)


class RegisterTests(CallContextsCase):
    """Entries of commands that create resources."""

    def test_accepted(self) -> None:
        """A free id is entered before the request, and stays."""
        registration = self.now(self.contexts.register(["c", "o"], "ctx"))
        self.assertEqual(self.stored(), {"c": "ctx", "o": "ctx"})
        self.now(self.contexts.accepted(registration))
        self.assertEqual(self.stored(), {"c": "ctx", "o": "ctx"})

    def test_refused(self) -> None:
        """What was new is taken back from the store and from the cache."""
        registration = self.now(self.contexts.register(["c", "o"], "ctx"))
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.stored(), {})
        self.assertIsNone(self.contexts.peek("c"))

    def test_nothing_to_register(self) -> None:
        """A command that creates nothing asks the store nothing."""
        registration = self.now(self.contexts.register([], "ctx"))
        self.assertEqual(registration, Registration("ctx", [], []))
        self.now(self.contexts.accepted(registration))
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.store.calls, [])

    def test_repeated(self) -> None:
        """A repeated command that Asterisk refuses (409) takes nothing back."""
        self.put("c", "ctx")
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.stored(), {"c": "ctx"})

    def test_no_theft(self) -> None:
        """Another call's id changes hands only if Asterisk accepts."""
        self.put("c", "other")
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.assertEqual(self.now(self.contexts.find("c")), "other")
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.stored(), {"c": "other"})
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.now(self.contexts.accepted(registration))
        self.assertEqual(self.stored(), {"c": "ctx"})
        self.assertEqual(self.contexts.peek("c"), "ctx")

    def test_no_theft_while_away(self) -> None:
        """A store that does not say whose an id is does not make it ours."""
        self.put("c", "other")
        self.store.error = AWAY
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.assertEqual(self.contexts.peek("c"), "ctx")
        self.store.error = None
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "other"})
        self.now(self.contexts.refused(registration))
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "other"})
        self.assertEqual(self.now(self.contexts.find("c")), "other")

    def test_accepted_while_away(self) -> None:
        """Events of the new channel find their call at once; it is written later."""
        self.store.error = AWAY
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.assertEqual(self.now(self.contexts.start("c", "")), "ctx")
        self.now(self.contexts.accepted(registration))
        self.assertEqual(self.now(self.contexts.find("c")), "ctx")
        self.store.error = None
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "ctx"})
        self.assertEqual(self.made, 0)

    def test_taken_over_meanwhile(self) -> None:
        """An entry that went to another call meanwhile is not taken back."""
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.now(self.contexts.start("c", "given"))
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.stored(), {"c": "given"})

    def test_refused_while_away(self) -> None:
        """What cannot be taken back is told; it is not written later."""
        registration = self.now(self.contexts.register(["c"], "ctx"))
        self.store.error = AWAY
        with capturedLogs() as logs:
            self.now(self.contexts.refused(registration))
        self.assertEqual([e["resource_id"] for e in logs], ["c"])
        self.assertIsNone(self.contexts.peek("c"))
        self.assertEqual(self.contexts.unwritten, 0)

    def test_write_fails(self) -> None:
        """An id that is free but not taken by the store is written later."""
        self.store.holding = True
        registering = ensureDeferred(self.contexts.register(["c"], "ctx"))
        self.store.release()
        self.store.release(0, AWAY)
        registration = self.successResultOf(registering)
        self.store.holding = False
        self.assertEqual(self.contexts.peek("c"), "ctx")
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "ctx"})
        self.now(self.contexts.refused(registration))
        self.assertEqual(self.stored(), {})


class UnwrittenTests(CallContextsCase):
    """Entries that wait for the store."""

    def test_known_without_cache(self) -> None:
        """An entry that waits is known, also if the cache has let go of it."""
        contexts = self.make(size=1)
        self.store.error = AWAY
        self.now(contexts.start("a", "ctx-a"))
        self.now(contexts.start("b", "ctx-b"))
        self.assertEqual((contexts.peek("a"), contexts.peek("b")), ("ctx-a", "ctx-b"))

    def test_newer_goes_before(self) -> None:
        """A late write never replaces what was written since."""
        self.store.error = AWAY
        for resource in ("x", "c"):
            self.now(self.contexts.start(resource, "old"))
        self.store.error = None
        self.store.holding = True
        self.clock.advance(RETRY_AFTER)
        newer = ensureDeferred(self.contexts.start("c", "new"))
        self.store.release_all()
        self.assertEqual(self.successResultOf(newer), "new")
        self.assertEqual(self.stored(), {"x": "old", "c": "new"})
        self.assertEqual(self.contexts.peek("c"), "new")
        self.store.holding = False
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"x": "old", "c": "new"})

    def test_one_refused_for_ever(self) -> None:
        """An entry that no store takes does not hold up the others."""
        self.store.error = AWAY
        for resource in ("bad", "a", "b"):
            self.now(self.contexts.start(resource, "ctx"))
        self.store.error = None
        self.store.refuse = lambda key: (
            StoreRefused("no valid Unicode") if key.endswith("bad") else None
        )
        self.clock.pump([RETRY_AFTER] * 3)
        self.assertEqual(self.stored(), {"a": "ctx", "b": "ctx"})
        self.assertEqual(self.contexts.unwritten, 1)

    def test_one_loop(self) -> None:
        """Entries that come and go while the store is away make one loop."""
        self.store.error = AWAY
        with capturedLogs() as logs:
            for number in range(5):
                self.now(self.contexts.start("c", f"ctx-{number}"))
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        told = [each for each in logs if each["log_level"] is LogLevel.warn]
        self.assertEqual(len(told), 1)

    def test_hangs_then_returns(self) -> None:
        """A store that hangs is asked again and again, by one write at a time."""
        self.store.holding = True
        started = [
            ensureDeferred(self.contexts.start(each, "ctx")) for each in ("a", "b")
        ]
        self.clock.pump([0.5] * 20)
        self.assertTrue(all(each.called for each in started))
        self.store.holding = False
        self.store.release_all()
        self.clock.pump([0.5] * 6)
        self.assertEqual(self.stored(), {"a": "ctx", "b": "ctx"})
        self.assertEqual(self.contexts.unwritten, 0)

    def test_bounded(self) -> None:
        """Beyond the limit the oldest are given up, and that is told."""
        self.patch(callcontext, "UNWRITTEN_LIMIT", 3)
        self.store.error = AWAY
        with capturedLogs() as logs:
            for number in range(5):
                self.now(self.contexts.start(str(number), "ctx"))
        self.assertEqual(self.contexts.unwritten, 3)
        lost = [each for each in logs if each["log_level"] is LogLevel.error]
        self.assertEqual([each["resource_id"] for each in lost], ["0"])
        self.store.error = None
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(set(self.stored()), {"2", "3", "4"})

    def test_at_the_end(self) -> None:
        """One last attempt can be made before the store is closed."""
        self.store.error = AWAY
        self.now(self.contexts.start("c", "ctx"))
        self.store.error = None
        self.now(self.contexts.write_unwritten())
        self.assertEqual(self.stored(), {"c": "ctx"})

    def test_late_success_of_an_older_write(self) -> None:
        """It does not make the proxy forget that a newer one is not written."""
        self.store.holding = True
        older: Deferred[str] = ensureDeferred(self.contexts.start("c", "old"))
        newer: Deferred[str] = ensureDeferred(self.contexts.start("c", "new"))
        self.store.release(1, AWAY)
        self.store.release()
        self.assertTrue(older.called and newer.called)
        self.store.holding = False
        self.clock.advance(RETRY_AFTER)
        self.assertEqual(self.stored(), {"c": "new"})


class EndedTests(CallContextsCase):
    """Ids of resources that have ended."""

    def setUp(self) -> None:
        super().setUp()
        self.put("greeting", "old")
        self.now(self.contexts.find("greeting"))
        self.contexts.ended("greeting")

    def register(self, call_context: str) -> Registration:
        found: Registration = self.now(
            self.contexts.register(["greeting"], call_context)
        )
        return found

    def test_used_by_another_call(self) -> None:
        """The name is the other call's at once, and stays so."""
        self.assertEqual(self.register("new").made, ["greeting"])
        self.assertEqual(self.stored(), {"greeting": "new"})
        self.clock.advance(1000)
        self.assertEqual(self.contexts.peek("greeting"), "new")
        self.assertEqual(self.stored(), {"greeting": "new"})

    def test_used_again_by_the_same_call(self) -> None:
        """The entry outlives the end of the first."""
        self.register("old")
        self.clock.advance(1000)
        self.assertEqual(self.stored(), {"greeting": "old"})

    def test_store_away_when_due(self) -> None:
        """The store's ttl does it then; nobody is troubled."""
        self.store.error = AWAY
        self.clock.advance(300)
        self.assertIsNone(self.contexts.peek("greeting"))

    def test_stop(self) -> None:
        """Nothing is planned any more."""
        self.contexts.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
