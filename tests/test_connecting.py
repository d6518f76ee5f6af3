"""Tests of ariproxy.ari.connecting."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, TimeoutError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import URI, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ariproxy.ari.connecting import (
    AT_ONCE,
    FIRST_ATTEMPT,
    AsteriskEndpoints,
    FewAtOnce,
)


@implementer(IStreamClientEndpoint)
class HeldEndpoint:
    """Opens nothing until the test says so."""

    def __init__(self) -> None:
        self.opening: list[Deferred[Any]] = []
        self.given_up = 0

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        opening: Deferred[Any] = Deferred(self._give_up)
        self.opening.append(opening)
        return opening

    def _give_up(self, opening: Deferred[Any]) -> None:
        self.given_up += 1
        self.opening.remove(opening)


class FewAtOnceTests(SynchronousTestCase):
    """How many connections are being opened."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asterisk = HeldEndpoint()
        self.endpoint = FewAtOnce(self.asterisk, self.clock, 1.0)

    def connect(self, number: int) -> list[Deferred[Any]]:
        return [self.endpoint.connect(None) for _ in range(number)]

    def test_interfaces(self) -> None:
        """Both classes are what Agent wants."""
        verifyObject(IStreamClientEndpoint, self.endpoint)
        reactor = MemoryReactorClock()
        factory = AsteriskEndpoints(reactor, BrowserLikePolicyForHTTPS(), 1.0)
        verifyObject(IAgentEndpointFactory, factory)
        first = factory.endpointForURI(URI.fromBytes(b"http://a:1/x"))
        self.assertIs(first, factory.endpointForURI(URI.fromBytes(b"http://a:1/y")))
        other = factory.endpointForURI(URI.fromBytes(b"https://a:1/x"))
        self.assertIsNot(first, other)

    def test_in_turn(self) -> None:
        """The rest waits, and comes in order."""
        connected = self.connect(AT_ONCE + 2)
        self.assertEqual(len(self.asterisk.opening), AT_ONCE)
        self.asterisk.opening[0].callback("first")
        self.assertEqual(self.successResultOf(connected[0]), "first")
        self.assertEqual(len(self.asterisk.opening), AT_ONCE + 1)
        self.asterisk.opening[1].errback(ConnectionRefusedError())
        self.failureResultOf(connected[1], ConnectionRefusedError)
        self.asterisk.opening[AT_ONCE].callback("ninth")
        self.assertEqual(self.successResultOf(connected[AT_ONCE]), "ninth")

    def test_places_are_given_back(self) -> None:
        """However connections end, as many can be opened as before."""
        for _ in range(3):
            connected = self.connect(AT_ONCE + 1)
            self.clock.pump([0.1] * 11)
            for each in connected:
                self.failureResultOf(each, TimeoutError)
            self.assertEqual(self.asterisk.opening, [])
        self.connect(AT_ONCE)
        self.assertEqual(len(self.asterisk.opening), AT_ONCE)

    def test_tried_anew(self) -> None:
        """One that gets no answer is tried again before its time is over."""
        (connected,) = self.connect(1)
        self.clock.advance(FIRST_ATTEMPT)
        self.assertEqual(self.asterisk.given_up, 1)
        self.assertNoResult(connected)
        self.clock.advance(FIRST_ATTEMPT)
        self.assertEqual(self.asterisk.given_up, 1)
        self.asterisk.opening[0].callback("there")
        self.assertEqual(self.successResultOf(connected), "there")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never_there(self) -> None:
        """All fail within the limit, those that wait for their turn too."""
        connected = self.connect(100)
        self.clock.pump([0.1] * 11)
        for each in connected:
            self.failureResultOf(each, TimeoutError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A connection that nobody wants any more takes no turn."""
        connected = self.connect(AT_ONCE + 2)
        connected[AT_ONCE].cancel()
        self.failureResultOf(connected[AT_ONCE])
        self.asterisk.opening[0].callback("first")
        self.asterisk.opening[AT_ONCE].callback("tenth")
        self.assertEqual(self.successResultOf(connected[AT_ONCE + 1]), "tenth")
