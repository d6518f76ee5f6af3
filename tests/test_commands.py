"""Tests of ariproxy.commands: every command that can be read gets one answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.admission import Admission
from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.callcontext import KEY_PREFIX, CallContexts
from ariproxy.commands import CommandStream
from ariproxy.delivery import DeliveryMarks
from ariproxy.errors import (
    AsteriskAnswerLost,
    AsteriskUnavailable,
    BufferFull,
    PublishFailed,
    RecordRefused,
    RecordTooLarge,
    StoreUnavailable,
)
from ariproxy.kafka.records import Headers, IncomingRecord, OutgoingRecord
from ariproxy.store.cached import CachedStore
from ariproxy.unreadable import PUBLISH_RETRY_AFTER
from tests.fakes import (
    FakeAsterisk,
    FakeSource,
    FakeStore,
    MemoryPublisher,
    counted,
    make_metrics,
)

EVENTS, COMMANDS, DEAD = "ari-events", "ari-commands", "dead-letters"


def answer(
    status: int = 200, body: bytes = b"", kind: str | None = "application/json"
) -> AsteriskAnswer:
    return AsteriskAnswer(status, body, kind, len(body))


def always(found: AsteriskAnswer) -> Callable[[AsteriskRequest], AsteriskAnswer]:
    return lambda request: found


class CommandCase(SynchronousTestCase):
    """A command stream between fakes."""

    dead_letter_topic: str | None = None
    concurrency = 100
    allow: Sequence[str] | None = None
    deny: Sequence[str] = ()
    max_age: float | None = None
    marked = False
    now = 1000.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        self.metrics = make_metrics(self.clock)
        cached = CachedStore(self.store, 100, 60, self.clock.seconds, self.metrics)
        self.source = FakeSource()
        self.asterisk = FakeAsterisk()
        self.publisher = MemoryPublisher()
        self.answered: list[str] = []
        self.contexts = CallContexts(cached, self.clock, lambda: "new", 300.0)
        self.stream = self.make_stream(self.source)
        self.stream.start()
        self.offset = 0

    def make_stream(self, source: FakeSource) -> CommandStream:
        return CommandStream(
            topic=EVENTS,
            commands_topic=COMMANDS,
            dead_letter_topic=self.dead_letter_topic,
            source=source,
            asterisk=self.asterisk,
            contexts=self.contexts,
            publisher=self.publisher,
            metrics=self.metrics,
            clock=self.clock,
            answered=self.answered.append,
            admission=Admission(
                allow=self.allow,
                deny=self.deny,
                max_age=self.max_age,
                now=lambda: self.now,
                clock=self.clock,
            ),
            marks=DeliveryMarks(self.store, self.clock) if self.marked else None,
            concurrency=self.concurrency,
            verbose=False,
        )

    def record(
        self, value: bytes | None, key: bytes | None = None, headers: Headers = ()
    ) -> IncomingRecord:
        self.offset += 1
        return IncomingRecord(COMMANDS, 0, self.offset, key, value, 0.0, headers)

    def send(
        self,
        method: Any,
        url: Any,
        body: Any = None,
        context: Any = "call",
        **more: Any,
    ) -> IncomingRecord:
        """Deliver one command as a controller writes it."""
        command = {"ariCommand": {"method": method, "url": url, "body": body}}
        command.update(more)
        if context is not None:
            command["callContext"] = context
        record = self.record(json.dumps(command).encode())
        self.source.deliver(record)
        return record

    def values(self) -> list[dict[str, Any]]:
        return [json.loads(each.value or b"") for each in self.publisher.records]

    def outcomes(self, outcome: str) -> int:
        return counted(
            self.metrics, "ari_proxy_commands_settled_total", outcome=outcome
        )


class AnswerTests(CommandCase):
    """What the answer says."""

    def test_answered(self) -> None:
        """Asterisk's answer is published under the call context, then settled."""
        self.asterisk.respond = always(answer(201, b'{"id": "p"}'))
        record = self.send(
            "POST", "/channels/c/play/p?x=1", {"media": "m"}, commandId="7"
        )
        self.assertEqual(
            self.asterisk.requests,
            [AsteriskRequest("POST", "/channels/c/play/p?x=1", b'{"media":"m"}')],
        )
        published = self.publisher.records[0]
        self.assertEqual((published.topic, published.key), (EVENTS, b"call"))
        self.assertEqual(
            published.value,
            b'{"type":"RESPONSE","commandsTopic":"ari-commands",'
            b'"payload":{"body":{"id":"p"},"status_code":201},"callContext":"call",'
            b'"resources":[{"type":"PLAYBACK","id":"p"},{"type":"CHANNEL","id":"c"}],'
            b'"commandId":"7",'
            b'"commandRequest":{"method":"POST","url":"/channels/c/play/p?x=1"}}',
        )
        self.assertEqual(self.source.settled, [record])
        self.assertEqual(self.outcomes("answered"), 1)
        self.assertEqual(self.answered, ["call"])

    def test_without_call_context(self) -> None:
        """The key is null, and nothing is registered."""
        self.send("POST", "/channels/c/play/p", context=None)
        self.assertIsNone(self.publisher.records[0].key)
        self.assertNotIn("callContext", self.values()[0])
        self.assertEqual(self.store.entries, {})

    def test_status_is_passed_on(self) -> None:
        """Whatever Asterisk answers is an answer."""
        for status in (200, 204, 302, 404, 409, 422, 500, 503):
            self.asterisk.respond = always(answer(status))
            self.send("GET", "/channels/c")
            self.assertEqual(self.values()[-1]["payload"], {"status_code": status})

    def test_refused(self) -> None:
        """A command at fault is answered with 400 and never sent."""
        cases: list[tuple[Any, Any]] = [
            ("GET", "/channels/../../etc"),
            ("GET", "/%2e%2e/x"),
            ("GET", "http://elsewhere/ari/channels"),
            ("GET", "//elsewhere/channels"),
            ("GET", "/channels/a b"),
            ("GET", "/channels/a\nb"),
            ("GET", ""),
            ("GET", None),
            ("FETCH", "/channels"),
            (None, "/channels"),
            ({}, "/channels"),
        ]
        for method, url in cases:
            self.send(method, url, commandId="1")
            value = self.values()[-1]
            self.assertEqual(value["payload"]["status_code"], 400, (method, url))
            self.assertEqual(value["payload"]["body"]["proxy"], True)
            self.assertTrue(value["payload"]["body"]["message"])
            self.assertEqual((value["commandId"], value["callContext"]), ("1", "call"))
        self.assertEqual(self.asterisk.requests, [])
        self.assertEqual(len(self.source.settled), len(cases))
        self.assertEqual(self.outcomes("refused"), len(cases))

    def test_unreachable(self) -> None:
        """Asterisk away: 500 with the reason, and the registration is taken back."""
        self.asterisk.error = AsteriskUnavailable("no connection to x")
        self.send("POST", "/bridges/b")
        self.assertEqual(
            self.values()[0]["payload"],
            {
                "body": {"message": "no connection to x", "proxy": True},
                "status_code": 500,
            },
        )
        self.assertEqual(self.store.entries, {})
        self.assertEqual(self.outcomes("unreachable"), 1)

    def test_unknown_outcome(self) -> None:
        """An answer that was lost says so; the resource may be there."""
        self.asterisk.error = AsteriskAnswerLost("no answer within 30 s")
        self.send("POST", "/bridges/b")
        body = self.values()[0]["payload"]["body"]
        self.assertEqual(body["outcome"], "unknown")
        self.assertEqual(self.store.entries, {KEY_PREFIX + "b": "call"})
        self.assertEqual(self.outcomes("unknown"), 1)

    def test_not_json(self) -> None:
        """What is no JSON is carried in base64."""
        self.asterisk.respond = always(answer(200, b"RIFF\xff", "audio/wav"))
        self.send("GET", "/recordings/stored/r/file")
        self.assertEqual(
            self.values()[0]["payload"]["body"],
            {"content_type": "audio/wav", "base64": "UklGRv8="},
        )

    def test_cut_by_the_transport(self) -> None:
        """A body that was not kept whole is told by its size."""
        self.asterisk.respond = always(AsteriskAnswer(200, b"x", "audio/wav", 99))
        self.send("GET", "/recordings/stored/r/file")
        payload = self.values()[0]["payload"]
        self.assertEqual(payload["status_code"], 200)
        self.assertEqual(
            (payload["body"]["size"], payload["body"]["proxy"]), (99, True)
        )

    def test_too_large(self) -> None:
        """What Kafka does not take is answered with its status and size."""

        def refuse(record: OutgoingRecord) -> Exception | None:
            size = len(record.value or b"")
            return RecordTooLarge("too large") if size > 1000 else None

        self.publisher.refuse = refuse
        self.asterisk.respond = always(answer(201, json.dumps("x" * 5000).encode()))
        self.send("GET", "/channels")
        (value,) = self.values()
        self.assertEqual(value["payload"]["status_code"], 201)
        self.assertGreater(value["payload"]["body"]["size"], 5000)
        self.assertEqual(len(self.source.settled), 1)

    def test_too_large_all_the_same(self) -> None:
        """When even the reduced answer is refused the stream goes on."""
        self.publisher.refuse = lambda record: RecordTooLarge("too large")
        with capturedLogs() as logs:
            self.send("GET", "/channels")
        self.assertEqual(len(self.source.settled), 1)
        self.assertEqual(self.outcomes("answer-lost"), 1)
        self.assertEqual([each["log_level"].name for each in logs], ["error"])

    def test_traceparent(self) -> None:
        """This header goes on to the answer, others do not."""
        command = b'{"ariCommand":{"method":"GET","url":"/channels"}}'
        headers = (("traceparent", b"00-1"), ("other", b"x"))
        self.source.deliver(self.record(command, None, headers))
        self.assertEqual(self.publisher.records[0].headers, (("traceparent", b"00-1"),))

    def test_defect(self) -> None:
        """A defect of ours is answered and logged; the next command runs."""

        def broken(request: AsteriskRequest) -> AsteriskAnswer:
            raise ZeroDivisionError

        self.asterisk.respond = broken
        self.send("GET", "/channels")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.asterisk.respond = always(answer(204))
        self.send("GET", "/channels")
        statuses = [each["payload"]["status_code"] for each in self.values()]
        self.assertEqual(statuses, [500, 204])
        self.assertEqual(self.outcomes("defect"), 1)


