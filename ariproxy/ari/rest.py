"""Requests to Asterisk over HTTP, by treq."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, NoReturn
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import (
    PotentialDataLoss,
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ariproxy.ari.messages import (
    IDEMPOTENT_METHODS,
    SAFE_METHODS,
    AsteriskAnswer,
    AsteriskRequest,
)
from ariproxy.errors import AsteriskAnswerLost, AsteriskUnavailable
from ariproxy.interfaces import IAsterisk
from ariproxy.tls import TlsFailure, tls_failure

CONNECTION_KEPT = 5.0
"""Seconds that an idle connection is kept: less than Asterisk keeps it
(``session_keep_alive`` of http.conf, 15 s), so that no request is sent on a
connection that it is just closing."""

PING_TIMEOUT = 2.0

_TLS_KEYS = (
    "service.asterisk.ca",
    "the host in service.asterisk.server (or service.rest.uri)",
    "service.asterisk.tls or the port in service.asterisk.server (or service.rest.uri)",
)

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer's body that are kept; more than Kafka takes by far."""


def basic_authorization(user: str, password: str) -> str:
    """The value of an Authorization header (RFC 7617)."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


@implementer(IAgent)
class _AsGiven:
    """Sends exactly the given address, and no header that treq adds by itself.

    treq normalises addresses and asks for compressed answers; the command's
    url must reach Asterisk as the call-controller spelled it.
    """

    def __init__(self, agent: IAgent, address: bytes) -> None:
        self._agent = agent
        self._address = address

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.removeHeader(b"accept-encoding")
        return self._agent.request(method, self._address, headers, bodyProducer)


@implementer(IBodyProducer)
class _Whole:
    """Sends a body at once.

    treq's own producer sends it piece by piece, by the global reactor's clock.
    """

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass

    def stopProducing(self) -> None:
        pass


class _Body(Protocol):
    """Collects a body up to a limit, and counts all of it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.size = 0
        self.kept = bytearray()
        self.whole: Deferred[None] = Deferred(self._abort)

    def _abort(self, _: Deferred[None]) -> None:
        # What Twisted hands to the reader of a body has no abortConnection.
        transport: Any = self.transport
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if len(self.kept) < self._limit:
            self.kept += data[: self._limit - len(self.kept)]

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.whole.called:
            return
        if reason is None or reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(None)
        else:
            self.whole.errback(reason)


@implementer(IAsterisk)
class RestClient:
    """ARI over HTTP: any status is an answer, no redirect is followed, no cookie kept.

    :param clock: the reactor's clock (``IReactorTime``).
    :param agent: makes the connections, with its own limit for connecting.
    :param base: the address of ARI without credentials and trailing slash.
    :param authorization: the value of the Authorization header.
    :param timeout: seconds until the whole answer must be there.
    :param retries: how often a request is asked again that may be asked again.
    """

    name = "asterisk"

    def __init__(
        self,
        *,
        agent: IAgent,
        clock: Any,
        base: str,
        authorization: str,
        user_agent: str,
        timeout: float,
        retries: int,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._base = base
        self._place = urlsplit(base).netloc
        self._timeout = timeout
        self._retries = retries
        self._headers = Headers(
            {"Authorization": [authorization], "User-Agent": [user_agent]}
        )

    async def request(self, request: AsteriskRequest) -> AsteriskAnswer:
        """See ``IAsterisk``."""
        again = self._retries if request.method in IDEMPOTENT_METHODS else 0
        lost: AsteriskAnswerLost | None = None
        while True:
            try:
                return await self._limited(request, self._timeout)
            except _TimedOut as error:
                raise AsteriskAnswerLost(str(error)) from None
            except AsteriskAnswerLost as error:
                lost = error
                if again <= 0:
                    raise
            except AsteriskUnavailable as error:
                if not isinstance(error, _NotSent) or again <= 0:
                    if lost is not None and request.method not in SAFE_METHODS:
                        # An earlier attempt may have been carried out.
                        raise lost from None
                    raise
            again -= 1

    async def check(self) -> None:
        """See ``IHealthChecked``: asks ``/asterisk/ping``."""
        try:
            answer = await self._limited(
                AsteriskRequest("GET", "/asterisk/ping"), PING_TIMEOUT
            )
        except _TimedOut as error:
            raise AsteriskUnavailable(str(error)) from None
        if answer.status != 200:
            hint = ": user or password is wrong" if answer.status == 401 else ""
            raise AsteriskUnavailable(
                f"{self._place} answers {answer.status} to /asterisk/ping{hint}"
            )

    def _limited(
        self, request: AsteriskRequest, seconds: float
    ) -> Deferred[AsteriskAnswer]:
        def late(_: object, seconds: float) -> NoReturn:
            raise _TimedOut(f"{self._place} gave no answer within {seconds:g} s")

        asked = ensureDeferred(self._ask(request))
        return asked.addTimeout(seconds, self._clock, late)

    async def _ask(self, request: AsteriskRequest) -> AsteriskAnswer:
        headers, body = self._headers.copy(), None
        if request.body is not None:
            body = _Whole(request.body)
            headers.setRawHeaders("Content-Type", ["application/json"])
        # A client of its own for each request: cookies are forgotten with it.
        client = HTTPClient(
            _AsGiven(self._agent, f"{self._base}{request.url}".encode("ascii"))
        )
        try:
            response = await client.request(
                request.method,
                self._base,
                headers=headers,
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,
            )
            got = _Body(BODY_LIMIT)
            response.deliverBody(got)
            await got.whole
        except CancelledError:
            raise
        except (ConnectError, DNSLookupError, ConnectingCancelledError) as error:
            raise AsteriskUnavailable(
                f"no connection to {self._place}: {_reason(error)}"
            ) from error
        except RequestNotSent as error:
            raise _NotSent(f"the connection to {self._place} broke") from error
        except (
            RequestTransmissionFailed,
            ResponseNeverReceived,
            ResponseFailed,
            ConnectionClosed,
        ) as error:
            failure = _tls_failure(error)
            if failure is not None and failure.refused:
                raise AsteriskUnavailable(
                    f"no connection to {self._place}: {failure.text}"
                ) from error
            raise AsteriskAnswerLost(
                f"the connection to {self._place} broke before the whole answer came: "
                f"{_reason(error)}"
            ) from error
        content_type = response.headers.getRawHeaders("content-type", [None])[0]
        return AsteriskAnswer(response.code, bytes(got.kept), content_type, got.size)


class _TimedOut(Exception):
    pass


class _NotSent(AsteriskUnavailable):
    pass


def _tls_failure(error: BaseException) -> TlsFailure | None:
    """What is wrong with TLS, if that is what Twisted's error is about."""
    for each in getattr(error, "reasons", None) or ():
        if found := _tls_failure(each.value):
            return found
    return tls_failure(error, *_TLS_KEYS)


def _reason(error: Exception) -> str:
    """One line about an error of Twisted, which wraps lists of failures."""
    if failure := _tls_failure(error):
        return failure.text
    reasons = getattr(error, "reasons", None)
    if reasons:
        return "; ".join(_reason(each.value) for each in reasons)
    if isinstance(error, TimeoutError):
        return "it timed out"
    return str(error) or type(error).__name__
