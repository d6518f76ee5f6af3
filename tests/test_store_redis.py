"""Tests for the Redis store against a server that is played by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
)
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ariproxy.config import load
from ariproxy.errors import AriProxyError, ConfigError, StoreRefused, StoreUnavailable
from ariproxy.interfaces import IStore
from ariproxy.store import redis
from ariproxy.store.backends import open_store
from ariproxy.store.redis import (
    ADDRESS_DELAY,
    CONNECT_LIMIT,
    FIRST_DELAY,
    LAST_DELAY,
    QUIET,
    RedisStore,
)
from tests.fake_workers import SynchronousWorkers

SAMPLE = Path(__file__).parent.parent / "etc/ari-proxy/service.conf"
PASSWORD = "s3cret pass"
PONG = b"+PONG\r\n"
OK = b"+OK\r\n"
NIL = b"$-1\r\n"


def command(*words: str) -> bytes:
    """A command as it goes over the wire (RESP 2)."""
    parts = [f"*{len(words)}\r\n"]
    parts += [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return "".join(parts).encode()


@implementer(IReactorPluggableNameResolver, IHostnameResolver)
class PlayedReactor(MemoryReactorClock):
    """A reactor in memory that knows every host's address; older ones know none."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver: Any = self

    def resolveHostName(
        self, receiver: Any, name: str, portNumber: int = 0, *more: Any
    ) -> Any:
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()


class PlayedServer:
    """The other end of one connection of the store."""

    def __init__(self, reactor: PlayedReactor) -> None:
        self._reactor = reactor
        factory = reactor.tcpClients.pop()[2]
        address = IPv4Address("TCP", "127.0.0.1", 6379)
        protocol: Any = factory.buildProtocol(address)
        self._protocol = protocol
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = protocol
        self._protocol.makeConnection(self.transport)

    def asked(self) -> bytes:
        """What was sent since the last call."""
        sent = self.transport.value()
        self.transport.clear()
        return sent

    def answer(self, *answers: bytes) -> None:
        """Send these, one packet each."""
        for answer in answers:
            self._protocol.dataReceived(answer)
            self._reactor.advance(0)

    def close(self) -> None:
        """End the connection."""
        self.transport.connected = False
        self._protocol.connectionLost(Failure(ConnectionDone()))


