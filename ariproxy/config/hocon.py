"""HOCON files in, nested dicts of text out: merging and substitution.

A scalar always comes out as the text it was written as, so that ``007`` and
``10s`` can be passwords; what a text means is for its key to say.

The rules are those of
https://github.com/lightbend/config/blob/main/HOCON.md: later values win, blocks
merge, a substitution sees the final value of what it names, and in the value of
its own key the value that stood before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ariproxy.config.grammar import (
    Block,
    Items,
    Path,
    Reference,
    Space,
    Value,
    content,
    dotted,
    parse,
)
from ariproxy.errors import ConfigError

__all__ = ["Document", "Path", "dotted", "read"]

Layer = Block | dict[str, Any]

_MISSING = object()
_NOT_SET = "is not set: no key and no environment variable has this name"


class Document(Struct, frozen=True):
    """One configuration, merged and resolved.

    ``values`` are nested dicts; a leaf is a text, ``None`` for null, or a list
    of such. ``overridden`` are the paths set by ``--set``. ``skipped`` are the
    included files that do not exist, as they were written.
    """

    values: dict[str, Any]
    overridden: frozenset[Path]
    skipped: tuple[str, ...]


def read(
    filename: str,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    defaults: Mapping[Path, str],
) -> Document:
    """Read a file and what it includes, and put the overrides on top.

    ``overrides`` are texts like ``service.x=y``. A value in ``[ ]``, ``{ }`` or
    ``" "``, or one that holds ``${``, is HOCON, and ``null`` is null; any other
    is taken as it is, as Java takes ``-Dservice.x=y``. ``defaults`` and
    ``environ`` are what substitutions find where no file sets it; but one in the
    value of its own key does not find the environment. Raises ``ConfigError``.
    """
    root = Block()
    overridden: list[Path] = []
    try:
        _, skipped = parse(content(filename), filename, root)
        for override in overrides:
            overridden += _override(override, root)
        resolver = _Resolver(filename, root, environ, defaults)
        values = resolver.all()
    except RecursionError:
        raise ConfigError(f"{filename}: substitutions nested too deep") from None
    if resolver.problems:
        raise ConfigError(*resolver.problems)
    return Document(values, frozenset(overridden), tuple(skipped))


def _override(text: str, root: Block) -> list[Path]:
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key:
        raise ConfigError(
            "--set: an override must read KEY=VALUE, like service.httpport=8080"
        )
    ends = value[:1] + value[1:][-1:]
    if not (value == "null" or ends in ("[]", "{}", '""') or "${" in value):
        value = json.dumps(value)
    assigned, _ = parse(f"{key} = {value}", f"--set {key}", root)
    return assigned


class _Resolver:
    """Works out the final values.

    The values that a key was given stand in one list, the latest last, and the
    blocks that are to be merged likewise.
    """

    def __init__(
        self,
        filename: str,
        root: Block,
        environ: Mapping[str, str],
        defaults: Mapping[Path, str],
    ) -> None:
        self.filename = filename
        self.root = root
        self.environ = environ
        self.defaults = defaults
        # The keys that are being worked out, how many circles they have led to, and
        # what substitutions found, so that copies of copies cost no more.
        self.open: list[Path] = []
        self.circles = 0
        self.known: dict[Path, Any] = {}
        # A dict, because a value may be worked out more than once.
        self.problems: dict[str, None] = {}

    def all(self) -> dict[str, Any]:
        return self.merged([self.root], ())

    def fail(self, place: str, path: Path, problem: str) -> str:
        """Note a problem; returns a text to go on with."""
        self.problems[f"{place}: {dotted(path)}: {problem}"] = None
        return ""

    def merged(self, layers: Sequence[Layer], path: Path) -> dict[str, Any]:
        found = {}
        for key in dict.fromkeys(key for layer in layers for key in _keys(layer)):
            value = self.final(_values(layers, key), (*path, key))
            if value is not _MISSING:
                found[key] = value
        return found

    def final(self, values: Sequence[Any], path: Path) -> Any:
        layers, other = self.peel(values, path)
        return self.merged(layers, path) if layers else other

    def peel(self, values: Sequence[Any], path: Path) -> tuple[list[Layer], Any]:
        """The blocks that make up the final value, and what stands below them."""
        layers: list[Layer] = []
        for index in range(len(values) - 1, -1, -1):
            parts = self.parts(values[index], values[:index], path)
            if not parts:
                if any(_is_own(piece, path) for piece in values[index].pieces):
                    # Then nothing stands before it either.
                    break
                continue
            if all(isinstance(part, Block | dict) for part in parts):
                layers[:0] = parts
            else:
                # Also where blocks hide it: it may be a mistake.
                return layers, self.joined(parts, path, values[index])
        return layers, _MISSING

    def parts(self, value: Any, earlier: Sequence[Any] | None, path: Path) -> list[Any]:
        """What is to be joined; empty where optional substitutions find nothing."""
        if not isinstance(value, Value):
            return [value]
        parts: list[Any] = []
        for piece in value.pieces:
            if isinstance(piece, Reference):
                parts.append(self.lookup(piece, value, earlier, path))
            elif isinstance(piece, Items):
                items = [self.item(item, path) for item in piece.values]
                # An optional substitution that finds nothing adds no element.
                parts.append([item for item in items if item is not _MISSING])
            else:
                parts.append(piece)
        parts = [part for part in parts if part is not _MISSING]
        if any(isinstance(part, list | Block | dict) for part in parts):
            parts = [part for part in parts if not isinstance(part, Space)]
        return parts

    def item(self, value: Value, path: Path) -> Any:
        # What its key had before is not clear in a list: it counts as a circle.
        parts = self.parts(value, None, path)
        if parts and all(isinstance(part, Block | dict) for part in parts):
            return self.merged(parts, path)
        return self.joined(parts, path, value) if parts else _MISSING

    def joined(self, parts: Sequence[Any], path: Path, value: Any) -> Any:
        if len(parts) == 1:
            return parts[0]
        if all(isinstance(part, list) for part in parts):
            return [item for part in parts for item in part]
        if all(part is None or isinstance(part, str) for part in parts):
            return "".join("null" if part is None else part for part in parts)
        return self.fail(
            value.place, path, "a block or a list is joined with something else"
        )

    def lookup(
        self,
        reference: Reference,
        value: Value,
        earlier: Sequence[Any] | None,
        path: Path,
    ) -> Any:
        """What a substitution in a value stands for; ``earlier`` are the values
        that its key had before, and ``path`` is the key."""
        bare = reference.path[reference.inside :]
        name = f"${{{dotted(bare)}}}"
        for wanted in dict.fromkeys((reference.path, bare)):
            own = wanted[: len(path)] == path
            if own and earlier is not None:
                found = self.below(earlier, wanted[len(path) :], path)
            elif any(key[: len(wanted)] == wanted for key in [*self.open, path]):
                self.circles += 1
                alone = len(value.pieces) == 1
                if reference.optional and alone and wanted in self.open:
                    return _MISSING
                return self.fail(reference.place, path, f"{name} leads to itself")
            else:
                found = self.at(wanted, path)
            if own or found is not _MISSING:
                break
        if found is _MISSING:
            found = self.defaults.get(bare, _MISSING)
        if found is _MISSING and not own:
            found = self.environ.get(".".join(bare), _MISSING)
        if found is _MISSING and not reference.optional:
            problem = "has no earlier value" if own else _NOT_SET
            return self.fail(reference.place, path, f"{name} {problem}")
        return found

    def at(self, wanted: Path, path: Path) -> Any:
        """The final value at ``wanted``, for the key ``path``."""
        if wanted in self.known:
            return self.known[wanted]
        circles = self.circles
        self.open.append(path)
        found = self.below([Value([self.root], "")], wanted, ())
        self.open.pop()
        # Where a circle was cut, the value depends on where one came from.
        if circles == self.circles:
            self.known[wanted] = found
        return found

    def below(self, values: Sequence[Any], wanted: Path, path: Path) -> Any:
        """The final value at ``wanted``, counted from ``path``."""
        for key in wanted:
            layers, _ = self.peel(values, path)
            values = _values(layers, key)
            path = (*path, key)
        return self.final(values, path)


def _is_own(piece: object, path: Path) -> bool:
    return isinstance(piece, Reference) and piece.path == path


def _keys(layer: Layer) -> Sequence[str]:
    return list(layer.entries if isinstance(layer, Block) else layer)


def _values(layers: Sequence[Layer], key: str) -> list[Any]:
    found: list[Any] = []
    for layer in layers:
        if isinstance(layer, Block):
            found += layer.entries.get(key, [])
        elif key in layer:
            found.append(layer[key])
    return found
