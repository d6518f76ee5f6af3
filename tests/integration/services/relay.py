"""A TCP relay before a server, for lines that are slow, silent or cut."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.integration.services.ports import HOST, free_port


class Relay:
    """Passes on what comes to its port, and the answers.

    All may be changed while connections are open.

    :ivar port: where it listens, the same after ``refuse``.
    :ivar delay: seconds that what comes from now on is on its way, in each direction.
    """

    def __init__(self, reactor: Any, target: int) -> None:
        """Do not listen yet.

        :param target: the port of the server, on 127.0.0.1.
        """
        self.reactor = reactor
        self.target = target
        self.port = free_port()
        self.delay = 0.0
        self.stalled = False
        self.ends: set[_End] = set()
        self._listening: Any = None

    @property
    def connections(self) -> int:
        """How many are open on the side of the clients."""
        return sum(end.accepted for end in self.ends)

    def accept(self) -> None:
        """Take connections from now on."""
        self._listening = self.reactor.listenTCP(
            self.port, Factory.forProtocol(lambda: _End(self, True)), interface=HOST
        )

    def stall(self) -> None:
        """Pass on nothing; connections are still taken, and none is closed."""
        self.stalled = True

    def resume(self) -> None:
        """Pass on again, first what has come meanwhile."""
        self.stalled = False
        for end in self.ends:
            end.pass_on()

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        for end in list(self.ends):
            end.abort()

    async def refuse(self) -> None:
        """Reset all connections and refuse new ones. May be repeated."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        self.cut()


class _End(Protocol):
    """One end of a connection; what comes is kept until its time has come."""

    def __init__(self, relay: Relay, accepted: bool) -> None:
        self.accepted = accepted
        self.other: _End | None = None
        self._relay = relay
        # When it is due, and what; the end of the connection is ``None``.
        self._kept: deque[tuple[float, bytes | None]] = deque()
        self._timer: Any = None
        self._aborted = False

    def connectionMade(self) -> None:
        self._relay.ends.add(self)
        self.transport.setTcpNoDelay(True)
        if self.accepted:
            onward = _End(self._relay, False)
            onward.other = self
            endpoint = TCP4ClientEndpoint(self._relay.reactor, HOST, self._relay.target)
            connectProtocol(endpoint, onward).addCallbacks(
                self._joined, lambda failure: self.abort()
            )

    def _joined(self, onward: _End) -> None:
        if self not in self._relay.ends:
            onward.abort()
            return
        self.other = onward
        self.pass_on()

    def dataReceived(self, data: bytes) -> None:
        self._keep(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._relay.ends.discard(self)
        if not self._aborted:
            self._keep(None)

    def _keep(self, data: bytes | None) -> None:
        due = self._relay.reactor.seconds() + self._relay.delay
        if self._kept:
            due = max(due, self._kept[-1][0])
        self._kept.append((due, data))
        self.pass_on()

    def pass_on(self) -> None:
        """Pass on what is due."""
        if self._timer is not None or self.other is None or self._relay.stalled:
            return
        while self._kept:
            due, data = self._kept[0]
            wait = due - self._relay.reactor.seconds()
            if wait > 0:
                self._timer = self._relay.reactor.callLater(wait, self._look)
                return
            self._kept.popleft()
            if data is None:
                self.other.transport.loseConnection()
            else:
                self.other.transport.write(data)

    def _look(self) -> None:
        self._timer = None
        self.pass_on()

    def abort(self) -> None:
        """Reset the connection on both sides; what is kept is thrown away."""
        if self._aborted:
            return
        self._aborted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._kept.clear()
        self.transport.abortConnection()
        if self.other is not None:
            self.other.abort()
