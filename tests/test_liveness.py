"""Tests of ariproxy.liveness."""

from __future__ import annotations

import json

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.callcontext import KEY_PREFIX
from ariproxy.errors import AsteriskUnavailable, StoreUnavailable
from ariproxy.liveness import Liveness
from tests.fakes import FakeAsterisk, FakeStore


class LivenessTests(SynchronousTestCase):
    """Entries of what lives are refreshed, whatever else goes wrong."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asterisk = FakeAsterisk()
        self.asterisk.respond = self.respond
        self.live: dict[str, list[str]] = {"/channels": [], "/bridges": []}
        self.store = FakeStore()
        self.liveness = Liveness(self.asterisk, self.store, self.clock, 30.0)
        self.addCleanup(self.liveness.stop)

    def respond(self, request: AsteriskRequest) -> AsteriskAnswer:
        body = json.dumps([{"id": each} for each in self.live[request.url]]).encode()
        return AsteriskAnswer(200, body, "application/json", len(body))

    def refreshed(self) -> list[str]:
        """The ids that were refreshed since the last question."""
        keys = [key for operation, key in self.store.calls if operation == "refresh"]
        self.store.calls.clear()
        return sorted(key.removeprefix(KEY_PREFIX) for key in keys)

    def test_at_once_and_again(self) -> None:
        """At the start, and three times in each ttl."""
        self.live = {"/channels": ["c1", "c2"], "/bridges": ["b"]}
        self.liveness.start()
        self.assertEqual(self.refreshed(), ["b", "c1", "c2"])
        self.clock.advance(9.9)
        self.assertEqual(self.refreshed(), [])
        self.live["/channels"] = ["c2"]
        self.clock.advance(0.2)
        self.assertEqual(self.refreshed(), ["b", "c2"])

    def test_start_again(self) -> None:
        """A second start makes a round at once, and no second series."""
        self.live["/channels"] = ["c"]
        self.liveness.start()
        self.clock.advance(5)
        self.liveness.start()
        self.assertEqual(self.refreshed(), ["c", "c"])
        self.clock.advance(10)
        self.assertEqual(self.refreshed(), ["c"])

    def test_start_again_in_a_round(self) -> None:
        """Nor is there a second series where a round was under way."""
        self.live["/channels"] = ["c"]
        self.store.holding = True
        self.liveness.start()
        self.liveness.start()
        self.store.holding = False
        self.store.release_all()
        self.refreshed()
        self.clock.advance(10)
        self.assertEqual(self.refreshed(), ["c"])
        self.liveness.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """Nothing is planned any more."""
        self.liveness.start()
        self.liveness.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_asterisk_away(self) -> None:
        """The next round makes good for it."""
        self.live["/channels"] = ["c"]
        self.asterisk.error = AsteriskUnavailable("away")
        self.liveness.start()
        self.assertEqual(self.refreshed(), [])
        self.asterisk.error = None
        self.clock.advance(10)
        self.assertEqual(self.refreshed(), ["c"])

    def test_strange_answers(self) -> None:
        """What is no list of resources is taken for none."""
        self.liveness.start()
        for status, body in (
            (404, b"[]"),
            (200, b"{}"),
            (200, b"["),
            (200, b'[{},1,{"id":7}]'),
        ):
            answer = AsteriskAnswer(status, body, None, len(body))
            self.asterisk.respond = lambda request, answer=answer: answer
            self.clock.advance(10)
        self.assertEqual(self.refreshed(), ["7", "7"])

    def test_store_away(self) -> None:
        """It is tried in the next round again."""
        self.live["/channels"] = [f"c{number}" for number in range(50)]
        self.store.error = StoreUnavailable("away")
        self.liveness.start()
        self.assertLessEqual(len(self.refreshed()), 20)
        self.store.error = None
        self.clock.advance(10)
        self.assertEqual(len(self.refreshed()), 50)

    def test_bounded(self) -> None:
        """A slow store is not asked for everything at once."""
        self.live["/channels"] = [f"c{number}" for number in range(50)]
        self.store.holding = True
        self.liveness.start()
        self.assertEqual(len(self.store.held), 20)
        self.store.release_all()
        self.assertEqual(len(self.refreshed()), 50)
