"""What the proxy counts, and the page of numbers that Prometheus reads.

Counting happens in plain dicts, because it is done for every event; what
Prometheus wants to see is put together only when it asks. ``METRICS`` is the
one table of all names. Those that the Java program had keep its spelling
(camel case labels, blank help), so that existing dashboards go on working.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Literal

from msgspec import Struct
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

# The bounds of micrometer's timers from 1 ms to 10 s, which the Java program had:
# nine between one power of four (in nanoseconds) and the next.
_MICROMETER_BOUNDS = (
    0.001,
    *((4**k + n * (4**k // 3)) / 1e9 for k in range(10, 16) for n in range(9)),
    *((4**16 + n * (4**16 // 3)) / 1e9 for n in range(4)),
    10.0,
)
_SHORT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_MINUTES_SHOWN = 3


class MetricRow(Struct, frozen=True):
    """One metric: its full name, kind, meaning and labels.

    ``inherited`` ones are shown with a blank help, as the Java program did.
    ``tagged`` ones carry ``service.metrics.common-tags`` as further labels.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    inherited: bool = False
    tagged: bool = True


_EVENTS = "ari_proxy_events_total"
_REQUESTS = "ari_proxy_outgoing_requests_total"
_REQUEST_ERRORS = "ari_proxy_outgoing_requests_errors_total"
_REQUEST_TIME = "ari_proxy_outgoing_requests_duration_seconds"
_CACHE_ATTEMPTS = "ari_proxy_cache_read_attempts_total"
_CACHE_MISSES = "ari_proxy_cache_read_misses_total"
_CACHE_ERRORS = "ari_proxy_cache_read_errors_total"
_STORE_READ_ERRORS = "ari_proxy_persistence_read_errors_total"
_STORE_WRITE_TIME = "ari_proxy_persistence_write_duration_seconds"
_RESTARTS = "ari_proxy_processor_restarts_total"
_AVAILABILITY = "backing_service_availability"
_CALL_SETUP = "ari_proxy_call_setup_delay_seconds"
_CALLS_STARTED = "ari_proxy_calls_started_total"
_CALLS_ENDED = "ari_proxy_calls_ended_total"
_PUBLISHED = "ari_proxy_events_published_total"
_UNROUTED = "ari_proxy_events_unrouted_total"
_DROPPED = "ari_proxy_events_dropped_total"
_SETTLED = "ari_proxy_commands_settled_total"
WAITING_RECORDS = "ari_proxy_kafka_waiting_records"
WEBSOCKET_CONNECTED = "ari_proxy_websocket_connected"

_inherited = partial(MetricRow, inherited=True)
_untagged = partial(MetricRow, inherited=True, tagged=False)
_REQUEST = ("method", "path")
_CALL = ("application",)
_LONGEST = "The longest of these in the last two to three minutes."

METRICS = (
    _inherited(
        _EVENTS, "counter", "Messages of the websocket.", ("eventType", "resourceType")
    ),
    _inherited(_REQUESTS, "counter", "Requests to Asterisk.", _REQUEST),
    _inherited(
        _REQUEST_ERRORS, "counter", "Requests that Asterisk did not answer.", _REQUEST
    ),
    _inherited(_REQUEST_TIME, "histogram", "Seconds from request to answer.", _REQUEST),
    _inherited(f"{_REQUEST_TIME}_max", "gauge", _LONGEST, _REQUEST),
    _untagged(_CACHE_ATTEMPTS, "counter", "Look-ups of a call context."),
    _untagged(_CACHE_MISSES, "counter", "Look-ups that the store answered."),
    _untagged(_CACHE_ERRORS, "counter", "Look-ups that failed."),
    _untagged(_STORE_READ_ERRORS, "counter", "Reads that the store did not answer."),
    _untagged(_STORE_WRITE_TIME, "histogram", "Seconds of a write to the store."),
    _untagged(f"{_STORE_WRITE_TIME}_max", "gauge", _LONGEST),
    _untagged(_RESTARTS, "counter", "Streams begun anew.", ("processorType",)),
    _inherited(
        _AVAILABILITY, "gauge", "1 if the last check went well.", ("backing_service",)
    ),
    MetricRow(
        _CALL_SETUP, "histogram", "Seconds from StasisStart to first answer.", _CALL
    ),
    MetricRow(_CALLS_STARTED, "counter", "StasisStart events received.", _CALL),
    MetricRow(_CALLS_ENDED, "counter", "StasisEnd events received.", _CALL),
    MetricRow(_PUBLISHED, "counter", "Events that Kafka has acknowledged."),
    MetricRow(
        _UNROUTED, "counter", "Events that belong to no known call.", ("event_type",)
    ),
    MetricRow(_DROPPED, "counter", "Messages of Asterisk that were lost.", ("reason",)),
    MetricRow(_SETTLED, "counter", "Commands that are done.", ("outcome",)),
    MetricRow(WAITING_RECORDS, "gauge", "Records not yet acknowledged by Kafka."),
    MetricRow(WEBSOCKET_CONNECTED, "gauge", "1 while Asterisk's websocket is open."),
)
"""Every metric of our own; those of the process come from prometheus_client."""

