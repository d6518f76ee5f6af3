"""JSON text as the original reads and writes it.

Read: integers of any size, lone surrogates. Written: compact, escapes only
where JSON needs them. ``msgspec`` does it in about a microsecond; the standard
library takes over for the few texts that it refuses. Numbers beyond what Python
can hold (``1e400``, more than 4300 digits) are carried as the text that they are.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float | str:
    value = float(text)
    return value if isfinite(value) else text


def _integer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


_python_decoder = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer
)


def parse(text: bytes) -> Any:
    """The value of exactly one JSON text in UTF-8.

    Raises ``ValueError`` (``msgspec.DecodeError`` and ``UnicodeDecodeError`` are
    such) or ``RecursionError`` for a text nested too deep.
    """
    try:
        return _decode(text)
    except msgspec.MsgspecError:
        # Lone surrogates and numbers beyond a double: JSON, but not for msgspec.
        return _python_decoder.decode(text.decode("utf-8"))


def parse_first(text: bytes) -> Any:
    """The first JSON value in a text; whatever follows it is ignored.

    Bytes that are not UTF-8 are read as U+FFFD. Raises as :func:`parse` does.
    """
    try:
        return _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        characters = text.decode("utf-8", "replace").lstrip(" \t\r\n")
        return _python_decoder.raw_decode(characters)[0]


def compact(value: Any) -> bytes:
    """The value as compact JSON in UTF-8."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form; only its escape can carry it.
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def text_of(value: Any) -> str:
    """A scalar as text: numbers and booleans as JSON spells them, else empty.

    A lone surrogate becomes ``?``, as in the original: neither a store nor the
    key of a record can hold one.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, (bool, int, float)):
        return compact(value).decode("ascii")
    return ""
