"""Tests of ariproxy.metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.resources import EVENT_TYPES, UNKNOWN_EVENT
from ariproxy.metrics import (
    METRICS,
    WAITING_RECORDS,
    WEBSOCKET_CONNECTED,
    Metrics,
)

DOCS = Path(__file__).parent.parent / "docs" / "metrics.rst"

KINDS = {
    event_type.name: event_type.kind or "NONE"
    for event_type in (*EVENT_TYPES.values(), UNKNOWN_EVENT)
}

REQUEST_TIME = "ari_proxy_outgoing_requests_duration_seconds"
WRITE_TIME = "ari_proxy_persistence_write_duration_seconds"

# As dashboards know them: the upper bounds of the Java program's timers.
BOUNDS = """
0.001 0.001048576 0.001398101 0.001747626 0.002097151 0.002446676 0.002796201
0.003145726 0.003495251 0.003844776 0.004194304 0.005592405 0.006990506 0.008388607
0.009786708 0.011184809 0.01258291 0.013981011 0.015379112 0.016777216 0.022369621
0.027962026 0.033554431 0.039146836 0.044739241 0.050331646 0.055924051 0.061516456
0.067108864 0.089478485 0.111848106 0.134217727 0.156587348 0.178956969 0.20132659
0.223696211 0.246065832 0.268435456 0.357913941 0.447392426 0.536870911 0.626349396
0.715827881 0.805306366 0.894784851 0.984263336 1.073741824 1.431655765 1.789569706
2.147483647 2.505397588 2.863311529 3.22122547 3.579139411 3.937053352 4.294967296
5.726623061 7.158278826 8.589934591 10.0 +Inf
""".split()


def make(
    clock: Clock | None = None,
    common_tags: Mapping[str, str] | None = None,
    availability_name: str = "backing_service_availability",
) -> Metrics:
    """Metrics as a site without settings of its own has them."""
    return Metrics(
        app="demo",
        common_tags=common_tags or {},
        availability_name=availability_name,
        event_types=KINDS,
        clock=clock or Clock(),
    )


def scrape(metrics: Metrics) -> dict[str, list[tuple[dict[str, str], float]]]:
    """All samples of a page by name, as Prometheus reads them."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The value of the one sample with exactly these labels."""
    (found,) = [v for given, v in scrape(metrics)[name] if given == labels]
    return found


class EventCountTests(SynchronousTestCase):
    """Tests of what is counted for each event."""

    def test_all_types_from_the_start(self) -> None:
        """Each of the 33 types is there at 0, with its own kind of resource."""
        samples = scrape(make())["ari_proxy_events_total"]
        shown = {labels["eventType"]: labels["resourceType"] for labels, _ in samples}
        self.assertEqual(len(samples), 33)
        self.assertEqual({v for _, v in samples}, {0.0})
        self.assertEqual(shown["CHANNELVARSET"], "CHANNEL")
        self.assertEqual(shown["RECORDING_FAILED"], "RECORDING")
        for name in ("DIAL", "UNKNOWN", "RESPONSE", "APPLICATION_REPLACED"):
            self.assertEqual(shown[name], "NONE")

    def test_received(self) -> None:
        """A message counts under its own pair of names only."""
        metrics = make()
        metrics.event_received("STASIS_START", "CHANNEL")
        metrics.event_received("STASIS_START", "CHANNEL")
        samples = scrape(metrics)["ari_proxy_events_total"]
        self.assertEqual(len(samples), 33)
        self.assertEqual(
            [labels["eventType"] for labels, count in samples if count],
            ["STASIS_START"],
        )
        self.assertEqual(sum(count for _, count in samples), 2)

    def test_a_further_type(self) -> None:
        """A type that was not named at the start is counted from its first event."""
        metrics = make()
        metrics.event_received("TEXT_MESSAGE_RECEIVED", "NONE")
        self.assertEqual(
            value(
                metrics,
                "ari_proxy_events_total",
                eventType="TEXT_MESSAGE_RECEIVED",
                resourceType="NONE",
            ),
            1,
        )

    def test_the_ways_of_an_event(self) -> None:
        """Published, unrouted and dropped events are told apart."""
        metrics = make()
        for _ in range(3):
            metrics.event_published()
        metrics.event_unrouted("DIAL")
        metrics.event_dropped("too-large")
        self.assertEqual(value(metrics, "ari_proxy_events_published_total"), 3)
        self.assertEqual(
            value(metrics, "ari_proxy_events_unrouted_total", event_type="DIAL"), 1
        )
        self.assertEqual(
            value(metrics, "ari_proxy_events_dropped_total", reason="too-large"), 1
        )

    def test_calls(self) -> None:
        """Calls carry the application, and are 0 from the start."""
        metrics = make()
        labels = {"application": "demo"}
        self.assertEqual(value(metrics, "ari_proxy_calls_ended_total", **labels), 0)
        metrics.call_started()
        metrics.call_ended()
        metrics.call_setup_delay(0.2)
        self.assertEqual(value(metrics, "ari_proxy_calls_started_total", **labels), 1)
        self.assertEqual(value(metrics, "ari_proxy_calls_ended_total", **labels), 1)
        name = "ari_proxy_call_setup_delay_seconds"
        self.assertEqual(value(metrics, f"{name}_sum", **labels), 0.2)
        self.assertEqual(value(metrics, f"{name}_bucket", le="0.1", **labels), 0)
        self.assertEqual(value(metrics, f"{name}_bucket", le="0.25", **labels), 1)