_Labels = tuple[str, ...]


class Metrics(Collector):
    """Counts what happens and renders it for Prometheus.

    :param app: the Stasis application, the value of the label ``application``.
    :param common_tags: ``service.metrics.common-tags``.
    :param availability_name: the name of the gauge of the backing services, as
        configured; what Prometheus does not allow in a name becomes ``_``.
    :param event_types: each event type of the envelope with its kind of
        resource, ``NONE`` where it has none. All start at 0.
    :param clock: tells when a maximum is too old to be shown.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        app: str,
        common_tags: Mapping[str, str],
        availability_name: str,
        event_types: Mapping[str, str],
        clock: IReactorTime,
    ) -> None:
        self._app = (app,)
        self._tags = {_prometheus_name(k): str(v) for k, v in common_tags.items()}
        self._availability_name = _prometheus_name(availability_name)
        self._counts: dict[str, defaultdict[_Labels, int]] = {
            row.name: defaultdict(int) for row in METRICS if row.kind == "counter"
        }
        self._histograms: dict[str, defaultdict[_Labels, _Histogram]] = {
            row.name: _histograms(_bounds(row), clock)
            for row in METRICS
            if row.kind == "histogram"
        }
        self._gauges: dict[str, Callable[[], Mapping[_Labels, float]]] = {
            f"{name}_max": _maxima(self._histograms[name])
            for name in (_REQUEST_TIME, _STORE_WRITE_TIME)
        }
        # Kept apart, as they are counted for every event.
        self._events = self._counts[_EVENTS]
        self._published = self._counts[_PUBLISHED]
        self._begin_at_zero(event_types)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def _begin_at_zero(self, event_types: Mapping[str, str]) -> None:
        """Show what is always there from the start, so that rates can be told."""
        for pair in event_types.items():
            self._events[pair] = 0
        for name in (_CACHE_ATTEMPTS, _CACHE_MISSES, _CACHE_ERRORS, _PUBLISHED):
            self._counts[name][()] = 0
        self._counts[_STORE_READ_ERRORS][()] = 0
        for name in (_CALLS_STARTED, _CALLS_ENDED):
            self._counts[name][self._app] = 0
        for kind in ("event", "commandResponse"):
            self._counts[_RESTARTS][(kind,)] = 0
        self._histograms[_STORE_WRITE_TIME][()]
        self._histograms[_CALL_SETUP][self._app]

    # Events

    def event_received(self, event_type: str, resource_type: str) -> None:
        """One message of the websocket, by the two names of the envelope."""
        self._events[event_type, resource_type] += 1

    def event_published(self) -> None:
        """Kafka has acknowledged one event."""
        self._published[()] += 1

    def event_unrouted(self, event_type: str) -> None:
        """One event has no call context and was not published."""
        self._counts[_UNROUTED][(event_type,)] += 1

    def event_dropped(self, reason: str) -> None:
        """One message was lost; the reason is a word, never a message's content."""
        self._counts[_DROPPED][(reason,)] += 1

    # Calls

    def call_started(self) -> None:
        """One StasisStart."""
        self._counts[_CALLS_STARTED][self._app] += 1

    def call_ended(self) -> None:
        """One StasisEnd."""
        self._counts[_CALLS_ENDED][self._app] += 1

    def call_setup_delay(self, seconds: float) -> None:
        """From a call's StasisStart to its first answered command."""
        self._histograms[_CALL_SETUP][self._app].observe(seconds)

    # Commands and requests; ``template`` is a path of ARI or UNKNOWN.

    def request_started(self, method: str, template: str) -> None:
        """One request goes to Asterisk."""
        self._counts[_REQUESTS][method, template] += 1

    def request_finished(self, method: str, template: str, seconds: float) -> None:
        """A request is over, ``seconds`` after its start."""
        self._histograms[_REQUEST_TIME][method, template].observe(seconds)

    def request_failed(self, method: str, template: str) -> None:
        """A request got no answer of Asterisk."""
        self._counts[_REQUEST_ERRORS][method, template] += 1

    def command_settled(self, outcome: str) -> None:
        """One command is done; the outcome is a word of a small closed list."""
        self._counts[_SETTLED][(outcome,)] += 1

    # Store

    def cache_read_attempt(self) -> None:
        """One look-up in the cache."""
        self._counts[_CACHE_ATTEMPTS][()] += 1

    def cache_read_miss(self) -> None:
        """The cache did not know, and the store was read without an error."""
        self._counts[_CACHE_MISSES][()] += 1

    def cache_read_error(self) -> None:
        """A look-up failed."""
        self._counts[_CACHE_ERRORS][()] += 1

    def persistence_read_error(self) -> None:
        """The store did not answer a read."""
        self._counts[_STORE_READ_ERRORS][()] += 1

    def persistence_write(self, seconds: float) -> None:
        """One write to the store, and how long it took."""
        self._histograms[_STORE_WRITE_TIME][()].observe(seconds)

    # Streams and gauges

    def stream_restarted(self, kind: Literal["event", "commandResponse"]) -> None:
        """The stream of events or of commands was begun anew."""
        self._counts[_RESTARTS][(kind,)] += 1

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Show what ``read`` returns at every scrape; it must not wait.

        ``name`` is a gauge of ``METRICS``; another one is a ``ValueError``.
        """
        if name not in {row.name for row in METRICS if row.kind == "gauge"}:
            raise ValueError(f"{name} is no gauge of METRICS")
        self._gauges[name] = lambda: {(): read()}

    def availability(self, read: Callable[[], Mapping[str, bool]]) -> None:
        """Show the last known state of the backing services, by their names.

        ``read`` is called at every scrape and must not ask the services.
        """
        self._gauges[_AVAILABILITY] = lambda: {
            (name,): float(well) for name, well in read().items()
        }

    # Rendering

    def render(self) -> bytes:
        """All metrics in Prometheus' text format 0.0.4, UTF-8."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """prometheus_client asks this for all families that have a value."""
        for row in METRICS:
            family = self._family(row)
            if family.samples:
                yield family

    def _family(self, row: MetricRow) -> Metric:
        tags = {k: v for k, v in self._tags.items() if k not in (*row.labels, "le")}
        if not row.tagged:
            tags = {}
        name = self._availability_name if row.name == _AVAILABILITY else row.name
        help_text = "" if row.inherited else row.meaning
        labels = (*row.labels, *tags)
        values = tuple(tags.values())
        if row.kind == "counter":
            counter = CounterMetricFamily(name, help_text, labels=labels)
            for own, count in self._counts[row.name].items():
                counter.add_metric((*own, *values), count)
            return counter
        if row.kind == "histogram":
            histogram = HistogramMetricFamily(name, help_text, labels=labels)
            for own, timer in self._histograms[row.name].items():
                histogram.add_metric((*own, *values), timer.buckets(), timer.total)
            return histogram
        gauge = GaugeMetricFamily(name, help_text, labels=labels)
        for own, value in self._read_gauge(row.name).items():
            gauge.add_metric((*own, *values), value)
        return gauge

    def _read_gauge(self, name: str) -> Mapping[_Labels, float]:
        read = self._gauges.get(name)
        if read is None:
            return {}
        try:
            return read()
        except Exception:
            # One wrong gauge must not hide all the other numbers.
            self._log.failure("The gauge {name} cannot be read", name=name)
            return {}