class RegistrationTests(CommandCase):
    """Which entries a creating command makes."""

    def test_before_the_request(self) -> None:
        """The entry is there when Asterisk is asked."""
        self.asterisk.holding = True
        self.send("POST", "/channels/c/play", {"playbackId": "p"})
        self.assertEqual(self.store.entries, {KEY_PREFIX + "p": "call"})
        self.assertEqual(len(self.asterisk.held), 1)

    def test_made_id(self) -> None:
        """Without an id the proxy makes one, the same when it is run again."""
        self.send("POST", "/bridges", {"type": "mixing"})
        url = self.asterisk.requests[0].url
        made = url.partition("bridgeId=")[2]
        (value,) = self.values()
        self.assertEqual(value["resources"], [{"type": "BRIDGE", "id": made}])
        self.assertEqual(value["commandRequest"]["url"], "/bridges")
        self.assertEqual(self.store.entries, {KEY_PREFIX + made: "call"})
        self.offset -= 1
        self.send("POST", "/bridges", {"type": "mixing"})
        self.assertEqual(self.asterisk.requests[1].url, url)

    def test_taken_back(self) -> None:
        """What Asterisk refuses is forgotten, if it was new."""
        self.asterisk.respond = always(answer(409))
        self.send("POST", "/bridges/b")
        self.assertEqual(self.store.entries, {})
        self.store.entries[KEY_PREFIX + "mine"] = "call"
        self.send("POST", "/bridges/mine")
        self.assertEqual(self.store.entries, {KEY_PREFIX + "mine": "call"})

    def test_no_theft(self) -> None:
        """Another call's id changes hands only when Asterisk accepts."""
        self.store.entries[KEY_PREFIX + "b"] = "other"
        self.asterisk.respond = always(answer(409))
        self.send("POST", "/bridges/b")
        self.assertEqual(self.store.entries, {KEY_PREFIX + "b": "other"})
        self.asterisk.respond = always(answer(200))
        self.send("POST", "/bridges/b")
        self.assertEqual(self.store.entries, {KEY_PREFIX + "b": "call"})