class _PlayedTests(SynchronousTestCase):
    """Makes stores on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = PlayedReactor()
        self.store = self.make()

    def make(self, **settings: Any) -> RedisStore:
        arguments: dict[str, Any] = {
            "reactor": self.reactor,
            "host": "127.0.0.1",
            "port": 6379,
            "db": 0,
            "ttl": 600.0,
            "username": None,
            "password": None,
            "tls": None,
            "timeout": 1.0,
            "node": "n1",
        }
        return RedisStore(**(arguments | settings))

    def start(self, call: Awaitable[Any]) -> Deferred[Any]:
        async def awaited() -> Any:
            return await call

        return ensureDeferred(awaited())

    def get(self, key: str = "key") -> Deferred[Any]:
        return self.start(self.store.get(key))

    def set(self, key: str = "key") -> Deferred[Any]:
        return self.start(self.store.set(key, "value"))

    def server(self) -> PlayedServer:
        """Accept the connection that the store has asked for."""
        self.assertEqual(len(self.reactor.tcpClients), 1)
        return PlayedServer(self.reactor)

    def connected(self) -> PlayedServer:
        """A connection that has proved to work and is idle."""
        first = self.get("first")
        server = self.server()
        server.answer(PONG, NIL)
        self.assertIsNone(self.successResultOf(first))
        server.asked()
        return server

    def refuse(self) -> None:
        """Let the attempt to connect fail."""
        factory: Any = self.reactor.tcpClients.pop()[2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(ADDRESS_DELAY)

    def trouble(self, answer: Deferred[Any], kind: type[AriProxyError]) -> str:
        text = str(self.failureResultOf(answer, kind).value)
        self.assertTrue(text.startswith("Redis 127.0.0.1:6379: "), text)
        return text


class RedisConnectionTests(_PlayedTests):
    """When a connection is opened, and what waits for it."""

    def test_interface(self) -> None:
        """It is an IStore."""
        verifyObject(IStore, self.store)

    def test_nothing_before_the_first_call(self) -> None:
        """Building the store touches no network and leaves no timer."""
        self.assertEqual(self.reactor.tcpClients, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_import_needs_no_reactor(self) -> None:
        """Importing the module chooses no reactor."""
        script = "import sys, ariproxy.store.redis as r; "
        script += "print('twisted.internet.reactor' in sys.modules)"
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertEqual(run.stdout, "False\n")

    def test_proved_first(self) -> None:
        """Commands wait until the server has answered PING, then go in order."""
        answers = [self.set(), self.get()]
        server = self.server()
        self.assertEqual(server.asked(), command("PING"))
        server.answer(PONG)
        self.assertEqual(
            server.asked(),
            command("SET", "key", "value", "EX", "600") + command("GET", "key"),
        )
        server.answer(OK, b"$5\r\nvalue\r\n")
        self.assertEqual([self.successResultOf(a) for a in answers], [None, "value"])

    def test_log_in(self) -> None:
        """User, password and database come first, and in one go."""
        self.store = self.make(username="ari", password=PASSWORD, db=2)
        self.get()
        server = self.server()
        self.assertEqual(
            server.asked(),
            command("AUTH", "ari", PASSWORD) + command("SELECT", "2") + command("PING"),
        )
        server.answer(OK, OK)
        self.assertEqual(server.asked(), b"")
        server.answer(PONG)
        self.assertEqual(server.asked(), command("GET", "key"))

    def test_password_alone(self) -> None:
        """Without a user the password is the default user's."""
        self.store = self.make(password=PASSWORD)
        self.get()
        sent = self.server().asked()
        self.assertEqual(sent, command("AUTH", PASSWORD) + command("PING"))

    def test_pipelined(self) -> None:
        """No command waits for another's answer, and they share a connection."""
        server = self.connected()
        answers = [self.get(f"k{i}") for i in range(20)]
        self.assertEqual(server.asked().count(b"GET"), 20)
        self.assertEqual(self.reactor.tcpClients, [])
        server.answer(*[b"$1\r\n%d\r\n" % (i % 10) for i in range(20)])
        found = [self.successResultOf(answer) for answer in answers]
        self.assertEqual(found, [str(i % 10) for i in range(20)])

    def test_whole_seconds(self) -> None:
        """Redis counts whole seconds, and a ttl is never none."""
        self.store = self.make(ttl=0.2)
        server = self.connected()
        self.set()
        self.start(self.store.refresh("key"))
        self.assertEqual(
            server.asked(),
            command("SET", "key", "value", "EX", "1") + command("EXPIRE", "key", "1"),
        )

    def test_refused_connection(self) -> None:
        """All who wait fail at once, as do others until there is a connection."""
        waiting = [self.get(), self.set()]
        self.refuse()
        for answer in [*waiting, self.get()]:
            self.assertIn("start Redis", self.trouble(answer, StoreUnavailable))
        self.reactor.advance(FIRST_DELAY)
        server = self.server()
        self.trouble(self.get(), StoreUnavailable)
        server.answer(PONG)
        self.assertNoResult(self.get())

    def test_tried_for_ever(self) -> None:
        """Attempts go on by themselves, ever more rarely, but once a second."""
        self.get().addErrback(lambda failure: None)
        delays = []
        for _ in range(8):
            self.refuse()
            began = self.reactor.seconds()
            while not self.reactor.tcpClients:
                self.reactor.advance(0.01)
            delays.append(round(self.reactor.seconds() - began, 1))
        self.assertEqual(delays, [0.1, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0])

    def test_no_answer_to_connecting(self) -> None:
        """A call waits no longer than its limit; the attempt goes on."""
        answer = self.get()
        self.reactor.advance(0.99)
        self.assertNoResult(answer)
        self.reactor.advance(0.01)
        self.assertIn("within 1 s", self.trouble(answer, StoreUnavailable))
        self.assertIn("within 1 s", self.trouble(self.get(), StoreUnavailable))
        self.reactor.advance(5)
        self.server().answer(PONG)
        self.assertNoResult(self.get())

    def test_attempt_ends(self) -> None:
        """An attempt that comes to nothing makes room for another one."""
        self.get().addErrback(lambda failure: None)
        self.reactor.tcpClients.clear()
        self.reactor.advance(CONNECT_LIMIT)
        self.assertEqual(self.reactor.tcpClients, [])
        self.reactor.advance(FIRST_DELAY)
        self.server().answer(PONG)
        self.assertNoResult(self.get())

    def test_no_answer_to_ping(self) -> None:
        """A server that accepts and hangs is no connection, and is cut off."""
        answer = self.get()
        server = self.server()
        self.reactor.advance(1)
        self.assertIn("within 1 s", self.trouble(answer, StoreUnavailable))
        self.assertTrue(server.transport.connected)
        self.reactor.advance(CONNECT_LIMIT - 1)
        self.assertFalse(server.transport.connected)

    def test_lost_again_and_again(self) -> None:
        """A server that accepts and hangs up is not dialled ever more often."""
        server = self.connected()
        for delay in (FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY):
            server.close()
            self.reactor.advance(delay * 0.9)
            self.assertEqual(self.reactor.tcpClients, [])
            self.reactor.advance(delay * 0.1)
            server = self.server()
            server.answer(PONG)
        self.reactor.advance(LAST_DELAY)
        server.close()
        self.reactor.advance(FIRST_DELAY)
        self.server()

    def test_limit_counts_from_the_call(self) -> None:
        """Connecting takes its part of a call's limit; the connection stays."""
        answer = self.get()
        server = self.server()
        self.reactor.advance(0.8)
        server.answer(PONG)
        self.reactor.advance(0.2)
        self.trouble(answer, StoreUnavailable)
        later = self.get("later")
        self.assertTrue(server.transport.connected)
        server.answer(b"$5\r\nfirst\r\n", b"$5\r\nlater\r\n")
        self.assertEqual(self.successResultOf(later), "later")

    def test_waiting_is_bounded(self) -> None:
        """Not all the calls in the world wait for a connection."""
        self.patch(redis, "WAITING", 3)
        answers = [self.get() for _ in range(4)]
        for answer in answers[:3]:
            self.assertNoResult(answer)
        self.assertIn("3 calls wait", self.trouble(answers[3], StoreUnavailable))

    def test_given_up_while_waiting(self) -> None:
        """A call that was given up is not sent when the connection is there."""
        answer = self.get("given up")
        other = self.get("other")
        answer.cancel()
        self.failureResultOf(answer)
        server = self.server()
        server.asked()
        server.answer(PONG)
        self.assertEqual(server.asked(), command("GET", "other"))
        server.answer(NIL)
        self.assertIsNone(self.successResultOf(other))