class RequestTests(SynchronousTestCase):
    """Tests of what is counted for requests to Asterisk and commands."""

    def test_started(self) -> None:
        """Requests are counted by method and path; braces stay as they are."""
        metrics = make()
        metrics.request_started("POST", "/channels/{channelId}/play")
        metrics.request_started("GET", "UNKNOWN")
        self.assertEqual(
            value(
                metrics,
                "ari_proxy_outgoing_requests_total",
                method="POST",
                path="/channels/{channelId}/play",
            ),
            1,
        )
        self.assertIn(b'path="UNKNOWN"', metrics.render())

    def test_errors_appear_with_the_first(self) -> None:
        """There is no error series before there was an error."""
        metrics = make()
        name = "ari_proxy_outgoing_requests_errors_total"
        metrics.request_started("GET", "/bridges")
        self.assertNotIn(name.encode(), metrics.render())
        metrics.request_failed("GET", "/bridges")
        self.assertEqual(value(metrics, name, method="GET", path="/bridges"), 1)

    def test_bounds(self) -> None:
        """The bounds are those that existing queries name, in their spelling."""
        metrics = make()
        metrics.request_finished("GET", "/bridges", 0.5)
        for name in (REQUEST_TIME, WRITE_TIME):
            samples = scrape(metrics)[f"{name}_bucket"]
            self.assertEqual([labels["le"] for labels, _ in samples], BOUNDS)

    def test_a_bound_includes_itself(self) -> None:
        """A duration equal to a bound is counted there and in all above it."""
        metrics = make()
        metrics.persistence_write(0.001048576)
        metrics.persistence_write(99.0)
        buckets = {
            labels["le"]: count
            for labels, count in scrape(metrics)[f"{WRITE_TIME}_bucket"]
        }
        self.assertEqual(buckets["0.001"], 0)
        self.assertEqual(buckets["0.001048576"], 1)
        self.assertEqual(buckets["10.0"], 1)
        self.assertEqual(buckets["+Inf"], 2)
        self.assertEqual(value(metrics, f"{WRITE_TIME}_count"), 2)
        self.assertAlmostEqual(value(metrics, f"{WRITE_TIME}_sum"), 99.001048576)

    def test_a_negative_duration(self) -> None:
        """A clock that was set back makes no sum smaller."""
        metrics = make()
        metrics.persistence_write(-5.0)
        self.assertEqual(value(metrics, f"{WRITE_TIME}_sum"), 0)
        self.assertEqual(value(metrics, f"{WRITE_TIME}_count"), 1)

    def test_commands(self) -> None:
        """Commands are counted by their outcome."""
        metrics = make()
        metrics.command_settled("answered")
        metrics.command_settled("refused")
        metrics.command_settled("answered")
        name = "ari_proxy_commands_settled_total"
        self.assertEqual(value(metrics, name, outcome="answered"), 2)
        self.assertEqual(value(metrics, name, outcome="refused"), 1)

    def test_the_store(self) -> None:
        """The counters of cache and store are there from the start, each its own."""
        metrics = make()
        names = [
            "ari_proxy_cache_read_attempts_total",
            "ari_proxy_cache_read_misses_total",
            "ari_proxy_cache_read_errors_total",
            "ari_proxy_persistence_read_errors_total",
        ]
        self.assertEqual([value(metrics, name) for name in names], [0, 0, 0, 0])
        counts = [
            metrics.cache_read_attempt,
            metrics.cache_read_miss,
            metrics.cache_read_error,
            metrics.persistence_read_error,
        ]
        for times, count in enumerate(counts, 1):
            for _ in range(times):
                count()
        self.assertEqual([value(metrics, name) for name in names], [1, 2, 3, 4])

    def test_restarts(self) -> None:
        """Both streams are there from the start."""
        metrics = make()
        metrics.stream_restarted("event")
        name = "ari_proxy_processor_restarts_total"
        self.assertEqual(value(metrics, name, processorType="event"), 1)
        self.assertEqual(value(metrics, name, processorType="commandResponse"), 0)


