"""The grammar of HOCON: text in, a tree of what was written out.

It follows https://github.com/lightbend/config/blob/main/HOCON.md, and
``tests/integration/test_config_reference.py`` compares it with the program of the
same authors and tells where the two differ on purpose. The most visible
difference: a value may hold ``:`` and ``://`` without quotes
(``server = localhost:8088``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from msgspec import Struct

from ariproxy.errors import ConfigError

__all__ = ["Block", "Items", "Path", "Reference", "Space", "Value", "dotted", "parse"]

Path = tuple[str, ...]

MAX_DEPTH = 20
MAX_INCLUDES = 10
# What the original's files include to get its built-in defaults.
BUILT_IN = frozenset({"application", "application.conf", "reference.conf"})
# An include without an ending reads all that there are, the last one winning.
_ENDINGS = (".properties", ".json", ".conf")

_SPACE = re.compile(r"(?:[^\S\n]|\ufeff)+")
_BLANK = re.compile(r"(?:\s|\ufeff|(?:#|//)[^\n]*)+")
_BETWEEN = re.compile(rf"(?:{_BLANK.pattern})?(?:,(?:{_BLANK.pattern})?)?")
_TRIPLE = re.compile(r'"""(.*?"*)"""(?!")', re.DOTALL)
_QUOTED = re.compile(r'(?!""")"(?:[^"\\\n]|\\[^\n])*"')
_SUBSTITUTION = re.compile(r"\$\{(\??)")
_CLOSING = re.compile(r"\}")
_PLAIN_KEY = re.compile(r"(?:(?!//)[^\s\ufeff$\"{}\[\]:=,+#`^?!@*&\\])+")
_PLAIN = re.compile(
    r"-?\d[\d.]*[eE]\+\d+|(?:://|(?!//)[^\s\ufeff$\"{}\[\]=,+#`^?!@*&\\])+"
)
_SEPARATOR = re.compile(r"\+=|[:=]|(?=\{)")
_INCLUDE = re.compile(
    r"include\s+(?P<required>required\(\s*)?"
    r"(?:(?P<kind>file|classpath|url|package)\(\s*)?(?P<name>\"[^\"\n]*\")"
    r"(?:\s*\))*"
)


class Space(str):
    """White space beside a substitution; it counts only between texts."""


class Reference(Struct, frozen=True):
    """A substitution, ``${path}`` or ``${?path}``, and where it stands.

    In a file that is included inside of blocks, ``path`` begins with those
    ``inside`` keys; what is not found there is looked for without them.
    """

    path: Path
    inside: int
    optional: bool
    place: str


class Items(Struct):
    """A list as it was written."""

    values: list[Value]


class Block(Struct):
    """``{ ... }``: for each key all its values, in the order of the text."""

    entries: dict[str, list[Value]] = {}


class Value(Struct):
    """The pieces of one value, to be joined; ``None`` is null."""

    pieces: list[str | Space | Reference | Items | Block | None]
    place: str


def dotted(path: Sequence[str]) -> str:
    """The path as it is written in a file."""
    return ".".join(
        part if re.fullmatch(r"[\w-]+", part) else json.dumps(part) for part in path
    )


def parse(
    text: str,
    source: str,
    block: Block,
    path: Path = (),
    opened: Sequence[str] = (),
) -> tuple[list[Path], list[str]]:
    """Add what the text sets to the block at ``path``.

    ``source`` is the name of the text in messages, and what it includes is
    looked for beside it; ``opened`` are the files that include it. Returns the
    paths that were set outside of lists, and the included files that do not
    exist as they were written. Raises ``ConfigError``.
    """
    parser = _Parser(text, source, path, [*opened, source])
    parser.document(block)
    return parser.assigned, parser.skipped


def content(filename: str) -> str:
    """The text of a file. Raises ``ConfigError``."""
    try:
        with open(filename, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not the name of a file"
        raise ConfigError(f"{filename}: cannot be read: {reason}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{filename}:{line}: not UTF-8; save the file in that encoding"
        ) from None


class _Parser:
    """The methods read at ``at`` and move it on.

    A path is ``None`` inside a list, where nothing has a name.
    """

    def __init__(self, text: str, source: str, path: Path, opened: list[str]) -> None:
        self.text = text
        self.source = source
        self.path = path
        self.opened = opened
        self.at = 0
        self.assigned: list[Path] = []
        self.skipped: list[str] = []

    def place(self) -> str:
        if self.source.startswith("--set"):
            return self.source
        line = self.text.count("\n", 0, self.at) + 1
        return f"{self.source}:{line}"

    def fail(self, problem: str) -> NoReturn:
        raise ConfigError(f"{self.place()}: {problem}")

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def document(self, block: Block) -> None:
        self.take(_BLANK)
        if self.next() == "[":
            self.fail("a list; the file must hold keys and blocks")
        if self.next() == "{":
            self.at += 1
            self.entries(block, self.path, "}", 0)
            self.at += 1
            self.take(_BLANK)
        else:
            self.entries(block, self.path, "", 0)
        if self.next():
            self.fail("something follows the closing '}'")

    def entries(
        self, block: Block, path: Path | None, closing: str, depth: int
    ) -> None:
        start = self.at
        self.take(_BLANK)
        while True:
            if self.next() == closing:
                return
            if not self.next():
                self.at = start
                self.fail("a block that is never closed; '}' is missing")
            include = self.take(_INCLUDE)
            if include:
                self.include(include, block, path)
            else:
                self.entry(block, path, depth)
            self.take(_BETWEEN)

    def entry(self, block: Block, path: Path | None, depth: int) -> None:
        key = self.key()
        self.take(_BLANK)
        separator = self.take(_SEPARATOR)
        if separator is None:
            self.fail('expected KEY = VALUE, KEY { ... } or include "FILE"')
        self.take(_BLANK)
        full = None if path is None else (*path, *key)
        place = self.place()
        if separator[0] != "+=":
            value = self.value(full, depth + len(key))
        elif full is None:
            self.fail("'+=' inside a list")
        else:
            value = self.value(None, depth + len(key))
            # So the specification defines it.
            value = Value([Reference(full, 0, True, place), Items([value])], place)
        if full is not None:
            self.assigned.append(full)
        for part in key[:-1]:
            block = _block(block.entries.setdefault(part, []), place)
        block.entries.setdefault(key[-1], []).append(value)

    def key(self) -> Path:
        parts = [""]
        in_quotes = set()
        given = False
        while True:
            space = self.take(_SPACE)
            quoted = self.quoted()
            plain = self.take(_PLAIN_KEY) if quoted is None else None
            if quoted is None and plain is None:
                break
            if space and given:
                parts[-1] += space[0]
            given = True
            if quoted is not None:
                parts[-1] += quoted
                in_quotes.add(len(parts) - 1)
            elif plain:
                first, *others = plain[0].split(".")
                parts[-1] += first
                parts += others
        if not given:
            self.fail("expected a key; a value with special characters needs quotes")
        for index, part in enumerate(parts):
            if not part.strip() and index not in in_quotes:
                self.fail("a key with an empty part")
        return tuple(parts)

    def value(self, path: Path | None, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} deep")
        value = Value([], self.place())
        while True:
            space = self.take(_SPACE)
            before = Space(space[0] if space and value.pieces else "")
            plain = self.take(_PLAIN)
            text = plain[0] if plain else self.quoted()
            if plain and text == "null":
                value.pieces += [before, None] if before else [None]
            elif text is not None:
                _add_text(value, before + text)
            elif self.next() and self.next() in "{[$":
                value.pieces += [before] if before else []
                value.pieces.append(self.compound(path, depth))
            else:
                break
        if not value.pieces:
            self.fail("a key without a value, or a value that needs quotes")
        if self.next() and self.next() not in "\n,}]#/":
            self.fail("a value with special characters needs quotes")
        return value

    def quoted(self) -> str | None:
        triple = self.take(_TRIPLE)
        if triple:
            return triple[1]
        quoted = self.take(_QUOTED)
        if quoted:
            return self.unescape(quoted[0])
        if self.next() == '"':
            self.fail("a quoted text without its closing quote")
        return None

    def unescape(self, quoted: str) -> str:
        try:
            text: str = json.loads(quoted, strict=False)
            text.encode()
        except ValueError:
            self.fail("a quoted text with a '\\' that JSON does not know; write '\\\\'")
        return text

    def compound(self, path: Path | None, depth: int) -> Reference | Items | Block:
        if self.next() == "$":
            return self.substitution()
        opening = self.next()
        self.at += 1
        piece: Items | Block
        if opening == "{":
            piece = Block()
            self.entries(piece, path, "}", depth)
        else:
            piece = Items([])
            self.elements(piece, depth + 1)
        self.at += 1
        return piece

    def elements(self, items: Items, depth: int) -> None:
        start = self.at
        self.take(_BLANK)
        while True:
            if self.next() == "]":
                return
            if not self.next():
                self.at = start
                self.fail("a list that is never closed; ']' is missing")
            items.values.append(self.value(None, depth))
            self.take(_BETWEEN)

    def substitution(self) -> Reference:
        found = self.take(_SUBSTITUTION)
        if found is None:
            self.fail("'$' outside of quotes that starts no ${...}")
        path = (*self.path, *self.key())
        if not self.take(_CLOSING):
            self.fail("a substitution without its closing '}'")
        return Reference(path, len(self.path), bool(found[1]), self.place())

    def include(self, found: re.Match[str], block: Block, path: Path | None) -> None:
        name = self.unescape(found["name"])
        if path is None:
            self.fail("include inside a list")
        if found["kind"] in ("url", "package") or "://" in name:
            self.fail("only files can be included")
        if len(self.opened) > MAX_INCLUDES:
            self.fail(f"files include one another more than {MAX_INCLUDES} deep")
        base = os.path.join(os.path.dirname(self.source), name)
        names = [base + ending for ending in _ENDINGS]
        files = [*filter(os.path.isfile, [base] if name.endswith(_ENDINGS) else names)]
        for file in files:
            if file.endswith(".properties"):
                self.fail("only .conf and .json files can be included")
            assigned, skipped = parse(content(file), file, block, path, self.opened)
            self.assigned += assigned
            self.skipped += skipped
        if found["required"] and not files:
            self.fail(f"the included file {base} does not exist")
        if not files and name not in BUILT_IN:
            self.skipped.append(f"include {json.dumps(name)}")


def _add_text(value: Value, text: str) -> None:
    """Add a text, to the one before it if there is one."""
    last = value.pieces[-1] if value.pieces else None
    if isinstance(last, str):
        value.pieces[-1] = last + text
    else:
        value.pieces.append(text)


def _block(values: list[Value], place: str) -> Block:
    """The block that the last of the values is, or a new one behind them."""
    if values and len(values[-1].pieces) == 1:
        last = values[-1].pieces[0]
        if isinstance(last, Block):
            return last
    block = Block()
    values.append(Value([block], place))
    return block