class _Histogram:
    """Counts durations by their bounds, and remembers the longest for a while.

    Like micrometer's timers, a maximum is shown until the end of the second
    minute after the one in which it was seen.
    """

    __slots__ = ("_bounds", "_clock", "_counts", "_maxima", "_minute", "total")

    def __init__(self, bounds: tuple[float, ...], clock: IReactorTime) -> None:
        self._bounds = bounds
        self._clock = clock
        self._counts = [0] * (len(bounds) + 1)
        self._maxima = [0.0] * _MINUTES_SHOWN
        self._minute = self._now()
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        # A wall clock that is set back must not make a sum smaller.
        seconds = max(seconds, 0.0)
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds
        self._forget_old_maxima()
        if seconds > self._maxima[0]:
            self._maxima[0] = seconds

    def maximum(self) -> float:
        self._forget_old_maxima()
        return max(self._maxima)

    def _now(self) -> int:
        return int(self._clock.seconds() // 60)

    def _forget_old_maxima(self) -> None:
        minute = self._now()
        passed = min(minute - self._minute, _MINUTES_SHOWN)
        if passed:
            self._minute = minute
            slots = [0.0] * passed + self._maxima
            self._maxima = slots[:_MINUTES_SHOWN]

    def buckets(self) -> list[tuple[str, float]]:
        """The bounds as text, each with how many were not above it."""
        buckets = []
        so_far = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            so_far += count
            buckets.append((str(bound), float(so_far)))
        return buckets


def _bounds(row: MetricRow) -> tuple[float, ...]:
    return _MICROMETER_BOUNDS if row.inherited else _SHORT_BOUNDS


def _histograms(
    bounds: tuple[float, ...], clock: IReactorTime
) -> defaultdict[_Labels, _Histogram]:
    return defaultdict(lambda: _Histogram(bounds, clock))


def _maxima(
    histograms: Mapping[_Labels, _Histogram],
) -> Callable[[], Mapping[_Labels, float]]:
    return lambda: {labels: timer.maximum() for labels, timer in histograms.items()}


def _prometheus_name(text: str) -> str:
    """What Prometheus takes as a name, changed as micrometer changes it."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", text)
    return name if name[:1].isalpha() else f"m_{name}"
