"""The websocket on which Asterisk sends its events, by autobahn.

An own loop keeps it open: connecting -> open -> waiting -> connecting ..., until
stopped. All times come from the clock that is handed in, so autobahn's own
timers, which ask a global one, are off.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from os import urandom
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from txaio.tx import make_logger

from ariproxy.ari.frames import masked_text
from ariproxy.tls import tls_failure

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds between two attempts: doubled after each, first again after an open
socket, each lengthened by up to a fifth so that many proxies do not come at once."""

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for Asterisk's answer to the upgrade."""

CLOSE_TIMEOUT = 2.0
"""Seconds for Asterisk's answer to our close."""

LONGEST_MESSAGE = 16 * 1024 * 1024

_TLS_KEYS = (
    "service.asterisk.ca",
    "the host in service.asterisk.server (or service.websocket-uri)",
    "service.asterisk.tls or the port in service.asterisk.server "
    "(or service.websocket-uri)",
)

_NO_ANSWER = (
    "no answer to the upgrade; see Asterisk's log, and whether service.asterisk.tls "
    "(or service.websocket-uri) fits the port"
)

_REFUSALS = {
    401: "the user or password is wrong (ari.conf)",
    403: "the user may not use ARI (ari.conf)",
    404: "ARI is not there (res_ari loaded, enabled in ari.conf and http.conf?)",
    503: "Asterisk is still loading",
}


