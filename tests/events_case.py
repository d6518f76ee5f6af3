"""An event stream among fakes, for the tests of ariproxy.events."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.callcontext import KEY_PREFIX, CallContexts
from ariproxy.errors import (
    StoreUnavailable,
)
from ariproxy.events import EventStream
from ariproxy.store.cached import CachedStore
from tests.fakes import FakeStore, MemoryPublisher, counted, make_metrics

AWAY = StoreUnavailable("connection refused")


def event(ari_type: Any, **fields: Any) -> bytes:
    """An event as Asterisk sends it."""
    return json.dumps({"type": ari_type, **fields}, separators=(",", ":")).encode()


def channel_event(ari_type: str, channel_id: Any, **fields: Any) -> bytes:
    """An event of a channel."""
    return event(ari_type, channel={"id": channel_id}, **fields)


def stasis_start(channel_id: Any, call_context: Any = None) -> bytes:
    """A StasisStart, with the channel variable if there is one."""
    channel: dict[str, Any] = {"id": channel_id}
    if call_context is not None:
        channel["channelvars"] = {"CALL_CONTEXT": call_context}
    return event("StasisStart", args=[], channel=channel)


class System:
    """An event stream among fakes; what it does can be read from them."""

    def __init__(self, held: int = 100, verbose: bool = False) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.publisher = MemoryPublisher()
        self.metrics = make_metrics(self.clock)
        self.replaced: list[bool] = []
        self.started: list[str] = []
        made = count(1)
        cache = CachedStore(self.store, 1000, 3600, self.clock.seconds, self.metrics)
        self.contexts = CallContexts(
            cache, self.clock, lambda: f"made-{next(made)}", 300.0
        )
        self.rest_answers: list[Any] = []
        self.stream = EventStream(
            application="demo",
            topic="ari-events",
            commands_topic="ari-commands",
            contexts=self.contexts,
            publisher=self.publisher,
            metrics=self.metrics,
            clock=self.clock,
            replaced=lambda: self.replaced.append(True),
            started=self.started.append,
            rest_answered=self.rest_answers.append,
            held=held,
            verbose=verbose,
        )

    def knows(self, resource_id: str, call_context: str) -> None:
        """The store holds an entry that is not in the cache."""
        self.store.entries[KEY_PREFIX + resource_id] = call_context

    def receive(self, *messages: bytes) -> None:
        """Messages of the websocket, one after the other."""
        for message in messages:
            self.stream.receive(message)

    def values(self) -> list[dict[str, Any]]:
        """The records that were published, parsed."""
        return [json.loads(each.value or b"") for each in self.publisher.records]

    def passed(self) -> list[tuple[str, str]]:
        """Type and call context of what was published."""
        return [(each["type"], each["callContext"]) for each in self.values()]

    def digits(self) -> list[Any]:
        """The digits of the DTMF events that were published."""
        return [
            each["payload"]["digit"]
            for each in self.values()
            if each["type"] == "CHANNEL_DTMF_RECEIVED"
        ]

    def counted(self, name: str, **labels: str) -> int:
        """What a metric of events says."""
        return counted(self.metrics, f"ari_proxy_events_{name}total", **labels)

    def balance(self) -> int:
        """How many events are in no book; more than 0 means lost in silence."""
        return (
            self.counted("")
            - self.counted("published_")
            - self.counted("unrouted_")
            - self.counted("dropped_")
            - self.stream.waiting
            - self.publisher.waiting()
        )


class EventStreamCase(SynchronousTestCase):
    """One system; at the end of each test its books must balance."""

    def setUp(self) -> None:
        """A system whose parts all work."""
        self.system = System()
        self.addCleanup(self.check_balance)

    def check_balance(self) -> None:
        """received = published + unrouted + dropped + waiting."""
        self.assertEqual(self.system.balance(), 0)
