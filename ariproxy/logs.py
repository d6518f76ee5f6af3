"""Log lines: text for people, JSON for machines.

How secrets stay out of them: a password is a ``Secret`` from the moment it is
read, which shows itself as ``***``; the addresses in the configuration hold no
credentials; blocks of properties for libraries show only their keys; and
tracebacks are written without the values of variables. Nothing here has to
look for passwords in a text.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import IO, Any

import msgspec
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    eventAsText,
)
from zope.interface import implementer

__all__ = ["capture_stdlib", "observer", "shown_level"]

# A constant of LogLevel; the library that makes them has no types.
Level = Any

FIELDS = (
    "call_context",
    "resource_id",
    "command_id",
    "topic",
    "partition",
    "offset",
)
"""What our events may carry, and a line of JSON has as fields of its own."""

_RANKS = {level: rank for rank, level in enumerate(LogLevel.iterconstants())}

# One event is one line, and none can move the cursor of a terminal.
_ESCAPES = {
    code: repr(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), 0x2028, 0x2029)
}


def observer(level: str, format: str, stream: IO[str]) -> ILogObserver:
    """An observer that writes each event to ``stream`` and flushes it.

    :param level: ``debug``, ``info``, ``warn`` or ``error``; what is below it
        is left out.
    :param format: ``text`` or ``json``.

    An event that cannot be formatted is written as well as can be; it raises
    nothing. Errors of the stream itself are raised.
    """
    render = {"text": _as_text, "json": _as_json}[format]
    return _Lines(_RANKS[LogLevel.lookupByName(level)], render, stream)


def shown_level(event: LogEvent) -> Level:
    """The level that an event is shown at.

    What libraries say at info (twisted's "Starting factory", autobahn, the
    legacy ``log.msg``) is of use at debug only. Their warnings and errors stay
    what they are.
    """
    level = event.get("log_level", LogLevel.info)
    if level is not LogLevel.info:
        return level if level in _RANKS else LogLevel.error
    namespace = _safely(str, event.get("log_namespace"))
    own = namespace.partition(".")[0] == "ariproxy"
    # Twisted says this in the name of the factory's class, which may be ours.
    about_factory = _safely(str, event.get("log_format")).startswith(
        ("Starting factory", "Stopping factory")
    )
    return LogLevel.info if own and not about_factory else LogLevel.debug


def capture_stdlib(level: str, publisher: LogPublisher) -> Callable[[], None]:
    """Send what libraries log by ``logging`` to Twisted's publisher.

    Records below ``level`` are not made at all. An event is published in the
    thread of its record. Returns a function that undoes the capture.
    """
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    root.handlers[:] = [_ToTwisted(publisher)]
    root.setLevel(level.upper().replace("WARN", "WARNING"))

    def undo() -> None:
        root.setLevel(before[0])
        root.handlers[:] = before[1]

    return undo


@implementer(ILogObserver)
class _Lines:
    def __init__(
        self, least: int, render: Callable[[LogEvent, str], str], stream: IO[str]
    ) -> None:
        self._least = least
        self._render = render
        self._stream = stream

    def __call__(self, event: LogEvent) -> None:
        level = shown_level(event)
        if _RANKS[level] < self._least:
            return
        lines = self._render(event, level.name)
        try:
            self._stream.write(lines)
        except UnicodeEncodeError:
            self._stream.write(lines.encode("ascii", "backslashreplace").decode())
        self._stream.flush()


def _as_text(event: LogEvent, level: str) -> str:
    namespace = _escaped(_safely(str, event.get("log_namespace", "-")))
    line = f"{_time(event)} {level} {namespace}: {_escaped(_message(event))}\n"
    for trace in _traceback(event).splitlines():
        line += f"    {_escaped(trace)}\n"
    return line


def _as_json(event: LogEvent, level: str) -> str:
    line: dict[str, Any] = {
        "timestamp": _time(event),
        "level": level,
        "namespace": _safely(str, event.get("log_namespace", "-")),
        "message": _message(event),
    }
    for name in FIELDS:
        value = event.get(name)
        if value is not None:
            line[name] = value if type(value) is int else _safely(str, value)
    failure = _traceback(event)
    if failure:
        line["failure"] = failure
    return _json(line) + "\n"


def _json(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except (UnicodeError, OverflowError):
        # Half a surrogate pair, as in file names, or a number beyond 64 bits.
        return _json(
            {
                name: str(value).encode("utf-8", "backslashreplace").decode()
                for name, value in line.items()
            }
        )


def _time(event: LogEvent) -> str:
    try:
        moment = datetime.fromtimestamp(event["log_time"]).astimezone()
        return moment.isoformat(timespec="milliseconds")
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return "-"


def _message(event: LogEvent) -> str:
    text = _safely(
        lambda event: eventAsText(
            event, includeTraceback=False, includeTimestamp=False, includeSystem=False
        ),
        event,
    )
    failure = event.get("log_failure")
    if not text and failure is not None:
        return _safely(lambda failure: failure.getErrorMessage(), failure)
    return text


def _traceback(event: LogEvent) -> str:
    failure = event.get("log_failure")
    if failure is None:
        return ""
    # "default" shows no values of variables, unlike "verbose".
    return _safely(lambda failure: failure.getTraceback(detail="default"), failure)


def _safely(show: Callable[[Any], str], value: Any) -> str:
    """What an event holds may fail to show itself in any way it likes."""
    try:
        return str(show(value))
    except Exception as error:
        return f"(cannot be shown: {type(error).__name__})"


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)


class _ToTwisted(logging.Handler):
    def __init__(self, publisher: LogPublisher) -> None:
        super().__init__()
        self._publisher = publisher

    def emit(self, record: logging.LogRecord) -> None:
        log = Logger(namespace=record.name, observer=self._publisher)
        text = _safely(lambda record: record.getMessage(), record)
        if record.exc_info and record.exc_info[0]:
            text = f"{text}: {_safely(str, record.exc_info[1])}"
        log.emit(_level(record.levelno), "{text}", text=text)


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return LogLevel.error
    if number >= logging.WARNING:
        return LogLevel.warn
    return LogLevel.info if number >= logging.INFO else LogLevel.debug
