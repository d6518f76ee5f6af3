"""Stand-ins for everything outside the core, each behind its real interface.

They answer at once unless a test says otherwise: ``error`` makes every call
fail with it, ``holding`` keeps calls until ``release``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.ari.resources import EVENT_TYPES, UNKNOWN_EVENT
from ariproxy.errors import PublishFailed
from ariproxy.interfaces import IAsterisk, IPublisher, IRecordSource, IStore
from ariproxy.kafka.records import IncomingRecord, OutgoingRecord
from ariproxy.metrics import Metrics

Settled = Callable[[Exception | None], None]

KINDS = {
    each.name: each.kind or "NONE" for each in (*EVENT_TYPES.values(), UNKNOWN_EVENT)
}


def make_metrics(clock: Clock, app: str = "demo") -> Metrics:
    """Metrics as a site without settings of its own has them."""
    return Metrics(
        app=app,
        common_tags={},
        availability_name="backing_service_availability",
        event_types=KINDS,
        clock=clock,
    )


def counted(metrics: Metrics, name: str, **labels: str) -> int:
    """What a page of metrics says: the sum of a counter's samples with the labels."""
    total = 0.0
    for family in metrics.collect():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                total += sample.value
    return int(total)


@implementer(IPublisher)
class MemoryPublisher:
    """Keeps the records that it takes.

    :ivar records: what was published and not refused, in order.
    :ivar refuse: gives the error for a record, ``None`` to take it.
    """

    name = "kafka"

    def __init__(self) -> None:
        self.records: list[OutgoingRecord] = []
        self.taken = 0
        self.refuse: Callable[[OutgoingRecord], Exception | None] = lambda _: None
        self.holding = False
        self.held: list[tuple[OutgoingRecord, Settled]] = []
        self.error: Exception | None = None
        self.closed = False

    def publish(self, record: OutgoingRecord, settled: Settled) -> None:
        """Settle the record at once, or on ``release``."""
        self.taken += 1
        if self.holding:
            self.held.append((record, settled))
        else:
            self._settle(record, settled, self.refuse(record))

    def release(self, index: int = 0, error: Exception | None = None) -> None:
        """Settle one of the held records."""
        self._settle(*self.held.pop(index), error)

    def release_all(self) -> None:
        """Settle all held records well, in order."""
        while self.held:
            self.release()

    def _settle(
        self, record: OutgoingRecord, settled: Settled, error: Exception | None
    ) -> None:
        if error is None:
            self.records.append(record)
        settled(error)

    def waiting(self) -> int:
        """How many records are held."""
        return len(self.held)

    def flush(self, timeout: float) -> Deferred[int]:
        """Nothing to wait for: held records are released by the test alone."""
        return succeed(len(self.held))

    def check(self) -> Deferred[None]:
        """All is well unless ``error`` is set."""
        return succeed(None) if self.error is None else fail(self.error)

    def close(self) -> Deferred[None]:
        """What is held fails."""
        self.closed = True
        while self.held:
            self.release(error=PublishFailed("the publisher is closed"))
        return succeed(None)


@implementer(IRecordSource)
class FakeSource:
    """Hands over the records that the test delivers.

    :ivar taken_away: records whose partition belongs to somebody else by now.
    """

    def __init__(self) -> None:
        self._receive: Callable[[Sequence[IncomingRecord]], None] | None = None
        self.settled: list[IncomingRecord] = []
        self.claimed: list[IncomingRecord] = []
        self.taken_away: list[IncomingRecord] = []
        self.paused = False
        self.stopped = False

    def start(self, receive: Callable[[Sequence[IncomingRecord]], None]) -> None:
        """Remember who takes the records."""
        self._receive = receive

    def deliver(self, *records: IncomingRecord) -> None:
        """Give a batch to the consumer of the records."""
        assert self._receive is not None, "start was not called"
        if not self.stopped:
            self._receive(records)

    def settle(self, record: IncomingRecord) -> None:
        """Note it."""
        self.settled.append(record)

    def claim(self, record: IncomingRecord) -> bool:
        """Ours, unless it is among those that were taken away."""
        self.claimed.append(record)
        return record not in self.taken_away

    def pause(self) -> None:
        """Note it."""
        self.paused = True

    def resume(self) -> None:
        """Note it."""
        self.paused = False

    def stop(self) -> Deferred[None]:
        """Deliver no more."""
        self.stopped = True
        return succeed(None)


