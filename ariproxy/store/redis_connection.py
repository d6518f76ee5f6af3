"""One connection to Redis, over txredisapi's protocol, and what may be wrong.

txredisapi's pool is not used: it lets commands wait without limit, stops for
ever when a log-in is refused, and belongs to the global reactor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from twisted.internet import error
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ariproxy.errors import AriProxyError, StoreRefused, StoreUnavailable
from ariproxy.tls import tls_failure

__all__ = [
    "LATE",
    "Connection",
    "ConnectionTrouble",
    "Trouble",
    "late",
    "open_connection",
    "refusal",
]

LATE = "late"
"""The code of a trouble that is silence."""


class Trouble(NamedTuple):
    """What is wrong: the error to raise, a short code, and the text with its mend."""

    error: type[AriProxyError]
    code: str
    text: str


class ConnectionTrouble(Exception):
    """The connection could not be made, or went; ``trouble`` says why."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text)
        self.trouble = trouble


_TLS_KEYS = (
    "service.redis.ca",
    "service.redis.host",
    "service.redis.tls or service.redis.port",
)

_CLUSTER = "name a server that is no cluster in service.redis.host"
_PASSWORD = "correct service.redis.username and service.redis.password"
_NO_PASSWORD = (
    "the server asks for none: remove service.redis.password, or set it there"
)

# Redis' error code, or words of an error without one -> may it pass by itself?
# and what mends it.
_REFUSALS = {
    "LOADING": (True, "Redis still reads its data; wait until it has"),
    "BUSY": (True, "a script blocks Redis; end it with SCRIPT KILL"),
    "MASTERDOWN": (True, "this replica has lost its master; see service.redis.host"),
    "READONLY": (True, "this is a replica; name its master in service.redis.host"),
    "OOM": (True, "raise maxmemory in Redis, or set its maxmemory-policy"),
    "TRYAGAIN": (True, _CLUSTER),
    "CLUSTERDOWN": (True, _CLUSTER),
    "MOVED": (False, _CLUSTER),
    "ASK": (False, _CLUSTER),
    "DENIED": (False, "Redis is in protected mode; set a password in it"),
    "MISCONF": (False, "Redis cannot save its data; see its disk and its log"),
    "NOAUTH": (False, "set service.redis.password"),
    "WRONGPASS": (False, _PASSWORD),
    "NOPERM": (
        False,
        "allow the user of service.redis.username: ping, select, get, set, expire, del",
    ),
    "WRONGTYPE": (False, "another program keeps something else under this key"),
    "max number of clients": (True, "raise maxclients in Redis"),
    "without any password": (False, _NO_PASSWORD),
    "no password is set": (False, _NO_PASSWORD),
    "invalid password": (False, _PASSWORD),
    "for 'auth' command": (False, "before Redis 6: remove service.redis.username"),
    "DB index": (False, "correct service.redis.db"),
}


def refusal(command: str, answer: str) -> Trouble:
    """What Redis' error means. Its text is not repeated: it may hold a password."""
    code = answer.split(" ", 1)[0]
    if code not in _REFUSALS:
        code = next((words for words in _REFUSALS if words in answer), "an error")
    passes, mend = _REFUSALS.get(code, (False, "see Redis' version and its log"))
    return Trouble(
        StoreUnavailable if passes else StoreRefused,
        code,
        f"{command} was answered with {code}; {mend}",
    )


def late(seconds: float) -> Trouble:
    """No answer came in time."""
    return Trouble(
        StoreUnavailable,
        LATE,
        f"no answer within {seconds:g} s; see whether Redis hangs or is overloaded, "
        "and service.redis.host, service.redis.port and service.redis.tls",
    )


def _described(problem: BaseException | None, seconds: float) -> Trouble:
    """Why a connection could not be made, or went."""
    if isinstance(problem, ConnectionTrouble):
        return problem.trouble
    if isinstance(
        problem,
        TimeoutError
        | CancelledError
        | error.TimeoutError
        | error.ConnectingCancelledError,
    ):
        return late(seconds)
    if failure := tls_failure(problem, *_TLS_KEYS):
        return Trouble(StoreRefused, "TLS", failure.text)
    if isinstance(problem, error.ConnectionRefusedError):
        text = (
            "connection refused; start Redis, or correct service.redis.host "
            "and service.redis.port"
        )
    elif isinstance(problem, error.DNSLookupError):
        text = "no such host; correct service.redis.host"
    elif isinstance(problem, error.ConnectionDone | error.ConnectionLost):
        text = "Redis closed the connection; see its log, and service.redis.tls"
    else:
        reason = " ".join(str(problem).split())
        text = f"{reason}; see service.redis.host and service.redis.port"
    return Trouble(StoreUnavailable, type(problem).__name__, text)


