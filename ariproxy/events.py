"""One direction: an event of Asterisk -> its call context -> a record of Kafka.

Events of known calls pass without waiting. Where the store must be asked, the
look-ups run side by side and the events leave in the order in which they came.
An event whose look-up fails steps out of the line, so that the others go on,
and is published when the store answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ariproxy.ari.resources import (
    APPLICATION_REPLACED,
    EVENT_TYPES,
    REST_RESPONSE,
    STASIS_END,
    STASIS_START,
    UNKNOWN_EVENT,
    EventType,
    Resource,
    given_call_context,
    main_id,
    other_ids,
)
from ariproxy.callcontext import CallContexts
from ariproxy.clocks import sleep
from ariproxy.envelope import encode_event
from ariproxy.errors import (
    AriProxyError,
    BufferFull,
    RecordTooLarge,
    UndecodableMessage,
)
from ariproxy.interfaces import IPublisher
from ariproxy.jsontext import parse
from ariproxy.kafka.records import OutgoingRecord
from ariproxy.metrics import Metrics
from ariproxy.ordering import ArrivalLine
from ariproxy.repeated import Repeated

STORE_RETRY_AFTER = 1.0
"""Seconds between two look-ups for an event that waits for the store."""

_REASONS: Mapping[type[Exception], str] = {
    BufferFull: "buffer-full",
    RecordTooLarge: "too-large",
    UndecodableMessage: "undecodable",
}
"""Why an event was lost, as metrics spell it; ``not-taken`` is any other reason."""

_Event = Mapping[str, Any]
_Queue = deque[tuple[EventType, _Event]]


class EventStream:
    """Publishes what Asterisk says, each event under its call context.

    ``replaced`` is called when another client took over our application.
    ``started`` is called with the call context of each call that starts.
    ``rest_answered`` takes answers to REST requests on the websocket.
    ``held`` bounds how many events wait for a store that does not answer.
    ``verbose`` says whether each message is worth a line at level debug.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        application: str,
        topic: str,
        commands_topic: str,
        contexts: CallContexts,
        publisher: IPublisher,
        metrics: Metrics,
        clock: IReactorTime,
        replaced: Callable[[], None],
        started: Callable[[str], None],
        rest_answered: Callable[[Mapping[str, Any]], None],
        held: int,
        verbose: bool,
    ) -> None:
        self._application = application
        self._topic = topic
        self._commands_topic = commands_topic
        self._contexts = contexts
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._replaced = replaced
        self._started = started
        self._rest_answered = rest_answered
        self._held_limit = held
        self._verbose = verbose
        self._line = ArrivalLine()
        self._held: dict[str, _Queue] = {}
        self._held_count = 0
        self._losses = Repeated(clock)

    @property
    def waiting(self) -> int:
        """How many events wait for the store."""
        return len(self._line) + self._held_count

    def receive(self, message: bytes) -> None:
        """Take one text message of the websocket; never raises, never waits."""
        try:
            event = parse(message)
        except (ValueError, RecursionError) as error:
            self._undecodable(f"it is not JSON: {error}", message)
            return
        if not isinstance(event, dict):
            self._undecodable("it is not a JSON object", message)
            return
        name = event.get("type")
        if name == REST_RESPONSE:
            self._rest_answered(event)
            return
        event_type = (
            EVENT_TYPES.get(name, UNKNOWN_EVENT)
            if isinstance(name, str)
            else UNKNOWN_EVENT
        )
        self._metrics.event_received(event_type.name, event_type.kind or "NONE")
        if self._verbose:
            self._log.debug(
                ">>>   ARI EVENT {text}", text=message.decode("utf-8", "replace")
            )
        if event_type.id_path is None:
            self._not_routable(event_type, event)
            return
        resource_id = main_id(event_type, event)
        if name == STASIS_START:
            self._metrics.call_started()
        elif name == STASIS_END:
            self._metrics.call_ended()
        if not resource_id:
            self._unrouted(event_type, event, "its resource has no id")
        elif name == STASIS_START:
            self._start(event_type, event, resource_id)
        else:
            self._pass_on(event_type, event, resource_id)

    async def drain(self, timeout: float) -> int:
        """Wait until no event waits for the store; give how many still do."""
        waited = 0.0
        while self.waiting and waited < timeout:
            await sleep(self._clock, 0.05)
            waited += 0.05
        return self.waiting

    # -- events that no call waits for -------------------------------------

    def _undecodable(self, why: str, message: bytes) -> None:
        self._metrics.event_received(UNKNOWN_EVENT.name, "NONE")
        self._metrics.event_dropped("undecodable")
        if count := self._losses.due("undecodable"):
            self._log.warn(
                "Message of Asterisk not understood: {why}; it begins {begin!r} "
                "({count} since the last such line)",
                why=why,
                begin=message[:80],
                count=count,
            )

    def _not_routable(self, event_type: EventType, event: _Event) -> None:
        if event.get("type") == APPLICATION_REPLACED:
            if event.get("application") in (None, self._application):
                self._replaced()
        self._unrouted(event_type, event, "the type is not published")

    def _unrouted(self, event_type: EventType, event: _Event, why: str) -> None:
        self._metrics.event_unrouted(event_type.name)
        if self._verbose:
            self._log.debug(
                "Event {event_type} not published: {why}",
                event_type=event.get("type"),
                resource_id=main_id(event_type, event),
                why=why,
            )

    # -- the way of all others ---------------------------------------------

    def _start(self, event_type: EventType, event: _Event, channel_id: str) -> None:
        place = self._line.enter()

        async def start() -> None:
            given = given_call_context(event)
            context = await self._contexts.start(channel_id, given)
            self._started(context)
            place.leave(partial(self._enter, event_type, event, channel_id, context))

        ensureDeferred(start()).addErrback(
            self._failed, place, event_type, event, channel_id
        )

    def _pass_on(self, event_type: EventType, event: _Event, resource_id: str) -> None:
        if resource_id in self._held:
            # In its turn: the StasisStart in front takes along what is held.
            hold = partial(self._hold, event_type, event, resource_id)
            self._line.enter().leave(hold)
            return
        context = self._contexts.peek(resource_id)
        if context is not None and not self._line:
            self._publish(event_type, event, resource_id, context)
            return
        place = self._line.enter()
        if context is not None:
            place.leave(partial(self._deliver, event_type, event, resource_id, context))
            return

        async def look_up() -> None:
            try:
                found = await self._route(event_type, event, resource_id)
            except AriProxyError:
                place.leave(partial(self._hold, event_type, event, resource_id))
                return
            place.leave(partial(self._deliver, event_type, event, resource_id, found))

        ensureDeferred(look_up()).addErrback(
            self._failed, place, event_type, event, resource_id
        )

    async def _route(
        self, event_type: EventType, event: _Event, resource_id: str
    ) -> str | None:
        """The call context of the main resource, else of the next known one."""
        for each in (resource_id, *other_ids(event_type, event)):
            context = await self._contexts.find(each)
            if context is not None:
                return context
        return None

    def _enter(
        self, event_type: EventType, event: _Event, channel_id: str, context: str
    ) -> None:
        """Publish a StasisStart, after the events of its channel that are held."""
        queue = self._held.pop(channel_id, None)
        if queue is not None:
            self._held_count -= len(queue)
            for earlier in queue:
                self._publish(*earlier, channel_id, context)
            queue.clear()
        self._publish(event_type, event, channel_id, context)

    def _deliver(
        self, event_type: EventType, event: _Event, resource_id: str, found: str | None
    ) -> None:
        """Publish an event, unless an earlier one of its resource is held still."""
        if resource_id in self._held:
            self._hold(event_type, event, resource_id)
        else:
            self._end(event_type, event, resource_id, found)

    def _end(
        self, event_type: EventType, event: _Event, resource_id: str, found: str | None
    ) -> None:
        if found is None:
            self._unrouted(event_type, event, "no call context is known")
        else:
            self._publish(event_type, event, resource_id, found)

    def _publish(
        self, event_type: EventType, event: _Event, resource_id: str, context: str
    ) -> None:
        kind = event_type.kind
        resources = [Resource(kind, resource_id)] if kind else []
        try:
            value = encode_event(
                event_type.name, self._commands_topic, event, context, resources
            )
        except RecursionError:
            error = UndecodableMessage("it is nested too deep to be written")
            self._settled(event_type, resource_id, context, error)
            return
        key = context.encode("utf-8", "replace")
        self._publisher.publish(
            OutgoingRecord(self._topic, key, value),
            partial(self._settled, event_type, resource_id, context),
        )
        if event_type.ends:
            self._contexts.ended(resource_id)

    def _settled(
        self,
        event_type: EventType,
        resource_id: str,
        context: str,
        error: Exception | None,
    ) -> None:
        if error is None:
            self._metrics.event_published()
            return
        reason = _REASONS.get(type(error), "not-taken")
        self._metrics.event_dropped(reason)
        if count := self._losses.due(reason):
            self._log.error(
                "Event {event_type} of {resource_id} lost: {error} "
                "({count} lost since the last such line)",
                event_type=event_type.name,
                resource_id=resource_id,
                call_context=context,
                error=error,
                count=count,
            )

    # -- events that wait for a store that does not answer -------------------

    def _hold(self, event_type: EventType, event: _Event, resource_id: str) -> None:
        if self._held_count >= self._held_limit:
            self._settled(
                event_type,
                resource_id,
                "",
                BufferFull(f"{self._held_limit} events wait for the store already"),
            )
            return
        self._held_count += 1
        queue = self._held.get(resource_id)
        if queue is not None:
            queue.append((event_type, event))
            return
        self._held[resource_id] = queue = deque([(event_type, event)])
        ensureDeferred(self._release(resource_id, queue)).addErrback(
            self._release_failed, resource_id, queue
        )

    async def _release(self, resource_id: str, queue: _Queue) -> None:
        """Publish the held events of one resource as soon as the store answers."""
        while queue:
            first = queue[0]
            try:
                found = await self._route(*first, resource_id)
            except AriProxyError:
                await sleep(self._clock, STORE_RETRY_AFTER)
                continue
            if queue:  # Else they left with the StasisStart of their channel.
                queue.popleft()
                self._held_count -= 1
                self._end(*first, resource_id, found)
        if self._held.get(resource_id) is queue:
            del self._held[resource_id]

    def _release_failed(
        self, failure: Failure, resource_id: str, queue: _Queue
    ) -> None:
        self._log.failure(
            "{count} held events of {resource_id} lost",
            failure,
            count=len(queue),
            resource_id=resource_id,
        )
        if self._held.get(resource_id) is queue:
            del self._held[resource_id]
        self._held_count -= len(queue)
        for _ in queue:
            self._metrics.event_dropped("defect")

    def _failed(
        self,
        failure: Failure,
        place: Any,
        event_type: EventType,
        event: _Event,
        resource_id: str,
    ) -> None:
        """A defect of ours: the event is lost, but the line must move on."""
        self._log.failure(
            "Event {event_type} of {resource_id} lost",
            failure,
            event_type=event_type.name,
            resource_id=resource_id,
        )
        self._metrics.event_dropped("defect")
        place.leave(lambda: None)