def _fine(request: AsteriskRequest) -> AsteriskAnswer:
    return AsteriskAnswer(200, b"{}", "application/json", 2)


@implementer(IAsterisk)
class FakeAsterisk:
    """Answers every request with what ``respond`` gives for it.

    :ivar requests: what was asked, in order.
    """

    name = "asterisk"

    def __init__(self) -> None:
        self.requests: list[AsteriskRequest] = []
        self.respond: Callable[[AsteriskRequest], AsteriskAnswer] = _fine
        self.error: Exception | None = None
        self.holding = False
        self.held: list[tuple[AsteriskRequest, Deferred[AsteriskAnswer]]] = []

    def request(self, request: AsteriskRequest) -> Deferred[AsteriskAnswer]:
        """Note the request, and answer or fail now or on ``release``."""
        self.requests.append(request)
        if self.holding:
            answer: Deferred[AsteriskAnswer] = Deferred()
            self.held.append((request, answer))
            return answer
        if self.error is not None:
            return fail(self.error)
        return succeed(self.respond(request))

    def release(self, index: int = 0, error: Exception | None = None) -> None:
        """Answer one of the held requests, or fail it."""
        request, answer = self.held.pop(index)
        if error is None:
            answer.callback(self.respond(request))
        else:
            answer.errback(error)

    def check(self) -> Deferred[None]:
        """All is well unless ``error`` is set."""
        return succeed(None) if self.error is None else fail(self.error)


@implementer(IStore)
class FakeStore:
    """A store that may hang, fail or answer late.

    A held call takes effect when it is released.

    :ivar entries: what it holds.
    :ivar calls: what was asked, as (operation, key).
    :ivar refuse: gives the error for a key, ``None`` to serve it.
    """

    name = "redis"

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.refuse: Callable[[str], Exception | None] = lambda _: None
        self.holding = False
        self.held: list[tuple[str, str, Callable[[], Any], Deferred[Any]]] = []
        self.closed = False

    def get(self, key: str) -> Deferred[str | None]:
        """The entry."""
        return self._call("get", key, lambda: self.entries.get(key))

    def set(self, key: str, value: str) -> Deferred[None]:
        """Write the entry."""
        return self._call("set", key, lambda: self.entries.update({key: value}))

    def refresh(self, key: str) -> Deferred[None]:
        """Entries do not expire."""
        return self._call("refresh", key, lambda: None)

    def forget(self, key: str) -> Deferred[None]:
        """Remove the entry."""

        def forget() -> None:
            self.entries.pop(key, None)

        return self._call("forget", key, forget)

    def check(self) -> Deferred[None]:
        """As all other calls."""
        return self._call("check", "", lambda: None)

    def close(self) -> Deferred[None]:
        """Note it."""
        self.closed = True
        return succeed(None)

    def _call(
        self, operation: str, key: str, action: Callable[[], Any]
    ) -> Deferred[Any]:
        self.calls.append((operation, key))
        if self.holding:
            answer: Deferred[Any] = Deferred()
            self.held.append((operation, key, action, answer))
            return answer
        error = self.error or self.refuse(key)
        return succeed(action()) if error is None else fail(error)

    def release(self, index: int = 0, error: Exception | None = None) -> None:
        """Let one of the held calls take effect, or fail it."""
        _, _, action, answer = self.held.pop(index)
        if error is None:
            answer.callback(action())
        else:
            answer.errback(error)

    def release_all(self) -> None:
        """Let all held calls take effect in order, also those made meanwhile."""
        while self.held:
            self.release()