async def open_connection(
    clock: Any,
    endpoint: IStreamClientEndpoint,
    login: list[tuple[str, ...]],
    limit: float,
    timeout: float,
    lost: Callable[[Trouble], None],
) -> Connection:
    """Connect, and carry out the commands of ``login``, in ``limit`` seconds.

    Redis is asked ``PING`` last, as a server that hangs, or still reads its
    data, accepts connections too. Raises ``ConnectionTrouble``.

    :param timeout: seconds in which the connection's later commands are answered.
    :param lost: called once when the connection goes after this returned.
    """
    # txredisapi imports the global reactor.
    from txredisapi import RedisProtocol, ResponseError

    factory = Factory()
    factory.noisy = False
    factory.protocol = partial(  # type: ignore[assignment]
        RedisProtocol, convertNumbers=False
    )
    began = clock.seconds()
    try:
        protocol = await endpoint.connect(factory).addTimeout(limit, clock)
    except Exception as problem:
        raise ConnectionTrouble(_described(problem, limit)) from problem
    connection = Connection(clock, protocol, began + limit - clock.seconds())
    commands = [*login, ("PING",)]
    # All in one go: on a slow line each round counts.
    answers = await DeferredList(
        [connection.ask(*command) for command in commands], consumeErrors=True
    )
    for command, (answered, answer) in zip(commands, answers, strict=True):
        if answered:
            continue
        if answer.check(ResponseError):
            trouble = refusal(command[0], str(answer.value))
            if (command[0], trouble.code) == ("PING", "NOPERM"):
                continue  # It answers, and that was the question.
        else:
            trouble = connection.gone or _described(answer.value, limit)
        connection.cut(trouble)
        raise ConnectionTrouble(trouble)
    connection.use(timeout, lost)
    return connection


class Connection:
    """A connection that is cut when an answer is not there in time.

    Answers come in the order of asking, so one timer, for the oldest, does for
    all of them.
    """

    def __init__(self, clock: Any, protocol: Any, timeout: float) -> None:
        self.gone: Trouble | None = None
        self.ended: Deferred[None] = Deferred()
        self._clock = clock
        self._protocol = protocol
        self._timeout = timeout
        self._lost: Callable[[Trouble], None] = lambda trouble: None
        self._due: deque[float] = deque()
        self._timer: Any = None
        self._idle: Deferred[None] | None = None
        self._put_reply = protocol.replyQueue.put
        self._connection_lost = protocol.connectionLost
        protocol.replyReceived = self._reply_received
        protocol.connectionLost = self._went
        protocol.callLater = clock.callLater

    def use(self, timeout: float, lost: Callable[[Trouble], None]) -> None:
        """From now on answers are due in ``timeout``, and ``lost`` is told the end."""
        self._timeout = timeout
        self._lost = lost
        self._stop_timer()

    def ask(self, *command: str | int) -> Deferred[Any]:
        """Redis' answer. Fails with txredisapi's errors."""
        answer = self._protocol.execute_command(*command)
        self._due.append(self._clock.seconds() + self._timeout)
        if self._timer is None:
            self._timer = self._clock.callLater(self._timeout, self._look)
        return answer

    def cut(self, trouble: Trouble) -> None:
        """End it at once; what is not answered by now fails."""
        if self.gone is None:
            self.gone = trouble
            self._lost(trouble)
            self._protocol.transport.abortConnection()

    async def finish(self) -> None:
        """Return when all is answered, or the connection is gone."""
        if self._due:
            self._idle = Deferred()
            await self._idle

    def _look(self) -> None:
        self._timer = None
        if self._due:
            left = self._due[0] - self._clock.seconds()
            if left > 0:
                self._timer = self._clock.callLater(left, self._look)
            else:
                self.cut(late(self._timeout))

    def _reply_received(self, reply: Any) -> None:
        if not self._due:
            # It would be taken for the answer to the next command.
            text = "an answer came that nobody asked for; see service.redis.port"
            self.cut(Trouble(StoreUnavailable, "unasked", text))
            return
        self._due.popleft()
        self._put_reply(reply)
        if self._idle is not None and not self._due:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _went(self, reason: Failure) -> None:
        self._stop_timer()
        if self.gone is None:
            self.gone = _described(reason.value, self._timeout)
            self._lost(self.gone)
        # Fails whatever is not answered.
        self._connection_lost(reason)
        self.ended.callback(None)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
