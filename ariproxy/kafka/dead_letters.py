"""``ari-proxy dead-letters``: commands that no proxy could read, seen and sent again.

A program of its own beside the daemon: it reads the topic from outside of any
consumer group and commits nothing, so nobody notices that it looked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

from ariproxy.config import Config, load
from ariproxy.envelope import decode_command
from ariproxy.errors import (
    AriProxyError,
    ConfigError,
    PermanentError,
    UndecodableMessage,
)
from ariproxy.kafka.dead_letter_topic import (
    HEADERS,
    DeadLetterTopic,
    Letter,
    send_again,
)

__all__ = ["add_arguments", "run"]

BEGINNING = 60
"""How many characters of a value ``list`` shows."""

_DESCRIPTION = """\
Commands that the proxy could not read, from the topic that
service.kafka.dead-letter-topic names. Looking at them changes nothing: no
consumer group is joined and no offset committed. A letter that is sent again
stays in the topic until Kafka's retention removes it.
"""
_EXAMPLES = """\
examples:
  ari-proxy dead-letters service.conf list --last 20
  ari-proxy dead-letters service.conf show 2/17
  ari-proxy dead-letters service.conf show 2/17 --value > command.json
  ari-proxy dead-letters service.conf send 2/17 --value command.json

exit status: 0; 1 where there is no such letter or Kafka does not answer;
2 for a mistake in the command line
"""


# -- the command line ----------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = _DESCRIPTION, _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", help="the configuration (service.conf)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="service.KEY=VALUE",
        help="override one setting of the file; repeatable",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    each = actions.add_parser("list", help="one line for each letter, oldest first")
    each.add_argument("--json", action="store_true", help="one JSON object a line")
    each.add_argument("--last", type=_count, metavar="N", help="only the N newest")
    each.set_defaults(act=_list)
    one = actions.add_parser("show", help="everything of one letter")
    one.add_argument("place", type=_place, metavar="PARTITION/OFFSET")
    form = one.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument(
        "--value", action="store_true", help="only the value, byte for byte"
    )
    one.set_defaults(act=_show)
    again = actions.add_parser(
        "send", help="send one letter again to the topic that it came from"
    )
    again.add_argument("place", type=_place, metavar="PARTITION/OFFSET")
    again.add_argument(
        "--value",
        metavar="FILE",
        help="send what this file holds in place of the value as it came; "
        "- for standard input",
    )
    again.add_argument(
        "--topic", help="where to, for a letter that does not say where it came from"
    )
    again.set_defaults(act=_send)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _place(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,18})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 2/17")
    return int(found[1]), int(found[2])


def run(options: argparse.Namespace) -> int:
    """List, show or send; gives the exit status of the process."""
    try:
        config = load(options.file, options.set)
        if config.kafka.dead_letter_topic is None:
            return _fail(
                f"{options.file}: service.kafka.dead-letter-topic: missing; without it "
                "the proxy keeps no command that it cannot read"
            )
        options.act(options, config, config.kafka.dead_letter_topic)
        sys.stdout.flush()
    except ConfigError as error:
        return _fail(*error.problems)
    except AriProxyError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Whoever reads has seen enough, as ``head``. What is still buffered must
        # not fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(*problems: str) -> int:
    for problem in problems:
        print(f"ari-proxy: {problem}", file=sys.stderr)
    return 1


# -- what is shown -------------------------------------------------------------


def _list(options: argparse.Namespace, config: Config, topic: str) -> None:
    # Only what is shown is kept: there may be many letters, and large ones.
    found: list[tuple[int, int, int, Any]] = []
    form = _summary if options.json else _columns
    with DeadLetterTopic(config, topic) as letters:
        starts = {
            partition: max(first, end - options.last) if options.last else first
            for partition, (first, end) in letters.ranges.items()
        }
        for letter in letters.read(starts):
            found.append(
                (letter.time or 0, letter.partition, letter.offset, form(letter))
            )
    if not found:
        raise PermanentError(f"there is no letter in {topic}")
    found.sort(key=lambda each: each[:3])
    shown = [row for *_, row in found[-(options.last or 0) :]]
    if options.json:
        for row in shown:
            print(json.dumps(row))
        return
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _columns(letter: Letter) -> tuple[str, ...]:
    return (
        letter.place,
        letter.written or "-",
        _escaped(letter.source),
        f"{letter.size} bytes",
        _escaped(letter.header("error") or "-"),
        _escaped(_beginning(letter)),
    )


def _summary(letter: Letter) -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "time": letter.written,
        "from": {
            "topic": letter.header("topic"),
            "partition": _number(letter.header("partition")),
            "offset": _number(letter.header("offset")),
        },
        "error": letter.header("error"),
        "size": letter.size,
        "beginning": _beginning(letter),
    }


def _beginning(letter: Letter) -> str:
    # No character takes more than 4 bytes.
    start = (letter.value or b"")[: 4 * BEGINNING]
    return start.decode("utf-8", "backslashreplace")[:BEGINNING]


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,19}", text) else None


def _escaped(text: str, keep: str = "") -> str:
    """What a terminal could take for an order of its own becomes ``\\x1b``."""
    return "".join(
        each
        if each.isprintable() or each in keep
        else each.encode("unicode_escape").decode()
        for each in text
    )


def _show(options: argparse.Namespace, config: Config, topic: str) -> None:
    with DeadLetterTopic(config, topic) as letters:
        letter = letters.one(*options.place)
    if options.value:
        sys.stdout.buffer.write(letter.value or b"")
    elif options.json:
        print(json.dumps(_whole(letter)))
    else:
        _print_whole(letter)


def _print_whole(letter: Letter) -> None:
    key = None if letter.key is None else _readable(letter.key)
    print(f"letter:  {letter.place}")
    print(f"time:    {letter.written or '-'}")
    print(f"from:    {_escaped(letter.source)}")
    print(f"error:   {_escaped(letter.header('error') or '-')}")
    print(f"key:     {'none' if key is None else _escaped(key)}")
    for name, value in letter.headers:
        if name not in HEADERS:
            print(f"header:  {_escaped(name)}: {_escaped(_readable(value or b''))}")
    if letter.value is None:
        print("value:   none")
        return
    print(f"value:   {letter.size} bytes\n")
    print(_escaped(_readable(letter.value), keep="\t\n"))


def _readable(data: bytes) -> str:
    text = _text(data)
    return f"base64 {b64encode(data).decode()}" if text is None else text


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _whole(letter: Letter) -> dict[str, Any]:
    found = _summary(letter)
    del found["beginning"]
    others = [
        {"name": name, **_as_json("value", value)}
        for name, value in letter.headers
        if name not in HEADERS
    ]
    return {
        **found,
        **_as_json("key", letter.key),
        "headers": others,
        **_as_json("value", letter.value),
    }


def _as_json(name: str, data: bytes | None) -> dict[str, str | None]:
    text = None if data is None else _text(data)
    if data is None or text is not None:
        return {name: text}
    return {f"{name}_base64": b64encode(data).decode()}


# -- sending again -------------------------------------------------------------


def _send(options: argparse.Namespace, config: Config, topic: str) -> None:
    mended = None if options.value is None else _mended(options.value)
    with DeadLetterTopic(config, topic) as letters:
        letter = letters.one(*options.place)
    target = options.topic or letter.header("topic")
    if not target:
        raise PermanentError(
            f"letter {letter.place} does not say which topic it came from: "
            "name it by --topic"
        )
    value = letter.value if mended is None else mended
    partition, offset = send_again(config, target, letter, value)
    print(f"{letter.place} sent again: {target}/{partition}/{offset}")


def _mended(name: str) -> bytes:
    """What is to be sent; another command that cannot be read is none."""
    try:
        value = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise PermanentError(f"--value {name}: {error.strerror}") from error
    try:
        decode_command(value)
    except UndecodableMessage as error:
        raise PermanentError(
            f"--value {name}: not sent, as it cannot be read either: {error}"
        ) from error
    return value
