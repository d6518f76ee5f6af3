"""One Asterisk, asked on the websocket or over HTTP."""

from __future__ import annotations

from zope.interface import implementer

from ariproxy.ari.messages import (
    IDEMPOTENT_METHODS,
    SAFE_METHODS,
    AsteriskAnswer,
    AsteriskRequest,
)
from ariproxy.ari.socket_rest import SocketClosed, SocketRest, carried
from ariproxy.errors import AsteriskUnavailable
from ariproxy.interfaces import IAsterisk

NOT_ACCEPTABLE = 406


@implementer(IAsterisk)
class Asterisk:
    """Prefers the websocket, which is several times cheaper, where it is usable.

    A request that was under way when the socket closed is asked again over HTTP
    if that changes nothing (RFC 9110, 9.2.2); otherwise its outcome is unknown.

    :param only_socket: never ask over HTTP what the websocket can carry.
    """

    name = "asterisk"

    def __init__(self, http: IAsterisk, socket: SocketRest, only_socket: bool) -> None:
        self._http = http
        self._socket = socket
        self._only_socket = only_socket

    async def request(self, request: AsteriskRequest) -> AsteriskAnswer:
        """See ``IAsterisk``."""
        if not carried(request):
            return await self._http.request(request)
        if not self._socket.usable:
            if self._only_socket:
                raise AsteriskUnavailable(
                    "the websocket is not open, or Asterisk is too old for REST on it, "
                    'and service.asterisk.rest-over-websocket is "on"'
                )
            return await self._http.request(request)
        try:
            answer = await self._socket.request(request)
        except SocketClosed as lost:
            if self._only_socket or request.method not in IDEMPOTENT_METHODS:
                raise
            try:
                return await self._http.request(request)
            except AsteriskUnavailable:
                if request.method in SAFE_METHODS:
                    raise
                # It may have been carried out when it was asked on the socket.
                raise lost from None
        if answer.status == NOT_ACCEPTABLE and request.method == "GET":
            # Something else than JSON; to read it again changes nothing.
            return await self._http.request(request)
        return answer

    async def check(self) -> None:
        """See ``IHealthChecked``: over HTTP, so that it tells of Asterisk alone."""
        await self._http.check()