class RedisSilenceTests(_PlayedTests):
    """A connection on which nothing comes back."""

    def test_cut(self) -> None:
        """When one answer is late, those behind it fail too, and the line is cut."""
        server = self.connected()
        first = self.get()
        self.reactor.advance(0.6)
        second = self.get()
        self.reactor.advance(0.39)
        self.assertNoResult(first)
        self.reactor.advance(0.01)
        for answer in first, second:
            self.assertIn("within 1 s", self.trouble(answer, StoreUnavailable))
        self.assertFalse(server.transport.connected)
        self.trouble(self.get(), StoreUnavailable)
        self.reactor.advance(FIRST_DELAY)
        self.server().answer(PONG)
        self.assertNoResult(self.get())

    def test_slow_is_not_silent(self) -> None:
        """A server that is slow, but within the limit, is kept."""
        server = self.connected()
        answers = []
        for _ in range(30):
            answers.append(self.get())
            self.reactor.advance(0.1)
            if len(answers) > 8:
                server.answer(NIL)
                self.assertIsNone(self.successResultOf(answers.pop(0)))
        self.assertTrue(server.transport.connected)

    def test_one_timer(self) -> None:
        """Many calls need one timer, an idle connection none."""
        server = self.connected()
        for _ in range(100):
            self.get()
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        server.answer(NIL * 100)
        self.reactor.advance(1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """The answer to a call that was given up is not taken for another's."""
        server = self.connected()
        first, second = self.get("first"), self.get("second")
        first.cancel()
        self.failureResultOf(first)
        server.answer(b"$5\r\nfirst\r\n", b"$6\r\nsecond\r\n")
        self.assertEqual(self.successResultOf(second), "second")

    def test_unasked_answer(self) -> None:
        """An answer that nobody asked for is not taken for the next call's."""
        server = self.connected()
        server.answer(b"$5\r\nstray\r\n")
        self.assertFalse(server.transport.connected)
        answer = self.get()
        self.reactor.advance(FIRST_DELAY)
        self.server().answer(PONG, NIL)
        self.assertIsNone(self.successResultOf(answer))

    def test_closed_by_redis(self) -> None:
        """Calls under way fail; the next one waits for a new connection."""
        server = self.connected()
        answer = self.set()
        server.close()
        self.assertIn("closed the connection", self.trouble(answer, StoreUnavailable))
        answer = self.get()
        self.reactor.advance(FIRST_DELAY)
        self.server().answer(PONG, NIL)
        self.assertIsNone(self.successResultOf(answer))

    def test_close(self) -> None:
        """Close waits for what was asked, and for no answer longer than the limit."""
        server = self.connected()
        answered = self.set()
        closing = self.start(self.store.close())
        self.assertIn("closed", self.trouble(self.get(), StoreUnavailable))
        self.assertNoResult(closing)
        server.answer(OK)
        self.successResultOf(closing)
        self.successResultOf(answered)
        self.assertFalse(server.transport.connected)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close_while_away(self) -> None:
        """Close leaves no attempt and no timer behind."""
        for answers in [], [b"-LOADING\r\n"]:
            self.reactor = PlayedReactor()
            self.store = self.make()
            answer = self.get()
            if answers:
                self.server().answer(*answers)
            self.successResultOf(self.start(self.store.close()))
            self.trouble(answer, StoreUnavailable)
            self.assertEqual(self.reactor.getDelayedCalls(), [])
            self.assertIn("closed", self.trouble(self.get(), StoreUnavailable))

    def test_close_in_answer(self) -> None:
        """Who closes the store because a call failed leaves nothing behind."""

        async def get_or_close() -> None:
            try:
                await self.store.get("key")
            except StoreUnavailable:
                await self.store.close()

        closing = self.start(get_or_close())
        self.refuse()
        self.successResultOf(closing)
        self.reactor.advance(LAST_DELAY)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_close_in_silence(self) -> None:
        """A server that hangs does not hold up close beyond the limit."""
        self.connected()
        answer = self.set()
        closing = self.start(self.store.close())
        self.reactor.advance(1)
        self.successResultOf(closing)
        self.trouble(answer, StoreUnavailable)


class RedisRefusalTests(_PlayedTests):
    """What Redis answers with an error."""

    def refused(self, answer: bytes, kind: type[AriProxyError], *words: str) -> None:
        self.reactor = PlayedReactor()
        self.store = self.make()
        server = self.connected()
        call = self.set()
        server.answer(b"-" + answer + b"\r\n")
        text = self.trouble(call, kind)
        for word in ("SET", *words):
            self.assertIn(word, text)

    def test_each_with_its_mend(self) -> None:
        """Each kind of refusal names what mends it, and whether it may pass."""
        unavailable, refused = StoreUnavailable, StoreRefused
        for answer, kind, *words in (
            (b"LOADING Redis is loading the dataset in memory", unavailable, "wait"),
            (b"READONLY You can't write against a read only replica.", unavailable,
             "READONLY", "service.redis.host"),
            (b"MOVED 12182 127.0.0.1:7002", refused, "MOVED", "no cluster"),
            (b"ASK 12182 127.0.0.1:7002", refused, "no cluster"),
            (b"CLUSTERDOWN Hash slot not served", unavailable, "no cluster"),
            (b"NOAUTH Authentication required.", refused, "service.redis.password"),
            (b"NOPERM this user has no permissions", refused, "service.redis.username"),
            (b"OOM command not allowed", unavailable, "maxmemory"),
            (b"MISCONF Redis is configured to save RDB snapshots", refused, "disk"),
            (b"BUSY Redis is busy running a script.", unavailable, "SCRIPT KILL"),
            (b"WRONGTYPE Operation against a key", refused, "another program"),
            (b"ERR unknown command 'SET', with args beginning with: 'key' 'value' ",
             refused, "an error", "log"),
        ):  # fmt: skip
            self.refused(answer, kind, *words)

    def test_password_is_never_repeated(self) -> None:
        """A server that repeats what it was sent does not bring it into a text."""
        self.store = self.make(username="ari", password=PASSWORD)
        echo = (
            f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}'\r\n"
        )
        with capturedLogs() as logged:
            answer = self.get()
            server = self.server()
            server.answer(echo.encode() + PONG)
        text = self.trouble(answer, StoreRefused)
        self.assertIn("AUTH", text)
        self.assertNotIn(PASSWORD, text)
        self.assertNotIn(PASSWORD, str(logged))
        self.assertNotIn(PASSWORD, repr(self.store))
        self.assertFalse(server.transport.connected)

    def test_refused_log_in_is_tried_again(self) -> None:
        """After a refused password the next attempt may succeed."""
        self.store = self.make(password=PASSWORD)
        answer = self.get()
        self.server().answer(b"-WRONGPASS invalid pair\r\n-NOAUTH required\r\n")
        self.trouble(answer, StoreRefused)
        self.reactor.advance(FIRST_DELAY)
        server = self.server()
        server.answer(OK, PONG)
        answer = self.get()
        server.answer(NIL)
        self.assertIsNone(self.successResultOf(answer))

    def test_loading_is_no_connection(self) -> None:
        """A server that reads its data is asked again, not written to."""
        answer = self.set()
        server = self.server()
        server.asked()
        server.answer(b"-LOADING Redis is loading the dataset in memory\r\n")
        self.assertIn("LOADING", self.trouble(answer, StoreUnavailable))
        self.assertEqual(server.asked(), b"")

    def test_ping_not_permitted(self) -> None:
        """A user who may not PING is logged in all the same."""
        answer = self.get()
        server = self.server()
        server.answer(b"-NOPERM no permissions to run the 'ping' command\r\n", NIL)
        self.assertIsNone(self.successResultOf(answer))

    def test_check(self) -> None:
        """The probe writes and reads one key of the node, with a short ttl."""
        server = self.connected()
        answer = self.start(self.store.check())
        value = "1n_KCEHCHTLAEH"
        self.assertEqual(
            server.asked(), command("SET", "HEALTHCHECK_n1", value, "EX", "60")
        )
        server.answer(OK)
        self.assertEqual(server.asked(), command("GET", "HEALTHCHECK_n1"))
        server.answer(f"${len(value)}\r\n{value}\r\n".encode())
        self.assertIsNone(self.successResultOf(answer))

    def test_check_reads_otherwise(self) -> None:
        """A probe that reads something else is no success."""
        server = self.connected()
        answer = self.start(self.store.check())
        server.answer(OK, NIL)
        self.trouble(answer, StoreRefused)


