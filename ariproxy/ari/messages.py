"""Requests to Asterisk and its answers, free of transport."""

from __future__ import annotations

from msgspec import Struct

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be asked again after a lost answer (RFC 9110, 9.2.2)."""


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing, whether they were carried out or not (9.2.1)."""


class AsteriskRequest(Struct, frozen=True):
    """One REST request.

    ``url`` starts with ``/``, is relative to the base of ARI (so
    ``/channels``, not ``/ari/channels``), is ASCII and holds the query.
    ``body`` is compact JSON, or ``None`` for no body.
    """

    method: str
    url: str
    body: bytes | None = None


class AsteriskAnswer(Struct, frozen=True):
    """Asterisk's own answer, whatever its status.

    ``body`` is at most the limit of the transport; ``size`` is the length in
    bytes of the body as Asterisk sent it, larger than ``len(body)`` where the
    rest was left out.
    """

    status: int
    body: bytes
    content_type: str | None
    size: int