class MaximumTests(SynchronousTestCase):
    """Tests of the longest duration of the last minutes."""

    def maximum(self) -> float:
        """What is shown now."""
        return value(self.metrics, f"{WRITE_TIME}_max")

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.metrics = make(self.clock)

    def test_fades(self) -> None:
        """A maximum is shown for at least two and at most three minutes."""
        self.metrics.persistence_write(4.0)
        self.clock.advance(30)
        self.metrics.persistence_write(1.0)
        self.assertEqual(self.maximum(), 4.0)
        self.clock.advance(90)
        self.assertEqual(self.maximum(), 4.0)
        self.clock.advance(60)
        self.assertEqual(self.maximum(), 0.0)

    def test_a_smaller_one_remains(self) -> None:
        """When the longest is forgotten, the longest since then is shown."""
        self.metrics.persistence_write(4.0)
        self.clock.advance(100)
        self.metrics.persistence_write(1.0)
        self.clock.advance(80)
        self.assertEqual(self.maximum(), 1.0)

    def test_a_long_silence(self) -> None:
        """After hours without a duration nothing is shown."""
        self.metrics.persistence_write(4.0)
        self.clock.advance(86_400)
        self.assertEqual(self.maximum(), 0.0)

    def test_a_clock_set_back(self) -> None:
        """A wall clock that is set back harms nothing."""
        self.metrics.persistence_write(4.0)
        self.clock.rightNow -= 7200
        self.assertEqual(self.maximum(), 4.0)
        self.metrics.persistence_write(5.0)
        self.assertEqual(self.maximum(), 5.0)


class TagTests(SynchronousTestCase):
    """Tests of the common tags."""

    def test_on_all_but_the_untagged(self) -> None:
        """The tags are on every series that the original put them on, and on ours."""
        metrics = make(common_tags={"site": "north"})
        metrics.request_started("GET", "/bridges")
        metrics.request_finished("GET", "/bridges", 0.1)
        metrics.event_dropped("undecodable")
        untagged = {row.name for row in METRICS if not row.tagged}
        self.assertEqual(len(untagged), 7)
        for name, samples in scrape(metrics).items():
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            bare = base in untagged or name.startswith("process_")
            for labels, _ in samples:
                self.assertEqual(labels.get("site"), None if bare else "north", name)

    def test_names(self) -> None:
        """What Prometheus does not allow in a label's name is replaced."""
        metrics = make(common_tags={"data-center": "a", "1st": "b", "rack.no": "c"})
        self.assertEqual(
            value(
                metrics,
                "ari_proxy_events_published_total",
                data_center="a",
                m_1st="b",
                rack_no="c",
            ),
            0,
        )

    def test_a_label_of_ours_wins(self) -> None:
        """A tag with the name of a label does not replace the label."""
        metrics = make(common_tags={"method": "site", "le": "site"})
        metrics.request_finished("GET", "/bridges", 0.1)
        labels = {"method": "GET", "path": "/bridges"}
        self.assertEqual(value(metrics, f"{REQUEST_TIME}_count", **labels), 1)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_value(self, text: str) -> None:
        """No value of a tag breaks the page, and all arrive as they are."""
        metrics = make(common_tags={"tag": text})
        self.assertEqual(
            value(metrics, "ari_proxy_events_published_total", tag=text), 0
        )