class RedisLogTests(_PlayedTests):
    """Once for each change of state."""

    def levels(self, logged: Sequence[Any]) -> list[LogLevel]:
        return [event["log_level"] for event in logged]

    def test_down_and_up(self) -> None:
        """An outage is one warning, its end one line."""
        with capturedLogs() as logged:
            for _ in range(5):
                self.get().addErrback(lambda failure: None)
                self.refuse()
                self.reactor.advance(LAST_DELAY)
            self.server().answer(PONG)
            self.get()
        self.assertEqual(self.levels(logged), [LogLevel.warn, LogLevel.info])

    def test_refusals(self) -> None:
        """A refusal is logged once, also when calls between succeed."""
        server = self.connected()
        with capturedLogs() as logged:
            for _ in range(5):
                self.set("one").addErrback(lambda failure: None)
                server.answer(b"-MOVED 1 127.0.0.1:1\r\n")
                self.set("two")
                server.answer(OK)
                self.reactor.advance(QUIET / 2)
        self.assertEqual(self.levels(logged), [LogLevel.warn])

    def test_refusals_end(self) -> None:
        """When a command has not been refused for a while, that is said."""
        server = self.connected()
        with capturedLogs() as logged:
            self.set().addErrback(lambda failure: None)
            server.answer(b"-OOM command not allowed\r\n")
            self.reactor.advance(QUIET)
            self.get()
            server.answer(NIL)
            self.assertEqual(self.levels(logged), [LogLevel.warn])
            for _ in range(2):
                self.set()
                server.answer(OK)
        self.assertEqual(self.levels(logged), [LogLevel.warn, LogLevel.info])


