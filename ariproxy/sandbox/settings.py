"""How a simulated Asterisk behaves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Times in seconds.

    ``answer_after``: until a dialled endpoint answers. ``media``: how long a
    media URI lasts that does not say so. ``shown_variables``: ``channelvars`` of
    ari.conf.
    """

    answer_after: float = 0.05
    media: float = 0.3
    shown_variables: tuple[str, ...] = ("CALL_CONTEXT",)
    asterisk_id: str = "02:00:00:00:00:01"
    version: str = "22.10.1"
