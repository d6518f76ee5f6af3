"""Tests for the Cassandra store against a server that is played by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import cassandra
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ariproxy.errors import (
    AriProxyError,
    StoreRefused,
    StoreUnavailable,
    TemporaryError,
)
from ariproxy.store.cassandra import (
    QUIET,
    RETRY_DELAY,
    UNDER_WAY,
    CassandraStore,
)
from ariproxy.store.cassandra_connection import (
    ConnectTrouble,
    Trouble,
    explained,
    server,
)
from ariproxy.store.cassandra_settings import CassandraSettings, cassandra_settings
from tests.fake_workers import HeldWorkers, SynchronousWorkers
from tests.store_contract import StoreContract

NODE = "127.0.0.1:9042"


def settings(**basic: Any) -> CassandraSettings:
    """Settings for a server on this machine."""
    return cassandra_settings(
        {"basic": {"contact-points": [NODE], "session-keyspace": "retel", **basic}}
    )


class Question:
    """One statement on its way; also what the driver calls a response future."""

    def __init__(
        self, statement: str, parameters: tuple[Any, ...], timeout: float
    ) -> None:
        self.asked = (statement, *parameters)
        self.timeout = timeout
        self.answer: Callable[[Any], None]
        self.fail: Callable[[Exception], None]

    def add_callbacks(
        self, answer: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        """As the driver's."""
        self.answer, self.fail = answer, failed


class HeldLink:
    """Keeps the questions until the test answers them."""

    get, set, read, rewrite, forget = "get", "set", "read", "rewrite", "forget"

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.closed = 0

    def execute_async(
        self, statement: str, parameters: tuple[Any, ...], timeout: float
    ) -> Question:
        """As the driver's."""
        question = Question(statement, parameters, timeout)
        self.questions.append(question)
        return question

    def take(self) -> Question:
        """The oldest question."""
        return self.questions.pop(0)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class AnsweringLink(HeldLink):
    """Answers at once, from rows that expire."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self._rows: dict[str, tuple[str, float, int]] = {}
        self._writes = 0

    def execute_async(
        self, statement: str, parameters: tuple[Any, ...], timeout: float
    ) -> Question:
        """As the driver's."""
        question = super().execute_async(statement, parameters, timeout)
        played = getattr(self, f"_{statement}")(*self.take().asked[1:])
        question.add_callbacks = (  # type: ignore[method-assign]
            lambda answer, failed: answer(played)
        )
        return question

    def _read(self, key: str) -> list[tuple[str, int]]:
        value, expires, written = self._rows.get(key, ("", 0.0, 0))
        return [(value, written)] if expires > self.now else []

    def _get(self, key: str) -> list[tuple[str]]:
        return [row[:1] for row in self._read(key)]

    def _set(self, key: str, value: str, ttl: int) -> None:
        self._writes += 1000
        self._rewrite(key, value, ttl, self._writes)

    def _rewrite(self, key: str, value: str, ttl: int, written: int) -> None:
        if written > self._rows.get(key, ("", 0.0, 0))[2]:
            self._rows[key] = (value, self.now + ttl, written)

    def _forget(self, key: str) -> None:
        self._rows.pop(key, None)


class CassandraStoreContractTests(StoreContract, TestCase):
    """CassandraStore keeps the contract of IStore, its driver apart."""

    async def make_store(self) -> CassandraStore:
        self.link: Any = AnsweringLink()
        return CassandraStore(
            reactor,
            settings(),
            self.ttl,
            SynchronousWorkers(),
            "n1",
            lambda _: self.link,
        )

    async def pass_time(self, seconds: float) -> None:
        self.link.now += seconds