class OpenRedisTests(_PlayedTests):
    """From the configuration to the store."""

    def asked(self, *settings: str, answers: Sequence[bytes]) -> bytes:
        config = load(str(SAMPLE), ["service.redis.host=127.0.0.1", *settings])
        self.store = open_store(
            config, self.reactor, lambda: 0.0, "n1", SynchronousWorkers()
        )
        self.set()
        server = self.server()
        server.answer(*answers)
        return server.asked()

    def test_defaults(self) -> None:
        """Without a ttl it is the original's; without a password none is sent."""
        sent = self.asked("service.redis.db=4", answers=[OK, PONG])
        self.assertEqual(
            sent,
            command("SELECT", "4")
            + command("PING")
            + command("SET", "key", "value", "EX", "21600"),
        )

    def test_settings(self) -> None:
        """What is set is used."""
        sent = self.asked(
            "service.redis.db=4",
            "service.redis.ttl=90s",
            "service.redis.username=ari",
            f"service.redis.password={PASSWORD}",
            answers=[OK, OK, PONG],
        )
        self.assertTrue(sent.startswith(command("AUTH", "ari", PASSWORD)))
        self.assertTrue(sent.endswith(command("SET", "key", "value", "EX", "90")))

    def test_empty_password(self) -> None:
        """An empty password is none."""
        sent = self.asked("service.redis.db=4", "service.redis.password=", answers=())
        self.assertTrue(sent.startswith(command("SELECT", "4")))

    def test_unusable_ca(self) -> None:
        """A CA file that cannot be used is an error that names setting and file."""
        path = self.mktemp()
        with self.assertRaises(ConfigError) as raised:
            self.asked("service.redis.tls=true", f"service.redis.ca={path}", answers=())
        self.assertIn(f"service.redis.ca: {path}: ", str(raised.exception))