class _Socket(WebSocketClientProtocol):
    """One connection; ``closed`` fires with the reason when it has ended."""

    # autobahn tells of every failed attempt in two lines of its own, and at
    # debug of the headers with the password. The reasons are in ``closed``.
    log = make_logger(level="critical")

    def __init__(self, owner: EventSocket) -> None:
        super().__init__()
        self._owner = owner
        self._given_up = ""
        self._silent_since_ping = False
        self._timer: IDelayedCall | None = None
        self.opened = False
        self.closed: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        self._after(HANDSHAKE_TIMEOUT, self._give_up, _NO_ANSWER)
        super().connectionMade()

    def onOpen(self) -> None:
        self.opened = True
        self._after(self._owner.ping_interval, self._ping)
        self._owner.has_opened()

    def dataReceived(self, data: bytes) -> None:
        self._silent_since_ping = False
        try:
            super().dataReceived(data)
        except Exception:
            if self.opened:
                raise
            # What listens there is no web server: not even text comes from it.
            self._give_up("what answers to the upgrade speaks no HTTP")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._owner.receive(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        # The server is to hang up after the close (RFC 6455, 7.1.1).
        self._after(CLOSE_TIMEOUT, self._give_up, "")
        return super().onCloseFrame(code, reasonRaw)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self._forget_timer()
        self.closed.callback(self._why(reason))

    def close(self) -> None:
        """Say goodbye, and hang up if Asterisk does not answer."""
        if not self.opened:
            self._give_up("stopped")
            return
        self._after(CLOSE_TIMEOUT, self._give_up, "no answer to our close")
        self.sendClose(1000)

    def send_text(self, message: bytes) -> bool:
        """Send a message; ``False`` after the close has begun.

        Written here, as autobahn makes a masker, and text for a log that nobody
        reads, for each message.
        """
        if self.state != self.STATE_OPEN:
            return False
        transport: Any = self.transport
        transport.write(masked_text(message, urandom(4)))
        return True

    def _ping(self) -> None:
        if self._silent_since_ping:
            self._give_up("nothing came since the last ping, not even a pong")
            return
        self._silent_since_ping = True
        self.sendPing()
        self._after(self._owner.ping_interval, self._ping)

    def _after(
        self, seconds: float | None, action: Callable[..., None], *args: Any
    ) -> None:
        """Plan the one next step in time, if any, in place of the one planned."""
        self._forget_timer()
        if seconds is not None:
            self._timer = self._owner.clock.callLater(seconds, action, *args)

    def _forget_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _give_up(self, why: str) -> None:
        self._given_up = why
        transport: Any = self.transport
        transport.abortConnection()

    def _why(self, reason: Any) -> str:
        if self._given_up:
            return self._given_up
        failed = self.droppedByMe and self.wasNotCleanReason
        if failed and not self.opened:
            refused = re.search(r"\[(\d{3})\]", failed)
            if refused is None:
                return f"the upgrade failed: {_one_line(failed)}"
            meaning = _REFUSALS.get(int(refused[1]), "see Asterisk's log")
            return f"Asterisk refused the upgrade with {refused[1]}: {meaning}"
        if failed:
            return _one_line(failed)
        if self.remoteCloseCode is not None:
            text = _one_line(self.remoteCloseReason or "no reason given")
            return f"Asterisk closed it with code {self.remoteCloseCode} ({text})"
        if isinstance(reason, Failure):
            return self._connection_ended(reason.value)
        return "the connection ended"

    def _connection_ended(self, error: BaseException) -> str:
        if failure := tls_failure(error, *_TLS_KEYS):
            return failure.text
        ended = f"the connection ended: {_said(error)}"
        return ended if self.opened else f"{_NO_ANSWER} ({ended})"


class _SocketFactory(WebSocketClientFactory):
    def __init__(self, owner: EventSocket, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._owner = owner

    def buildProtocol(self, addr: Any) -> _Socket:
        socket = _Socket(self._owner)
        socket.factory = self
        return socket


class EventSocket:
    """Keeps the websocket open and hands on every message, in order.

    :param endpoint: where Asterisk is; verifies its certificate if it has TLS.
    :param url: the address of ``/ari/events`` without credentials.
    :param authorization: the value of the Authorization header.
    :param ping_interval: seconds between two pings, ``None`` for none; a socket
        on which nothing came between two pings is given up.
    :param jitter: gives numbers from 0 to 1.
    :param receive: takes each message, text or binary; must not raise.
    :param opened: called each time that the socket has opened; must not raise.
    :param closed: called each time that an open socket has ended; must not raise.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        url: str,
        authorization: str,
        user_agent: str,
        ping_interval: float | None,
        jitter: Callable[[], float],
        receive: Callable[[bytes], None],
        opened: Callable[[], None],
        closed: Callable[[], None],
    ) -> None:
        self._endpoint = endpoint
        self.clock = clock
        self.ping_interval = ping_interval
        self._jitter = jitter
        self.receive = receive
        self._opened = opened
        self._closed = closed
        self._url = url
        self._factory = _SocketFactory(
            self,
            url,
            useragent=user_agent,
            headers={"Authorization": authorization},
            reactor=clock,
        )
        self._factory.setProtocolOptions(
            utf8validateIncoming=False,
            maxMessagePayloadSize=LONGEST_MESSAGE,
            maxFramePayloadSize=LONGEST_MESSAGE,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            tcpNoDelay=True,
        )
        self._factory.noisy = False
        self._socket: _Socket | None = None
        self._pending: Deferred[Any] | None = None
        self._stopping = False
        self._ended: Deferred[None] | None = None
        self.state = "stopped"
        self.since = clock.seconds()
        self.reason = "not started"

    @property
    def is_open(self) -> bool:
        """Whether events can come now."""
        return self.state == "open"

    def start(self) -> None:
        """Begin to connect; goes on for ever."""
        self._ended = ensureDeferred(self._run()).addErrback(
            lambda failure: self._log.failure("The websocket's loop failed", failure)
        )

    def send(self, message: bytes) -> bool:
        """Send one text message; ``False`` if the socket is not open."""
        if self._socket is None or not self.is_open:
            return False
        return self._socket.send_text(message)

    async def stop(self) -> None:
        """Close the socket and return when it has ended. May be repeated."""
        self._stopping = True
        if self._socket is not None:
            self._socket.close()
        elif self._pending is not None:
            self._pending.cancel()
        if self._ended is not None:
            ended, self._ended = self._ended, None
            await ended

    def has_opened(self) -> None:
        """Called by the socket when Asterisk has accepted the upgrade."""
        self._enter("open", "")
        self._log.info("Websocket to {url} is open", url=self._url)
        self._opened()

    def _enter(self, state: str, reason: str) -> None:
        self.state, self.reason, self.since = state, reason, self.clock.seconds()

    async def _run(self) -> None:
        wait = FIRST_WAIT
        while not self._stopping:
            self._enter("connecting", self.reason)
            opened, reason = await self._connection()
            if self._stopping:
                break
            wait = FIRST_WAIT if opened else wait
            pause = wait * (1 + 0.2 * self._jitter())
            self._enter("waiting", reason)
            self._log.warn(
                "Websocket to {url} is down: {reason}; next attempt in {pause:.1f} s",
                url=self._url,
                reason=reason,
                pause=pause,
            )
            await self._interruptible(deferLater(self.clock, pause))
            wait = min(2 * wait, LONGEST_WAIT)
        self._enter("stopped", "stopped")

    async def _connection(self) -> tuple[bool, str]:
        """One connection from beginning to end: was it open, and why it ended."""
        try:
            socket = await self._interruptible(self._endpoint.connect(self._factory))
        except Exception as error:
            return False, f"no connection: {_said(error)}"
        if socket is None:
            return False, "stopped"
        self._socket = socket
        if self._stopping:
            socket.close()
        try:
            reason = await socket.closed
            return socket.opened, reason
        finally:
            self._socket = None
            if socket.opened:
                self._enter("closed", self.reason)
                self._closed()

    async def _interruptible(self, pending: Deferred[Any]) -> Any:
        """Its result, or ``None`` if ``stop`` is called meanwhile."""
        self._pending = pending
        try:
            return await pending
        except CancelledError:
            return None
        finally:
            self._pending = None


def _said(error: BaseException) -> str:
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())
