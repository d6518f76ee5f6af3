"""Connections to Asterisk's HTTP server, opened a few at a time.

Asterisk has room for 10 connections that it has not accepted yet. One more is
not refused: the kernel asks again after 1 s, as long as a connection may take.
Measured on Asterisk 22.10: of 100 connections opened at once, up to 89 failed.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

AT_ONCE = 8
"""Connections being opened; fewer than Asterisk has room for."""

FIRST_ATTEMPT = 0.2
"""Seconds until a connection is tried anew, sooner than the kernel would; doubled
from one attempt to the next, for an Asterisk that is far away."""

ADDRESS_DELAY = 0.05
"""Seconds until the next address of a host is tried beside the first (RFC 8305).

The last address is also the soonest that a refusal is told."""


@implementer(IStreamClientEndpoint)
class FewAtOnce:
    """Opens at most ``AT_ONCE`` connections at the same time.

    :param timeout: seconds that a connection may take, its turn included;
        afterwards ``connect`` fails with ``TimeoutError``.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: Any, timeout: float
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout = timeout
        self._opening = 0
        self._waiting: deque[Deferred[None]] = deque()

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """See ``IStreamClientEndpoint``."""
        connected = ensureDeferred(self._connect(protocolFactory))
        return connected.addTimeout(self._timeout, self._clock, _late)

    async def _connect(self, factory: Any) -> IProtocol:
        if self._opening < AT_ONCE:
            self._opening += 1
        else:
            # Whoever is ready hands over its place, so that nobody overtakes.
            turn: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(turn)
            await turn
        try:
            return await self._try(factory)
        finally:
            if self._waiting:
                self._waiting.popleft().callback(None)
            else:
                self._opening -= 1

    async def _try(self, factory: Any) -> IProtocol:
        seconds = FIRST_ATTEMPT
        while True:
            attempt = self._endpoint.connect(factory)
            try:
                return await attempt.addTimeout(seconds, self._clock, _late)
            except TimeoutError:
                seconds *= 2


def _late(_: object, seconds: float) -> Any:
    raise TimeoutError(string=f"no connection within {seconds:g} s")


@implementer(IAgentEndpointFactory)
class AsteriskEndpoints:
    """For ``Agent.usingEndpointFactory``: one endpoint for each address."""

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS, timeout: float) -> None:
        self._reactor = reactor
        self._policy = policy
        self._timeout = timeout
        self._made: dict[tuple[bytes, bytes, int], FewAtOnce] = {}

    def endpointForURI(self, uri: URI) -> FewAtOnce:
        """See ``IAgentEndpointFactory``."""
        place = (uri.scheme, uri.host, uri.port)
        if place not in self._made:
            endpoint: Any = HostnameEndpoint(
                self._reactor, uri.host, uri.port, attemptDelay=ADDRESS_DELAY
            )
            if uri.scheme == b"https":
                tls = self._policy.creatorForNetloc(uri.host, uri.port)
                endpoint = wrapClientTLS(tls, endpoint)
            self._made[place] = FewAtOnce(endpoint, self._reactor, self._timeout)
        return self._made[place]