class _PlayedTests(SynchronousTestCase):
    """Makes a store whose attempts to connect, and questions, are held."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.workers = HeldWorkers()
        self.link: Any = HeldLink()
        self.trouble: Trouble | None = None
        self.opened = 0
        self.store = CassandraStore(
            self.clock, settings(), 599.5, self.workers, "n1", self.open
        )

    def open(self, _: CassandraSettings) -> Any:
        self.opened += 1
        if self.trouble:
            raise ConnectTrouble(self.trouble)
        return self.link

    def away(self, text: str = "it is away") -> None:
        """Let attempts to connect fail from now on."""
        self.trouble = Trouble(StoreUnavailable, text, True)

    def start(self, call: Awaitable[Any]) -> Deferred[Any]:
        async def awaited() -> Any:
            return await call

        return ensureDeferred(awaited())

    def get(self, key: str = "key") -> Deferred[Any]:
        return self.start(self.store.get(key))

    def connect(self) -> None:
        """Let the first call connect and have its answer."""
        first = self.get("first")
        self.workers.release()
        self.link.take().answer([])
        self.assertIsNone(self.successResultOf(first))

    def failed(
        self, answer: Deferred[Any], kind: type[AriProxyError] = StoreUnavailable
    ) -> str:
        text = str(self.failureResultOf(answer, kind).value)
        self.assertTrue(text.startswith(f"Cassandra {NODE}: "), text)
        return text


class BusyReactor(HeldWorkers):
    """Its reactor does something else until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Callable[[], Any]] = []

    def to_reactor(self, function: Callable[..., Any], *args: Any) -> None:
        """Keep it until ``go_on``."""
        self.waiting.append(partial(function, *args))

    def go_on(self) -> None:
        """Do what waits now."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()


class WakingTests(_PlayedTests):
    """The driver's threads wake the reactor no more often than is needed."""

    def test_together(self) -> None:
        """Answers wait together for a busy reactor; later ones wake it again."""
        workers = BusyReactor()
        self.store = CassandraStore(
            self.clock, settings(), 599.5, workers, "n1", self.open
        )
        answers = [self.get(str(number)) for number in range(3)]
        workers.release()
        for number in range(2):
            self.link.take().answer([(f"value {number}",)])
        self.assertEqual(len(workers.waiting), 1)
        self.assertNoResult(answers[0])
        workers.go_on()
        self.assertEqual(self.successResultOf(answers[0]), "value 0")
        self.assertEqual(self.successResultOf(answers[1]), "value 1")
        self.link.take().answer([("value 2",)])
        self.assertEqual(len(workers.waiting), 1)
        workers.go_on()
        self.assertEqual(self.successResultOf(answers[2]), "value 2")


