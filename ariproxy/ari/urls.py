"""The url of a command: what is sent to Asterisk, and what never is."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode

from msgspec import Struct

from ariproxy.errors import CommandRefused

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
# Characters that stay as they are; all others are percent-encoded as UTF-8.
_KEPT = "!#$%&'()*+,/:;=?@[]~-._"

_LAYERS = 5
"""How often a path may be percent-encoded; nobody needs more than two."""


class CommandUrl(Struct, frozen=True):
    """``path`` and ``query`` (without ``?``) as spelled, relative to ARI's base."""

    path: str
    query: str

    def parameter(self, name: str) -> str:
        """A query parameter, percent-decoded; empty if it is not there."""
        return dict(parse_qsl(self.query, keep_blank_values=True)).get(name, "")

    def with_parameter(self, name: str, value: str) -> CommandUrl:
        """The same url with one more query parameter."""
        added = urlencode({name: value})
        return CommandUrl(self.path, f"{self.query}&{added}" if self.query else added)

    def __str__(self) -> str:
        """The url in ASCII: other characters percent-encoded as UTF-8 (RFC 3986)."""
        spelled = f"{self.path}?{self.query}" if self.query else self.path
        return quote(spelled, safe=_KEPT)


def command_url(url: str) -> CommandUrl:
    """Check and split the url of a command.

    A leading ``/ari`` is taken off; a fragment is never sent (RFC 9110, 7.1) and
    left out.
    Raises ``CommandRefused`` for a url that is no path below ARI's base.
    """
    if not url.startswith("/") or url.startswith("//"):
        raise CommandRefused(
            "url does not start with a single '/': give a path below /ari, "
            "like /channels/ID/answer"
        )
    if _FORBIDDEN.search(url):
        raise CommandRefused(
            "url has a space, control character or lone surrogate in it: "
            "percent-encode it"
        )
    path, _, query = url.partition("#")[0].partition("?")
    if path == "/ari" or path.startswith("/ari/"):
        path = path[len("/ari") :] or "/"
    if _leaves_base(path):
        raise CommandRefused(
            "url has a path segment '.' or '..', which leaves /ari, "
            "or is percent-encoded many times over"
        )
    return CommandUrl(path, query)


def _leaves_base(path: str) -> bool:
    # Decoded until nothing changes: a server behind another decodes twice.
    for _ in range(_LAYERS):
        decoded = unquote(path)
        if decoded == path:
            return any(part in (".", "..") for part in re.split(r"[/\\]", path))
        path = decoded
    return True
