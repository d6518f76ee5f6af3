"""The frozen examples in ``tests/messages``: read here, written by nobody.

``events`` holds events as Asterisk 22 sends them, one file per ARI type.
``records`` holds the exact value of the record of each, and of every kind of
answer; ``keys.json`` the key of each record. A changed file is a changed
promise to the call-controllers: add, never edit.
"""

from __future__ import annotations

import json
from pathlib import Path

_FOLDER = Path(__file__).parent / "messages"

KEYS: dict[str, str | None] = json.loads((_FOLDER / "records/keys.json").read_bytes())
EVENT_FILES = sorted((_FOLDER / "events").glob("*.json"))


def event(ari_type: str) -> bytes:
    """An event as it comes from Asterisk."""
    return (_FOLDER / "events" / f"{ari_type}.json").read_bytes().rstrip(b"\n")


def record(name: str) -> bytes:
    """The value of a record, byte for byte."""
    return (_FOLDER / "records" / f"{name}.json").read_bytes().rstrip(b"\n")
