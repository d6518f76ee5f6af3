"""REST requests as messages on the websocket (ARI REST over websocket).

Asterisk 20.14, 21.9, 22.4 and later carry out ``RESTRequest`` messages one
after the other and answer each with a ``RESTResponse``. Measured on Asterisk
22.10: ``uri`` has no leading slash and is percent-decoded as over HTTP; the
methods are GET, POST, PUT, DELETE and OPTIONS; a body needs its content type;
what is not JSON is answered with 406.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.errors import AsteriskAnswerLost, AsteriskUnavailable
from ariproxy.repeated import Repeated

CARRIED_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})

_PROBE = AsteriskRequest("GET", "/asterisk/ping")


class _RestRequest(Struct, omit_defaults=True):
    type: str
    transaction_id: str
    request_id: str
    method: str
    uri: str
    content_type: str = ""
    message_body: str = ""


_encode = msgspec.json.Encoder().encode


class SocketClosed(AsteriskAnswerLost):
    """The websocket closed while a request was under way."""


def carried(request: AsteriskRequest) -> bool:
    """Whether the websocket carries a request and gives the same answer as HTTP."""
    path = request.url.partition("?")[0]
    if request.method not in CARRIED_METHODS or len(path) < 2:
        return False
    if path.startswith("/recordings/stored/") and path.endswith("/file"):
        return False  # The one answer of ARI that is no JSON.
    # Asterisk 22.10 misses an absent body over HTTP alone.
    return request.body is not None or not path.endswith(("/variables", "/eventFilter"))


class SocketRest:
    """Requests on the websocket, and their answers.

    :param send: sends one message; gives ``False`` if the socket is not open.
    :param timeout: seconds until the answer must be there.
    :ivar usable: whether this Asterisk is known to answer, since the socket opened.
    """

    _log = Logger()

    def __init__(
        self, send: Callable[[bytes], bool], clock: IReactorTime, timeout: float
    ) -> None:
        self._send = send
        self._clock = clock
        self._timeout = timeout
        self._numbers = count(1)
        # Number -> when its time is over, and who waits; the oldest first.
        self._pending: dict[str, tuple[float, Deferred[AsteriskAnswer]]] = {}
        self._timer: IDelayedCall | None = None
        self._strange = Repeated(clock)
        self.usable = False

    def opened(self) -> None:
        """The websocket has opened: find out whether Asterisk answers on it."""
        self.usable = False
        # An older Asterisk says nothing, and so the answer is not waited for.
        self.request(_PROBE).addCallbacks(self._answers, lambda failure: None)

    def _answers(self, answer: AsteriskAnswer) -> None:
        if answer.status == 200:
            self.usable = True
            self._log.info("Asterisk takes REST requests on the websocket")

    def closed(self) -> None:
        """The websocket has closed: what is under way has no answer any more."""
        self.usable = False
        pending, self._pending = self._pending, {}
        self._watch()
        for _, answer in pending.values():
            answer.errback(SocketClosed("the websocket closed before the answer came"))

    def request(self, request: AsteriskRequest) -> Deferred[AsteriskAnswer]:
        """See ``IAsterisk``; only for what is ``carried``."""
        number = str(next(self._numbers))
        message = _RestRequest(
            "RESTRequest", "ari-proxy", number, request.method, request.url[1:]
        )
        if request.body is not None:
            message.content_type = "application/json"
            message.message_body = request.body.decode()
        answer: Deferred[AsteriskAnswer] = Deferred()
        if not self._send(_encode(message)):
            answer.errback(AsteriskUnavailable("the websocket is not open"))
            return answer
        self._pending[number] = self._clock.seconds() + self._timeout, answer
        if self._timer is None:
            self._watch()
        return answer

    def _watch(self) -> None:
        """Look again when the time of the oldest request is over.

        One delayed call for all of them: one for each would cost a tenth of all
        the work of a command.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._pending:
            end, _ = next(iter(self._pending.values()))
            wait = max(0.0, end - self._clock.seconds())
            self._timer = self._clock.callLater(wait, self._end_late)

    def _end_late(self) -> None:
        now = self._clock.seconds()
        late = [number for number, (end, _) in self._pending.items() if end <= now]
        answers = [self._pending.pop(number)[1] for number in late]
        self._watch()
        for answer in answers:
            answer.errback(
                AsteriskAnswerLost(
                    "Asterisk gave no answer on the websocket "
                    f"within {self._timeout:g} s"
                )
            )

    def answered(self, message: Mapping[str, Any]) -> None:
        """Take a ``RESTResponse``; one that fits no request is counted and ignored."""
        number = message.get("request_id")
        status = message.get("status_code")
        waiting = self._pending.get(number) if isinstance(number, str) else None
        if waiting is None or type(status) is not int or not 100 <= status <= 999:
            if times := self._strange.due("strange"):
                self._log.warn(
                    "RESTResponse of Asterisk fits no request: request_id {number!r}, "
                    "status_code {status!r} ({times} since the last such line)",
                    number=str(number)[:40],
                    status=str(status)[:40],
                    times=times,
                )
            return
        del self._pending[number]  # type: ignore[arg-type]
        if not self._pending:
            self._watch()
        text = message.get("message_body")
        body = text.encode("utf-8", "replace") if isinstance(text, str) else b""
        kind = message.get("content_type")
        waiting[1].callback(
            AsteriskAnswer(
                status, body, kind if isinstance(kind, str) else None, len(body)
            )
        )