class CallTests(_PlayedTests):
    """What is asked, and when."""

    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def test_set(self) -> None:
        """The ttl is a whole number of seconds and not less than wanted."""
        done = self.start(self.store.set("key", "value"))
        question = self.link.take()
        self.assertEqual(question.asked, ("set", "key", "value", 600))
        self.assertEqual(question.timeout, 1.0)
        question.answer(None)
        self.assertIsNone(self.successResultOf(done))

    def test_refresh(self) -> None:
        """The value is read, and written a microsecond newer."""
        done = self.start(self.store.refresh("key"))
        self.clock.advance(0.25)
        self.link.take().answer([("value", 17)])
        question = self.link.take()
        self.assertEqual(question.asked, ("rewrite", "key", "value", 600, 18))
        self.assertEqual(question.timeout, 0.75)
        question.answer(None)
        self.assertIsNone(self.successResultOf(done))

    def test_refresh_absent(self) -> None:
        """What is not there, or has no value, is not written."""
        for rows in ([], [(None, None)]):
            done = self.start(self.store.refresh("key"))
            self.link.take().answer(rows)
            self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.link.questions, [])

    def test_check(self) -> None:
        """A row of this node's own, for a minute."""
        done = self.start(self.store.check())
        question = self.link.take()
        self.assertEqual(
            question.asked, ("set", "HEALTHCHECK_n1", "1n_KCEHCHTLAEH", 60)
        )
        question.answer(None)
        self.link.take().answer([("1n_KCEHCHTLAEH",)])
        self.assertIsNone(self.successResultOf(done))

    def test_check_reads_otherwise(self) -> None:
        """A replica that has not got the row yet names the setting."""
        done = self.start(self.store.check())
        self.link.take().answer(None)
        self.link.take().answer([])
        self.assertIn("basic.request.consistency to LOCAL_QUORUM", self.failed(done))

    def test_keys_side_by_side(self) -> None:
        """Calls with different keys do not wait for one another."""
        answers = [self.get(str(number)) for number in range(3)]
        self.assertEqual(len(self.link.questions), 3)
        self.link.questions[2].answer([("two",)])
        self.assertEqual(self.successResultOf(answers[2]), "two")
        for question in self.link.questions[:2]:
            question.answer([])
        self.assertIsNone(self.successResultOf(answers[0]))
        self.assertIsNone(self.successResultOf(answers[1]))

    def test_one_key_in_order(self) -> None:
        """Calls with one key go one after the other, also after a failure."""
        calls = [self.start(self.store.set("key", "a")), self.get(), self.get()]
        self.assertEqual(len(self.link.questions), 1)
        self.link.take().fail(cassandra.OperationTimedOut())
        self.failed(calls[0])
        for call in calls[1:]:
            self.clock.advance(0)
            self.assertEqual(len(self.link.questions), 1)
            self.link.take().answer([("a",)])
            self.assertEqual(self.successResultOf(call), "a")

    def test_waiting_counts(self) -> None:
        """What has waited for its turn until the limit is not asked any more."""
        first = self.get()
        self.clock.advance(0.4)
        second = self.get()
        self.clock.advance(0.3)
        third = self.get()
        self.clock.advance(0.3)
        self.link.take().fail(cassandra.OperationTimedOut())
        self.failed(first)
        self.clock.advance(0)
        question = self.link.take()
        self.assertAlmostEqual(question.timeout, 0.4)
        self.clock.advance(1)
        question.fail(cassandra.OperationTimedOut())
        self.clock.advance(0)
        self.assertIn("no answer within 1 s", self.failed(second))
        self.assertIn("no answer within 1 s", self.failed(third))
        self.assertEqual(self.link.questions, [])

    def test_gives_up_waiting(self) -> None:
        """Who gives up lets the next one have the turn."""
        calls = [self.get() for _ in range(4)]
        calls[1].cancel()
        self.failureResultOf(calls[1], CancelledError)
        calls[0].cancel()
        self.failureResultOf(calls[0], CancelledError)
        calls[2].cancel()
        self.failureResultOf(calls[2], CancelledError)
        self.clock.advance(0)
        self.assertEqual(len(self.link.questions), 2)
        self.link.take().answer([("late",)])
        self.link.take().answer([("in time",)])
        self.assertEqual(self.successResultOf(calls[3]), "in time")

    def test_long_line(self) -> None:
        """A long line of calls with one key can fail together."""
        calls = [self.get() for _ in range(3000)]
        self.clock.advance(2)
        self.link.take().fail(cassandra.OperationTimedOut())
        self.clock.pump([0] * 3000)
        for call in calls:
            self.failed(call)

    def test_full(self) -> None:
        """So many calls that the driver might block are refused; then not."""
        calls = [self.get(str(number)) for number in range(UNDER_WAY)]
        self.assertIn("under way", self.failed(self.get("one more")))
        for question in self.link.questions:
            question.answer([])
        for call in calls:
            self.assertIsNone(self.successResultOf(call))
        self.get("one more")
        self.assertEqual(len(self.link.questions), UNDER_WAY + 1)

    def test_close(self) -> None:
        """Close waits for the answers, and closes the link."""
        answer = self.get()
        closed = self.start(self.store.close())
        self.assertNoResult(closed)
        self.link.take().answer([("value",)])
        self.assertEqual(self.successResultOf(answer), "value")
        self.assertNoResult(closed)
        self.workers.release()
        self.assertIsNone(self.successResultOf(closed))
        self.assertEqual(self.link.closed, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_while_hanging(self) -> None:
        """Close ends after two seconds, whatever the driver does."""
        self.get()
        closed = self.start(self.store.close())
        self.clock.advance(1)
        self.assertNoResult(closed)
        self.clock.advance(1)
        self.assertIsNone(self.successResultOf(closed))


class ConnectingTests(_PlayedTests):
    """Connecting goes on in the background."""

    def test_first_call(self) -> None:
        """Nothing is done before the first call; it waits for the connection."""
        self.assertEqual(len(self.workers.calls), 0)
        answers = [self.get("a"), self.get("b")]
        self.assertEqual(len(self.workers.calls), 1)
        with capturedLogs() as logged:
            self.workers.release()
        self.assertEqual(len(self.link.questions), 2)
        for question in self.link.questions:
            question.answer([])
        self.assertIsNone(self.successResultOf(answers[0]))
        self.assertIsNone(self.successResultOf(answers[1]))
        self.assertEqual([e["log_level"] for e in logged], [LogLevel.info])

    def test_slow(self) -> None:
        """A call does not wait longer than its limit; the attempt goes on."""
        answer = self.get()
        self.clock.advance(1)
        self.assertIn("no answer within 1 s", self.failed(answer))
        self.workers.release()
        self.assertEqual(self.link.questions, [])
        self.get()
        self.assertEqual(len(self.link.questions), 1)
        self.assertEqual(self.opened, 1)

    def test_away(self) -> None:
        """Calls fail with the reason, later ones at once, and one line is logged."""
        self.away()
        answers = [self.get("a"), self.get("b")]
        with capturedLogs() as logged:
            self.workers.release()
            for answer in answers:
                self.assertIn("it is away", self.failed(answer))
            for _ in range(5):
                self.assertIn("it is away", self.failed(self.get()))
                self.clock.advance(RETRY_DELAY)
                self.workers.release()
        self.assertEqual([e["log_level"] for e in logged], [LogLevel.warn])
        self.assertEqual(self.opened, 6)

    def test_errors_are_apart(self) -> None:
        """Each call has an error of its own, so that tracebacks do not grow."""
        self.away()
        answers = [self.get("a"), self.get("b")]
        self.workers.release()
        one, two = [self.failureResultOf(answer).value for answer in answers]
        self.assertIsNot(one, two)

    def test_another_reason(self) -> None:
        """A new reason is a new line."""
        self.away()
        with capturedLogs() as logged:
            self.failed_attempt()
            self.away("another reason")
            self.clock.advance(RETRY_DELAY)
            self.workers.release()
        self.assertEqual(len(logged), 2)
        self.assertIn("another reason", self.failed(self.get()))

    def failed_attempt(self) -> None:
        answer = self.get()
        self.workers.release()
        self.failed(answer)

    def test_back(self) -> None:
        """When an attempt succeeds, calls work."""
        self.away()
        self.failed_attempt()
        self.trouble = None
        self.clock.advance(RETRY_DELAY)
        self.workers.release()
        answer = self.get()
        self.link.take().answer([("value",)])
        self.assertEqual(self.successResultOf(answer), "value")

    def test_lost(self) -> None:
        """Without a node the link is closed, then another one is made."""
        self.connect()
        answers = [self.get("a"), self.get("b")]
        lost = NoHostAvailable("", {NODE: ConnectionShutdown("gone")})
        for question in self.link.questions:
            question.fail(lost)
        for answer in answers:
            self.assertIn("no node can be reached", self.failed(answer))
        old, self.link = self.link, HeldLink()
        answer = self.get()
        self.workers.release()
        self.assertEqual((old.closed, self.opened), (1, 1))
        self.workers.release()
        self.assertEqual(self.opened, 2)
        self.link.take().answer([("value",)])
        self.assertEqual(self.successResultOf(answer), "value")
        self.assertEqual(len(self.workers.calls), 0)

    def test_not_lost(self) -> None:
        """Nodes that answer, though with an error, keep their connections."""
        self.connect()
        answer = self.get()
        busy = cassandra.Unavailable("no replicas")
        self.link.take().fail(NoHostAvailable("", {NODE: busy}))
        self.assertIn("too few replicas", self.failed(answer))
        self.get()
        self.assertEqual(len(self.link.questions), 1)

    def test_close_while_connecting(self) -> None:
        """Who waits is told; what is then connected is closed."""
        answer = self.get()
        self.assertIsNone(self.successResultOf(self.start(self.store.close())))
        self.assertIn("closed", self.failed(answer))
        self.workers.release_all()
        self.assertEqual(self.link.closed, 1)

    def test_close_while_failing(self) -> None:
        """An attempt that fails after close is the last one, and not logged."""
        self.away()
        self.failed(self.start(self.closed_meanwhile()))
        with capturedLogs() as logged:
            self.workers.release_all()
        self.assertEqual((self.opened, logged), (1, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def closed_meanwhile(self) -> Any:
        answer = self.get()
        await self.store.close()
        return await answer

    def test_close_between_attempts(self) -> None:
        """Close ends the wait for the next attempt."""
        self.away()
        self.failed_attempt()
        self.assertIsNone(self.successResultOf(self.start(self.store.close())))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_threads_have_ended(self) -> None:
        """Without threads calls fail, and nothing is said of a fault."""
        self.workers.call = lambda function, *args: fail(  # type: ignore
            TemporaryError("the threads have ended")
        )
        self.assertIn("closed", self.failed(self.get()))

    def test_defect(self) -> None:
        """A fault in connecting is logged with its traceback, and calls fail."""
        self.open = lambda _: 1 / 0  # type: ignore[method-assign, assignment]
        self.store = CassandraStore(
            self.clock, settings(), 600, self.workers, "n1", self.open
        )
        answer = self.get()
        self.workers.release()
        self.assertIn("connecting failed", self.failed(answer))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class TroubleLogTests(_PlayedTests):
    """Troubles of single statements are logged when they begin and end."""

    def setUp(self) -> None:
        super().setUp()
        self.connect()

    def refuse(self) -> None:
        answer = self.start(self.store.set("key", "value"))
        self.link.take().fail(cassandra.Unauthorized("no"))
        self.failed(answer, StoreRefused)

    def succeed(self, call: Awaitable[Any]) -> None:
        answer = self.start(call)
        self.link.take().answer([])
        self.successResultOf(answer)

    def test_once(self) -> None:
        """The same trouble again is not logged again."""
        with capturedLogs() as logged:
            for _ in range(3):
                self.refuse()
                self.clock.advance(10)
        self.assertEqual([e["log_level"] for e in logged], [LogLevel.warn])

    def test_over(self) -> None:
        """It is over when such a statement succeeds after a quiet time."""
        self.refuse()
        with capturedLogs() as logged:
            self.succeed(self.store.set("key", "value"))
            self.clock.advance(QUIET)
            self.succeed(self.store.get("key"))
            self.assertEqual(logged, [])
            self.succeed(self.store.set("key", "value"))
            self.succeed(self.store.set("key", "value"))
        self.assertEqual([e["log_level"] for e in logged], [LogLevel.info])


class ExplainedTests(SynchronousTestCase):
    """What the driver's errors mean."""

    def explain(self, problem: Exception, **changes: Any) -> Trouble:
        return explained(problem, settings(**changes))

    def refusal(self, message: str) -> Trouble:
        return self.explain(
            cassandra.InvalidRequest(
                f'Error from server: code=2200 [Invalid query] message="{message}"'
            )
        )

    def test_statements(self) -> None:
        """Each refusal names what mends it."""
        for message, words in (
            ("keyspace retel does not exist", "no keyspace retel; correct "),
            ("Keyspace 'retel' does not exist", "no keyspace retel; correct "),
            ("unconfigured table retel", "no table retel.retel; make it: ari-proxy "),
            ("table retel does not exist", "no table retel.retel; make it: ari-proxy "),
            ("Undefined column name key in table retel.retel", '"key" text PRIMARY'),
            ("Invalid type for value", '"key" text PRIMARY KEY'),
            ("Key may not be empty", "Key may not be empty; see Cassandra's log"),
        ):
            trouble = self.refusal(message)
            self.assertIn(words, trouble.text)
            self.assertEqual((trouble.error, trouble.lost), (StoreRefused, False))

    def test_failures(self) -> None:
        """What nodes cannot do now may pass, and the connections stay."""
        for problem, words in (
            (cassandra.Unavailable("x"), "too few replicas are alive for LOCAL_ONE"),
            (
                cassandra.WriteTimeout("x", write_type=0),
                "replicas do not answer in time",
            ),
            (cassandra.ReadTimeout("x"), "replicas do not answer in time"),
            (cassandra.WriteFailure("x"), "WriteFailure; see Cassandra's log"),
            (cassandra.OperationTimedOut(), "no answer within 1 s"),
            (RuntimeError("odd\nthing"), "odd thing; see Cassandra's log"),
        ):
            trouble = self.explain(problem)
            self.assertIn(words, trouble.text)
            self.assertEqual((trouble.error, trouble.lost), (StoreUnavailable, False))

    def test_connections(self) -> None:
        """What the socket and TLS say, as the driver wraps it."""
        wrapped = "Tried connecting to [('127.0.0.1', 9042)]. Last error: "
        verify = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        for problem, error, words in (
            (ConnectionRefusedError(111, wrapped), StoreUnavailable, "start Cassandra"),
            (ConnectionResetError(104, "x"), StoreUnavailable, "cut the connection"),
            (
                OSError(113, wrapped + "No route to host"),
                StoreUnavailable,
                "No route to host; see datastax-java-driver.basic.contact-points",
            ),
            (
                PermissionError(1, wrapped + verify + "self-signed certificate"),
                StoreRefused,
                "not trusted; correct datastax-java-driver.advanced.ssl-engine-fact",
            ),
            (
                PermissionError(1, wrapped + verify + "IP address mismatch, ..."),
                StoreRefused,
                "ssl-engine-factory.hostname-validation = false",
            ),
            (
                PermissionError(1, wrapped + "[SSL: WRONG_VERSION_NUMBER] wrong"),
                StoreRefused,
                "it speaks no TLS",
            ),
            (
                OSError(8, wrapped + "EOF occurred in violation of protocol"),
                StoreUnavailable,
                "ssl-engine-factory.keystore-path if it asks",
            ),
            (
                OSError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert"),
                StoreRefused,
                "set datastax-java-driver.advanced.ssl-engine-factory.keystore-path",
            ),
            (cassandra.UnresolvableContactPoints({}), StoreUnavailable, "no such host"),
            (ConnectionShutdown("x"), StoreUnavailable, "no node can be reached"),
        ):
            trouble = self.explain(problem)
            self.assertIn(words, trouble.text)
            self.assertEqual((trouble.error, trouble.lost), (error, True))

    def test_authentication(self) -> None:
        """With a user the password is wrong; without one it is missing."""
        refused = cassandra.AuthenticationFailed("user cassandra, password s3cret")
        self.assertIn("set datastax-java-driver.adv", self.explain(refused).text)
        with_user = cassandra_settings(
            {
                "basic": {"session-keyspace": "retel"},
                "advanced": {
                    "auth-provider": {
                        "class": "PlainTextAuthProvider",
                        "username": "ari",
                        "password": "s3cret",
                    }
                },
            }
        )
        text = explained(refused, with_user).text
        self.assertIn("correct datastax-java-driver.advanced.auth-provider.user", text)
        self.assertNotIn("s3cret", text)

    def test_several_nodes(self) -> None:
        """What a person must mend tells more than what may pass."""
        trouble = self.explain(
            NoHostAvailable(
                "",
                {
                    "a": ConnectionRefusedError(111, "x"),
                    "b": cassandra.AuthenticationFailed("x"),
                },
            )
        )
        self.assertEqual((trouble.error, trouble.lost), (StoreRefused, True))

    def test_no_nodes(self) -> None:
        """The driver may know no node at all, or give a list of addresses."""
        for errors in ({}, ["127.0.0.1"]):
            trouble = self.explain(NoHostAvailable("Unable to connect", errors))
            self.assertIn("no node can be reached; start Cassandra", trouble.text)
            self.assertTrue(trouble.lost)

    def test_server(self) -> None:
        """All contact points are named."""
        points = {"contact-points": ["a:1", "[::1]:2"]}
        self.assertEqual(server(settings(**points)), "Cassandra a:1, ::1:2")


class DriverTests(SynchronousTestCase):
    """The driver is loaded late, and may be missing."""

    def run_script(self, script: str) -> str:
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return run.stdout

    def test_not_imported(self) -> None:
        """Neither the driver nor the reactor is imported with the modules."""
        script = (
            "import sys, ariproxy.store.cassandra, ariproxy.store.cassandra_schema\n"
            "from ariproxy.store.cassandra_connection import require_driver\n"
            "require_driver()\n"
            "print([name in sys.modules for name in "
            "('cassandra.cluster', 'twisted.internet.reactor')])"
        )
        self.assertEqual(self.run_script(script), "[False, False]\n")

    def test_missing(self) -> None:
        """A missing driver is an error that says what to install."""
        script = (
            "import sys; sys.modules['cassandra'] = None\n"
            "from ariproxy.errors import ConfigError\n"
            "from ariproxy.store.cassandra_connection import require_driver\n"
            "try: require_driver()\n"
            "except ConfigError as error: print(error)"
        )
        self.assertIn("pip install 'ari-proxy[cassandra]'", self.run_script(script))
