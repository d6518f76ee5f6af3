"""Tests for ``ariproxy.logs``."""

from __future__ import annotations

import io
import json
import logging
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogBeginner, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ariproxy.config import Secret
from ariproxy.logs import capture_stdlib, observer, shown_level

NAMESPACE = "ariproxy.events.Events"

FIELDS = """
    log_time log_level log_namespace log_format log_failure log_text log_legacy
    call_context offset x
""".split()


class Rude:
    """Something that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Lines(SynchronousTestCase):
    """A base: events go in, lines come out."""

    def setUp(self) -> None:
        self.stream = io.StringIO()

    def log(
        self, format: str = "text", level: str = "debug", namespace: str = NAMESPACE
    ) -> Logger:
        return Logger(
            namespace=namespace, observer=observer(level, format, self.stream)
        )

    def lines(self) -> list[str]:
        text = self.stream.getvalue()
        self.assertTrue(text == "" or text.endswith("\n"))
        return text.split("\n")[:-1]

    def failure(self, text: str = "it broke") -> Failure:
        password = "-".join(["hunter", "2"])
        try:
            raise ValueError(text, len(password))
        except ValueError:
            return Failure()


class TextTests(Lines):
    """One event, one line, for people."""

    def test_line(self) -> None:
        """Timestamp with zone, level, namespace, message."""
        self.log().warn("lost {count} of {all!r}", count=3, all="x")
        (line,) = self.lines()
        self.assertRegex(
            line,
            r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d warn "
            + re.escape(f"{NAMESPACE}: lost 3 of 'x'")
            + r"\Z",
        )

    def test_one_line(self) -> None:
        """No message can begin a line of its own or steer a terminal."""
        self.log().info("{x}", x="a\nb\r\x1b[2J\x00\x85\u2028c é")
        (line,) = self.lines()
        self.assertTrue(line.endswith(r": a\nb\r\x1b[2J\x00\x85\u2028c é"), ascii(line))

    def test_failure(self) -> None:
        """A traceback follows on lines that are set in."""
        self.log().failure("bug {n}", self.failure("two\nlines"), n=7)
        first, *trace = self.lines()
        self.assertIn(f"critical {NAMESPACE}: bug 7", first)
        self.assertIn("    Traceback", trace[0])
        self.assertIn("two", "".join(trace))
        self.assertTrue(all(line.startswith("    ") for line in trace))

    def test_no_variables(self) -> None:
        """A traceback does not show what the variables held."""
        for format in ("text", "json"):
            self.log(format).failure("bug", self.failure())
        self.assertIn("in failure", self.stream.getvalue())
        self.assertNotIn("hunter-2", self.stream.getvalue())

    def test_failure_without_format(self) -> None:
        """A failure without a message shows its own."""
        event = {
            "log_level": LogLevel.critical,
            "log_failure": self.failure(),
            "log_format": None,
        }
        observer("info", "text", self.stream)(event)
        self.assertTrue(self.lines()[0].endswith("critical -: ('it broke', 8)"))

    def test_secret(self) -> None:
        """A secret in an event shows stars."""
        for format in ("text", "json"):
            self.log(format).info("{p} {p!r} {p!s}", p=Secret("hunter2"))
        self.assertNotIn("hunter2", self.stream.getvalue())
        self.assertEqual(self.stream.getvalue().count("*** *** ***"), 2)

    def test_narrow_stream(self) -> None:
        """A stream that cannot take a character gets its escape."""
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        log = Logger(namespace=NAMESPACE, observer=observer("info", "text", stream))
        log.info("Grüße")
        self.assertIn(rb"Gr\xfc\xdfe", raw.getvalue())

    def test_flush(self) -> None:
        """A line is out at once, not when a buffer is full."""
        raw = io.BytesIO()
        stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
        Logger(namespace=NAMESPACE, observer=observer("info", "text", stream)).info("x")
        self.assertTrue(raw.getvalue().endswith(b": x\n"))


class JsonTests(Lines):
    """One event, one object, for machines."""

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]

    def test_fields(self) -> None:
        """The known fields stand by themselves; others are in the message only."""
        self.log("json").error(
            "not sent: {why}",
            why="x\ny",
            call_context="c",
            resource_id="r",
            command_id=None,
            topic="t",
            partition=3,
            offset=2**40,
        )
        (event,) = self.events()
        self.assertRegex(event.pop("timestamp"), r"\A\d{4}-.*[+-]\d\d:\d\d\Z")
        self.assertEqual(
            event,
            {
                "level": "error",
                "namespace": NAMESPACE,
                "message": "not sent: x\ny",
                "call_context": "c",
                "resource_id": "r",
                "topic": "t",
                "partition": 3,
                "offset": 2**40,
            },
        )

    def test_failure(self) -> None:
        """The traceback is a field."""
        self.log("json").failure("bug", self.failure())
        (event,) = self.events()
        self.assertEqual((event["level"], event["message"]), ("critical", "bug"))
        self.assertIn("it broke", event["failure"])

    def test_odd_values(self) -> None:
        """What JSON cannot hold is written as text."""
        self.log("json").info("{x}", x="\udc80", call_context=b"c", offset=2**70)
        (event,) = self.events()
        self.assertEqual(event["message"], "\\udc80")
        self.assertEqual(event["call_context"], "b'c'")
        self.assertEqual(event["offset"], str(2**70))


class RobustnessTests(Lines):
    """Events that are not what they should be."""

    def test_formatting_fails(self) -> None:
        """An event that cannot be formatted is still a line."""
        for format in ("text", "json"):
            log = self.log(format)
            log.info("{missing}")
            log.info("{x", x=1)
            log.info("{x}", x=Rude())
            log.info("{x}", x=1, call_context=Rude())
        self.assertEqual(len(self.lines()), 8)

    def test_bare_events(self) -> None:
        """Fields that Twisted gives may be missing or nonsense."""
        for format in ("text", "json"):
            write = observer("debug", format, self.stream)
            write({})
            write({"log_time": "x", "log_level": "nonsense", "log_namespace": Rude()})
            write({"log_time": 1e300, "log_format": 5, "log_failure": "none"})
            write({"log_time": float("nan"), "log_format": b"bytes \xff"})
            write({"log_namespace": Rude(), "log_format": Rude()})
        self.assertEqual(len([x for x in self.lines() if x[:4] != "    "]), 10)

    @given(
        st.dictionaries(
            st.sampled_from(FIELDS),
            st.none()
            | st.text(st.characters())
            | st.integers()
            | st.floats()
            | st.binary()
            | st.builds(Rude)
            | st.sampled_from(list(LogLevel.iterconstants())),
        )
    )
    def test_any_event(self, event: dict[str, Any]) -> None:
        """Whatever an event holds: nothing is raised, and JSON stays JSON."""
        self.stream = io.StringIO()
        observer("debug", "text", self.stream)(dict(event))
        self.stream = io.StringIO()
        observer("debug", "json", self.stream)(dict(event))
        (line,) = self.lines()
        self.assertIsInstance(json.loads(line), dict)


class LevelTests(Lines):
    """What is shown at which level."""

    def test_provides(self) -> None:
        """It is an observer of Twisted's."""
        self.assertTrue(
            verifyObject(ILogObserver, observer("info", "text", self.stream))
        )

    def test_filter(self) -> None:
        """Events below the level are left out."""
        for level, count in {"debug": 5, "info": 4, "warn": 3, "error": 2}.items():
            self.stream = io.StringIO()
            log = self.log(level=level)
            for each in LogLevel.iterconstants():
                log.emit(each, "x")
            self.assertEqual(len(self.lines()), count, level)

    def test_unformatted(self) -> None:
        """An event that is left out costs no formatting."""
        shown: list[str] = []

        class Told:
            def __str__(self) -> str:
                shown.append("x")
                return "x"

        self.log(level="info").debug("{x}", x=Told())
        self.assertEqual(shown, [])
        self.log(level="debug").debug("{x}", x=Told())
        self.assertEqual(shown, ["x"])

    def test_chatter(self) -> None:
        """What libraries say at info is shown at debug; their troubles stay."""
        for namespace in ("twisted.internet", "autobahn.twisted", "ariproxyx"):
            for level, shown in [
                (LogLevel.debug, LogLevel.debug),
                (LogLevel.info, LogLevel.debug),
                (LogLevel.warn, LogLevel.warn),
                (LogLevel.error, LogLevel.error),
                (LogLevel.critical, LogLevel.critical),
            ]:
                event = {"log_level": level, "log_namespace": namespace}
                self.assertIs(shown_level(event), shown)
        own = {"log_level": LogLevel.info, "log_namespace": "ariproxy"}
        self.assertIs(shown_level(own), LogLevel.info)

    def test_factory(self) -> None:
        """Twisted speaks of our own factories as ours; it is chatter all the same."""
        events: list[dict[str, Any]] = []

        class OwnFactory(Factory):
            pass

        OwnFactory.__module__ = "ariproxy.web"
        publisher = LogPublisher(events.append)
        log = Logger(namespace="ariproxy.web.OwnFactory", observer=publisher)
        log.info("Starting factory {factory!r}", factory=OwnFactory())
        self.assertIs(shown_level(events[0]), LogLevel.debug)

    def test_legacy(self) -> None:
        """``log.msg`` and ``print`` are shown at debug."""
        events: list[Any] = []
        publisher = LogPublisher()
        error, output = io.StringIO(), io.StringIO()
        fake_sys = type("Sys", (), {"stdout": output, "stderr": error})
        beginner = LogBeginner(publisher, error, fake_sys, _NoWarnings)
        beginner.beginLoggingTo([events.append], discardBuffer=True)
        fake_sys.stdout.write("printed\n")
        self.assertIs(shown_level(events[-1]), LogLevel.debug)
        fake_sys.stderr.write("trouble\n")
        self.assertIs(shown_level(events[-1]), LogLevel.error)


