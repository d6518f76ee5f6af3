"""The HTTP side: health for deployments, metrics for Prometheus.

============================ =========== =====================================
route                        methods     answer
============================ =========== =====================================
``/health/backing-services`` any         200, ``{"errors":[...],"ok":true}``
``/health/live``             GET, HEAD   200 or 503, JSON
``/health/ready``            GET, HEAD   200 or 503, JSON with the reasons
``/health`` and below        GET, HEAD   200, ``OK``
``/metrics`` and below       GET, HEAD   200, Prometheus text 0.0.4
anything else                any         404
============================ =========== =====================================

Deployments rely on ``/health`` answering 200 as long as the process runs; so
what can fail has routes of its own.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import (
    NOT_ALLOWED,
    NOT_FOUND,
    OK,
    SERVICE_UNAVAILABLE,
    HTTPChannel,
)
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from ariproxy.health import Health
from ariproxy.metrics import Metrics

__all__ = ["site"]

CONNECTIONS_LIMIT = 250
"""Open connections; one more is closed at once, as each takes a file descriptor
that Kafka, Asterisk or the store may need."""

IDLE_SECONDS = 60
"""A connection on which nothing comes for so long is closed."""

METRICS_KEPT_SECONDS = 0.5
"""Scrapes that come within this time of one another get the same page.

To render a page takes milliseconds in which no event is read, so many scrapes
at once must not be as many renderings in a row."""

_TEXT = b"text/plain; charset=UTF-8"
_JSON = b"application/json"


def site(metrics: Metrics, health: Health, clock: IReactorTime) -> Site:
    """The factory to listen with.

    It answers from what is known already: no request makes the proxy ask
    Asterisk, Kafka or the store. It writes no access log.
    """
    root = _Root()
    root.putChild(b"health", _HealthPages(health))
    root.putChild(b"metrics", _MetricsPage(metrics, clock))
    return _Site(root, _Request, timeout=IDLE_SECONDS, reactor=clock)


class _Root(Resource):
    """Everything that has no page of its own."""

    def getChild(self, path: bytes, request: Request) -> Resource:
        return _NotFound()


class _NotFound(Resource):
    isLeaf = True

    def render(self, request: Request) -> bytes:
        return _answer(request, NOT_FOUND, _TEXT, b"There is no such page.\n")


class _HealthPages(Resource):
    isLeaf = True

    def __init__(self, health: Health) -> None:
        super().__init__()
        self._health = health

    def render(self, request: Request) -> bytes:
        page = request.postpath
        if page == [b"backing-services"]:
            return self._backing_services(request)
        if not _reads(request):
            return _not_allowed(request)
        if page == [b"live"]:
            live = self._health.live()
            return _json(request, live, {"live": live})
        if page == [b"ready"]:
            readiness = self._health.ready()
            return _json(request, readiness.ready, readiness)
        return _answer(request, OK, _TEXT, b"OK")

    def _backing_services(self, request: Request) -> bytes:
        errors = self._health.errors()
        # The order of the fields is promised.
        return _json(request, True, {"errors": errors, "ok": not errors})


class _MetricsPage(Resource):
    isLeaf = True

    def __init__(self, metrics: Metrics, clock: IReactorTime) -> None:
        super().__init__()
        self._metrics = metrics
        self._clock = clock
        self._page = b""
        self._rendered: float | None = None

    def render(self, request: Request) -> bytes:
        if not _reads(request):
            return _not_allowed(request)
        now = self._clock.seconds()
        # abs: a clock that is set back must not keep an old page.
        if self._rendered is None or abs(now - self._rendered) > METRICS_KEPT_SECONDS:
            self._page = self._metrics.render()
            self._rendered = now
        return _answer(request, OK, _TEXT, self._page)


def _reads(request: Request) -> bool:
    return request.method in (b"GET", b"HEAD")


def _not_allowed(request: Request) -> bytes:
    request.setHeader(b"Allow", b"GET, HEAD")
    return _answer(request, NOT_ALLOWED, _TEXT, b"Only GET and HEAD are allowed.\n")


def _json(request: Request, well: bool, value: object) -> bytes:
    code = OK if well else SERVICE_UNAVAILABLE
    return _answer(request, code, _JSON, msgspec.json.encode(value))


def _answer(request: Request, code: int, content_type: bytes, body: bytes) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", content_type)
    if request.method == b"HEAD":
        # Twisted logs a line for each HEAD that comes back with a body.
        request.setHeader(b"Content-Length", b"%d" % len(body))
        return b""
    return body


class _Request(Request):
    """A request whose body is thrown away as it comes: no page reads one.

    Twisted would keep it, in memory or in a temporary file, whatever its size.
    """

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()  # type: ignore[assignment]

    def handleContentChunk(self, data: bytes) -> None:
        pass

    def setHeader(self, name: bytes, value: bytes) -> None:
        # Twisted names itself and its version; nobody outside needs to know.
        if name.lower() != b"server":
            super().setHeader(name, value)


class _Channel(HTTPChannel):
    site: _Site

    def connectionMade(self) -> None:
        self.site.open_connections += 1
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.open_connections -= 1
        super().connectionLost(reason)


class _Site(Site):
    protocol = _Channel  # type: ignore[assignment]
    noisy = False
    open_connections = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.open_connections >= CONNECTIONS_LIMIT:
            return None
        return super().buildProtocol(addr)

    def log(self, request: http.Request) -> None:
        """No access log: a line for each scrape would hide what matters."""