class OrderTests(CommandCase):
    """What waits for what."""

    concurrency = 3

    def test_one_call(self) -> None:
        """Commands of one call context run one after the other."""
        self.asterisk.holding = True
        for number in range(3):
            self.send("GET", f"/{number}")
        self.assertEqual([each.url for each in self.asterisk.requests], ["/0"])
        self.asterisk.release()
        self.assertEqual([each.url for each in self.asterisk.requests], ["/0", "/1"])

    def test_limit(self) -> None:
        """Commands of different calls run side by side, up to the limit."""
        self.asterisk.holding = True
        for number in range(5):
            self.send("GET", f"/{number}", context=f"call-{number}")
        self.assertEqual(len(self.asterisk.held), 3)
        self.assertEqual((self.stream.running, self.stream.waiting), (3, 2))
        self.asterisk.release()
        self.assertEqual(len(self.asterisk.held), 3)
        self.assertEqual((self.stream.running, self.stream.waiting), (3, 1))

    def test_without_context_by_key(self) -> None:
        """Without call context the record's key tells what belongs together."""
        self.asterisk.holding = True
        value = b'{"ariCommand":{"method":"GET","url":"/x"}}'
        self.source.deliver(*(self.record(value, key) for key in (b"a", b"a", b"b")))
        self.assertEqual(len(self.asterisk.held), 2)

    def test_without_context_and_key(self) -> None:
        """Without both nothing waits for anything."""
        self.asterisk.holding = True
        value = b'{"ariCommand":{"method":"GET","url":"/x"}}'
        self.source.deliver(self.record(value), self.record(value))
        self.assertEqual(len(self.asterisk.held), 2)

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=40))
    @settings(max_examples=60, deadline=None)
    def test_any_mixture(self, plan: list[tuple[int, int]]) -> None:
        """However answers come in, each call's commands are answered in order."""
        self.setUp()
        self.asterisk.holding = True
        for number, (call, turn) in enumerate(plan):
            self.send("GET", f"/{number}", context=f"{call}", commandId=str(number))
            if turn < len(self.asterisk.held):
                self.asterisk.release(turn)
        while self.asterisk.held:
            self.asterisk.release(len(self.asterisk.held) // 2)
        for call in range(5):
            expected = [str(n) for n, (each, _) in enumerate(plan) if each == call]
            found = [
                v["commandId"] for v in self.values() if v["callContext"] == f"{call}"
            ]
            self.assertEqual(found, expected)
        self.assertEqual(len(self.source.settled), len(plan))


class SettlingTests(CommandCase):
    """When an offset may be committed."""

    def test_after_acknowledgement(self) -> None:
        """Not before Kafka has the answer."""
        self.publisher.holding = True
        record = self.send("GET", "/channels")
        self.assertEqual(self.source.settled, [])
        self.publisher.release()
        self.assertEqual(self.source.settled, [record])

    def test_next_command_does_not_wait(self) -> None:
        """The next command of the call runs before the acknowledgement."""
        self.publisher.holding = True
        self.send("GET", "/1")
        self.send("GET", "/2")
        self.assertEqual(len(self.asterisk.requests), 2)

    def test_offered_again(self) -> None:
        """An answer that Kafka does not take now waits, and so does its offset."""
        for error in (BufferFull("full"), PublishFailed("away")):
            self.publisher.refuse = lambda record, error=error: error
            record = self.send("GET", "/channels")
            self.clock.advance(PUBLISH_RETRY_AFTER * 3)
            self.assertNotIn(record, self.source.settled)
            self.publisher.refuse = lambda record: None
            self.clock.advance(PUBLISH_RETRY_AFTER)
            self.assertIn(record, self.source.settled)
        self.assertEqual(len(self.publisher.records), 2)
        self.assertEqual(len(self.asterisk.requests), 2)

    def test_never_taken(self) -> None:
        """An answer that Kafka refuses for good is logged, and the stream goes on."""
        self.publisher.refuse = lambda record: RecordRefused("no such topic")
        with capturedLogs() as logs:
            record = self.send("GET", "/channels", commandId="7")
        self.assertEqual(self.source.settled, [record])
        self.assertEqual(logs[0]["command_id"], "7")
        self.assertEqual(self.outcomes("answer-lost"), 1)

    def test_taken_away(self) -> None:
        """A command of a partition that belongs to somebody else is dropped."""
        self.asterisk.holding = True
        self.send("GET", "/1")
        second = self.send("GET", "/2")
        self.source.taken_away.append(second)
        self.asterisk.release()
        self.assertEqual([each.url for each in self.asterisk.requests], ["/1"])
        self.assertNotIn(second, self.source.settled)


class StopTests(CommandCase):
    """The end in good order."""

    def stop(self) -> Deferred[int]:
        return ensureDeferred(self.stream.stop(10.0))

    def test_idle(self) -> None:
        """Nothing runs: nothing to wait for."""
        self.assertEqual(self.successResultOf(self.stop()), 0)
        self.assertTrue(self.source.paused)

    def test_waits_for_running(self) -> None:
        """Running commands are finished; those that wait are left to the next."""
        self.asterisk.holding = True
        first = self.send("GET", "/1")
        self.send("GET", "/2")
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.asterisk.release()
        self.clock.pump([0.05] * 2)
        self.assertEqual(self.successResultOf(stopped), 0)
        self.assertEqual(self.source.settled, [first])
        self.assertEqual(len(self.asterisk.requests), 1)
        self.send("GET", "/3")
        self.assertEqual(len(self.asterisk.requests), 1)

    def test_limit(self) -> None:
        """It does not wait for ever."""
        self.asterisk.holding = True
        self.send("GET", "/1")
        stopped = self.stop()
        self.clock.pump([0.05] * 201)
        self.assertEqual(self.successResultOf(stopped), 1)


class UnreadableTests(CommandCase):
    """Commands that nobody could answer."""

    BROKEN = (None, b"", b"null", b"[]", b'"x"', b'{"a":', b"[" * 10000, b"\xff")

    def test_settled_and_logged(self) -> None:
        """They are counted, logged once in a while, and hold up nobody."""
        with capturedLogs() as logs:
            self.source.deliver(*map(self.record, self.BROKEN))
        self.send("GET", "/channels")
        self.assertEqual(len(self.source.settled), len(self.BROKEN) + 1)
        self.assertEqual(self.outcomes("undecodable"), len(self.BROKEN))
        self.assertEqual(len(logs), 1)
        self.assertEqual((logs[0]["partition"], logs[0]["offset"]), (0, 1))
        self.assertEqual(len(self.values()), 1)


class DeadLetterTests(CommandCase):
    """The same where a topic for them is set."""

    dead_letter_topic = DEAD

    def test_buried(self) -> None:
        """The value goes there as it came, and says where it stood and why."""
        for value in UnreadableTests.BROKEN:
            record = self.record(value, b"key")
            self.source.deliver(record)
            letter = self.publisher.records[-1]
            self.assertEqual((letter.topic, letter.key), (DEAD, b"key"))
            self.assertEqual(letter.value, value)
            headers = dict(letter.headers)
            self.assertEqual(headers["topic"], b"ari-commands")
            self.assertEqual(headers["partition"], b"0")
            self.assertEqual(headers["offset"], str(record.offset).encode())
            self.assertTrue(headers["error"])
            self.assertIn(record, self.source.settled)

    def test_waits_for_kafka(self) -> None:
        """It is settled when Kafka has it."""
        self.publisher.refuse = lambda record: PublishFailed("away")
        record = self.record(b"x")
        self.source.deliver(record)
        self.assertEqual(self.source.settled, [])
        self.publisher.refuse = lambda record: None
        self.clock.advance(PUBLISH_RETRY_AFTER)
        self.assertEqual(self.source.settled, [record])

    def test_refused(self) -> None:
        """A letter that cannot be delivered is logged and given up."""
        self.publisher.refuse = lambda record: RecordRefused("no such topic")
        with capturedLogs() as logs:
            self.source.deliver(self.record(b"x"))
        self.assertEqual(len(self.source.settled), 1)
        self.assertEqual(logs[-1]["log_level"].name, "error")


class RulesTests(CommandCase):
    """What the operator does not allow."""

    allow = ("* /channels/**", "GET /bridges", "POST /bridges/*/play")
    deny = ("DELETE /channels/*",)

    def test_rules(self) -> None:
        """Refused with 403, and never sent; what is allowed passes."""
        for method, url, status in (
            ("POST", "/channels/c/answer", 200),
            ("POST", "/channels?endpoint=x", 200),
            ("DELETE", "/channels/c/hold", 200),
            ("DELETE", "/channels/c", 403),
            ("delete", "/channels/c?x=/y", 403),
            ("GET", "/bridges", 200),
            ("GET", "/bridges/b", 403),
            ("POST", "/bridges/b/play", 200),
            ("POST", "/bridges/b/play/p", 403),
            ("GET", "/channelsx", 403),
            ("GET", "/asterisk/info", 403),
        ):
            self.send(method, url)
            payload = self.values()[-1]["payload"]
            self.assertEqual(payload["status_code"], status, (method, url))
            if status == 403:
                self.assertIn("service.commands.", payload["body"]["message"])
        self.assertEqual(len(self.asterisk.requests), 5)
        self.assertEqual(self.outcomes("refused"), 6)

    def test_logged(self) -> None:
        """Once in a while for each list."""
        with capturedLogs() as logs:
            for _ in range(3):
                self.send("GET", "/asterisk/info")
        self.assertEqual(len(logs), 1)


class AgeTests(CommandCase):
    """Commands that come too late."""

    max_age = 5.0

    def test_too_old(self) -> None:
        """Answered with 500, and not run."""
        self.send("GET", "/channels")
        payload = self.values()[0]["payload"]
        self.assertEqual(payload["status_code"], 500)
        self.assertIn("service.commands.max-age", payload["body"]["message"])
        self.assertEqual(self.asterisk.requests, [])

    def test_young_enough(self) -> None:
        """Up to the limit it is run."""
        self.now = 5.0
        self.send("GET", "/channels")
        self.assertEqual(len(self.asterisk.requests), 1)

    def test_without_time(self) -> None:
        """A record whose age nobody knows is run."""
        value = b'{"ariCommand":{"method":"GET","url":"/x"}}'
        self.source.deliver(IncomingRecord(COMMANDS, 0, 1, None, value))
        self.assertEqual(len(self.asterisk.requests), 1)


class AtMostOnceTests(CommandCase):
    """Commands that may be delivered again."""

    marked = True

    def again(self, record: IncomingRecord) -> OutgoingRecord:
        """The same record once more, as after a crash; gives its answer."""
        self.source.deliver(record)
        return self.publisher.records[-1]

    def test_marked_before_asking(self) -> None:
        """The mark is in the store when Asterisk is asked."""
        self.store.holding = True
        self.send("POST", "/channels/c/answer")
        self.store.release()
        self.assertEqual(self.asterisk.requests, [])
        self.store.release()
        self.assertEqual(len(self.asterisk.requests), 1)
        self.assertEqual(
            self.store.entries, {"ari-proxy:command:ari-commands/0/1": "1"}
        )
        self.assertEqual(self.publisher.records[0].headers, ())

    def test_not_run_again(self) -> None:
        """The second time its outcome is unknown, and the answer says so."""
        record = self.send("POST", "/channels/c/answer")
        answer = self.again(record)
        value = json.loads(answer.value or b"")
        self.assertEqual(value["payload"]["status_code"], 500)
        self.assertEqual(value["payload"]["body"]["outcome"], "unknown")
        self.assertEqual(answer.headers, (("delivery", b"2"),))
        self.assertEqual(self.again(record).headers, (("delivery", b"3"),))
        self.assertEqual(len(self.asterisk.requests), 1)

    def test_read_again(self) -> None:
        """A GET changes nothing: it is asked again, and known as a repetition."""
        record = self.send("GET", "/channels")
        answer = self.again(record)
        self.assertEqual(json.loads(answer.value or b"")["payload"]["status_code"], 200)
        self.assertEqual(answer.headers, (("delivery", b"2"),))
        self.assertEqual(len(self.asterisk.requests), 2)

    def test_store_away(self) -> None:
        """Without a mark it is not run."""
        self.store.error = StoreUnavailable("away")
        self.send("POST", "/channels/c/answer")
        self.assertEqual(self.values()[0]["payload"]["status_code"], 500)
        self.store.error = None
        self.store.holding = True
        self.send("POST", "/channels/c/answer", context="other")
        self.clock.advance(1)
        self.assertEqual(len(self.values()), 2)
        self.assertEqual(self.asterisk.requests, [])
        self.assertEqual(self.outcomes("unmarked"), 2)