class _NoWarnings:
    """Stands for the module ``warnings``."""

    showwarning = None


class StdlibTests(Lines):
    """Libraries that log by ``logging``."""

    def capture(self, level: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        self.addCleanup(capture_stdlib(level, LogPublisher(events.append)))
        return events

    def test_records(self) -> None:
        """A record becomes an event of its level and namespace."""
        events = self.capture("debug")
        log = logging.getLogger("cassandra.pool")
        for emit in (log.debug, log.info, log.warning, log.error, log.critical):
            emit("host %s", "{h}")
        self.assertEqual(
            [event["log_level"].name for event in events],
            ["debug", "info", "warn", "error", "error"],
        )
        self.assertEqual({event["log_namespace"] for event in events}, {log.name})
        observer("info", "text", self.stream)(events[2])
        self.assertTrue(self.lines()[0].endswith("warn cassandra.pool: host {h}"))

    def test_level(self) -> None:
        """Records below the level are not made."""
        events = self.capture("warn")
        self.assertFalse(logging.getLogger("pykafka").isEnabledFor(logging.INFO))
        logging.getLogger("pykafka").info("x")
        self.assertEqual(events, [])

    def test_exception(self) -> None:
        """The text of an exception is added to the message."""
        events = self.capture("info")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("x").exception("failed")
        self.assertEqual(events[0]["text"], "failed: why")

    def test_bad_record(self) -> None:
        """A record that cannot be formatted is an event all the same."""
        events = self.capture("info")
        logging.getLogger("x").info("%d", "no number")
        self.assertIn("cannot be shown", events[0]["text"])

    def test_undo(self) -> None:
        """The root logger is left as it was."""
        root = logging.getLogger()
        before = root.level, root.handlers[:]
        undo = capture_stdlib("debug", LogPublisher())
        self.assertNotEqual(root.handlers, before[1])
        undo()
        self.assertEqual((root.level, root.handlers), before)