class GaugeTests(SynchronousTestCase):
    """Tests of what is read at the scrape."""

    def test_read_at_every_scrape(self) -> None:
        """A gauge shows what its callable returns; before it is given, nothing."""
        metrics = make()
        self.assertNotIn(WAITING_RECORDS, scrape(metrics))
        waiting = [1, 2]
        metrics.gauge(WAITING_RECORDS, lambda: waiting[-1])
        self.assertEqual(value(metrics, WAITING_RECORDS), 2)
        waiting.append(7)
        self.assertEqual(value(metrics, WAITING_RECORDS), 7)

    def test_unknown(self) -> None:
        """A gauge that is not in the table, and so not documented, is refused."""
        self.assertRaises(ValueError, make().gauge, "ari_proxy_new", lambda: 1)
        self.assertRaises(ValueError, make().gauge, "ari_proxy_events_total", lambda: 1)

    def test_one_that_fails(self) -> None:
        """A gauge that cannot be read is left out and logged; the others are shown."""
        metrics = make()
        metrics.gauge(WAITING_RECORDS, lambda: 1 // 0)
        metrics.gauge(WEBSOCKET_CONNECTED, lambda: True)
        samples = scrape(metrics)
        self.assertNotIn(WAITING_RECORDS, samples)
        self.assertEqual(samples[WEBSOCKET_CONNECTED], [({}, 1.0)])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_availability(self) -> None:
        """Each service has its own series under the configured name."""
        metrics = make(availability_name="my.services")
        metrics.availability(lambda: {"redis": True, "kafka": False})
        name = "my_services"
        self.assertEqual(value(metrics, name, backing_service="redis"), 1)
        self.assertEqual(value(metrics, name, backing_service="kafka"), 0)
        self.assertNotIn("backing_service_availability", scrape(metrics))

    def test_availability_unknown(self) -> None:
        """Before the first check there is no value that could raise an alarm."""
        metrics = make()
        metrics.availability(dict)
        self.assertNotIn("backing_service_availability", scrape(metrics))


class PageTests(SynchronousTestCase):
    """Tests of the page as a whole."""

    def page(self) -> str:
        """A page on which every metric has a value."""
        metrics = make()
        metrics.request_started("GET", "/bridges")
        metrics.request_finished("GET", "/bridges", 0.1)
        metrics.request_failed("GET", "/bridges")
        metrics.event_unrouted("DIAL")
        metrics.event_dropped("undecodable")
        metrics.command_settled("answered")
        metrics.availability(lambda: {"kafka": True})
        metrics.gauge(WAITING_RECORDS, lambda: 0)
        metrics.gauge(WEBSOCKET_CONNECTED, lambda: 1)
        return metrics.render().decode()

    def test_head_lines(self) -> None:
        """Each metric has its kind; inherited ones a blank help, ours a text."""
        lines = self.page().splitlines()
        for row in METRICS:
            text = "" if row.inherited else row.meaning
            self.assertIn(f"# HELP {row.name} {text}", lines)
            self.assertIn(f"# TYPE {row.name} {row.kind}", lines)

    def test_no_other_series(self) -> None:
        """What is shown is the table, the process, and nothing made up besides."""
        shown = set(re.findall(r"^# TYPE (\S+)", self.page(), re.MULTILINE))
        process = {name for name in shown if name.startswith("process_")}
        self.assertIn("process_resident_memory_bytes", process)
        self.assertEqual(shown - process, {row.name for row in METRICS})
        self.assertNotIn("_created", self.page())

    def test_two_in_one_process(self) -> None:
        """Two sets of metrics share nothing."""
        one, other = make(), make()
        one.event_published()
        self.assertEqual(value(other, "ari_proxy_events_published_total"), 0)


class DocumentTests(SynchronousTestCase):
    """Tests of docs/metrics.rst against the table."""

    def test_every_metric(self) -> None:
        """Each metric has an entry with its kind, meaning and labels."""
        entries = self.entries()
        self.assertEqual(
            {name for name in entries if not name.startswith("process_")},
            {row.name for row in METRICS},
        )
        for row in METRICS:
            kind, text = entries[row.name]
            self.assertEqual(kind, row.kind, row.name)
            self.assertIn(row.meaning, text)
            for label in row.labels:
                self.assertIn(f"``{label}``", text, row.name)

    def test_the_process(self) -> None:
        """The metrics of the process are documented as well."""
        shown = re.findall(r"# TYPE (process_\S+)", make().render().decode())
        self.assertTrue(shown)
        self.assertEqual(set(shown) - set(self.entries()), set())

    def entries(self) -> dict[str, tuple[str, Any]]:
        """Name to kind and text, which is indented below the line of the name."""
        found = re.findall(
            r"^``(\w+)`` \((\w+)\)\n((?:    .*\n|\n(?=    ))+)",
            DOCS.read_text("utf-8"),
            re.MULTILINE,
        )
        return {name: (kind, " ".join(text.split())) for name, kind, text in found}
