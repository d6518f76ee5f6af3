"""From a ``service.conf`` to a checked :class:`Config`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import fields

from ariproxy.config import checks
from ariproxy.config.hocon import Document, Path, dotted, read
from ariproxy.config.keys import Config
from ariproxy.config.reference import Key, keys, spelled
from ariproxy.config.values import Address, Properties, Secret, resolve
from ariproxy.errors import ConfigError

__all__ = ["load"]

S = TypeVar("S", bound=Struct)

_KEYS = {key.path: key for key in keys()}
_DEFAULTS = {
    path: text
    for path, key in _KEYS.items()
    if not key.required_with and isinstance(key.default, str | int | float)
    for text in [spelled(key.default)]
    if text
}
# Blocks of the original's libraries; most of their keys mean nothing here.
_FOREIGN = ("akka", "datastax-java-driver")


def load(
    path: str,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read a configuration file.

    :param path: a HOCON file; it may include others, which are looked for
        beside it.
    :param overrides: texts like ``service.httpport=8080``; they win over the
        file, and substitutions see them.
    :param environ: where substitutions and ``env:NAME`` look.

    Raises ``ConfigError`` with all problems that can be told at once, one line
    each; no line holds a secret.
    """
    document = read(path, overrides, environ, _DEFAULTS)
    return _Loading(path, document, environ).config()


class _Loading:
    def __init__(
        self, filename: str, document: Document, environ: Mapping[str, str]
    ) -> None:
        self.filename = filename
        self.document = document
        self.environ = environ
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.refused: set[str] = set()
        self.secrets: set[str] = set()

    def config(self) -> Config:
        # Secrets first, so that none shows where it was put by mistake.
        for key in sorted(_KEYS.values(), key=lambda key: not key.kind.secret):
            self.read(key)
        ignored = [*self.unknown(), *self.document.skipped]
        checks.derive(self.values)
        for key in _KEYS.values():
            self.required(key)
        self.problems += checks.unavailable(self.values, self.found)
        checks.contradictions(self.values, self.problem)
        if self.problems:
            raise ConfigError(*self.problems)
        return _build(Config, (), self.values, ignored=tuple(ignored))

    def problem(self, key: str, text: str) -> None:
        self.problems.append(f"{self.where(key)}: {key}: {text}")

    def where(self, key: str) -> str:
        overridden = key in map(dotted, self.document.overridden)
        return "--set" if overridden else self.filename

    def raw(self, path: Path) -> Any:
        value: Any = self.document.values
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def found(self, name: str) -> str:
        """The key and what was found there."""
        key = next(key for key in _KEYS.values() if key.name == name)
        raw = self.raw(key.path)
        if isinstance(raw, dict):
            what = "a block"
        elif key.kind.secret or any(secret in str(raw) for secret in self.secrets):
            what = "a value that may hold a secret"
        else:
            what = json.dumps(raw)
            what = what if len(what) <= 60 else what[:57] + "..."
        return f"{self.where(name)}: {name}: found {what}"

    def read(self, key: Key) -> None:
        raw = self.raw(key.path)
        if raw is None:
            return
        try:
            value = key.kind.read(raw)
        except ValueError:
            self.problems.append(f"{self.found(key.name)}; allowed: {key.kind.allowed}")
            self.refused.add(key.name)
            return
        try:
            self.values[key.name] = self.with_secrets(value)
        except ValueError as error:
            self.problem(key.name, str(error))
            self.refused.add(key.name)

    def with_secrets(self, value: Any) -> Any:
        """The value, with what stands for a secret replaced by the secret."""
        if isinstance(value, Secret):
            secret = resolve(value, self.environ, os.path.dirname(self.filename))
            if secret:
                self.secrets.add(secret.reveal())
            return secret
        if isinstance(value, Address) and value.password:
            self.secrets.add(value.password.reveal())
        if isinstance(value, dict):
            return Properties(
                (name, self.with_secrets(Secret(child)).reveal())
                if isinstance(child, str) and "password" in name
                else (name, self.with_secrets(child))
                for name, child in value.items()
            )
        return value

    def unknown(self) -> list[str]:
        """Reports the unknown keys of ``service``; returns those ignored."""
        ignored = []
        for path in _unread(self.document.values, ()):
            if path[0] != "service":
                ignored.append(dotted(path))
            elif _is_block(path):
                self.problem(dotted(path), "found a value; allowed: a block")
            else:
                self.problem(dotted(path), "unknown" + _hint(path))
        return ignored

    def required(self, key: Key) -> None:
        if key.name in self.values or key.name in self.refused:
            return
        store = self.values.get("service.persistence-store", "redis")
        if "service.persistence-store" in self.refused:
            store = None
        why = None
        if key.required:
            why = "required"
        elif store and key.required_with == store:
            why = f"required with service.persistence-store = {store}"
        if why:
            self.problems.append(
                f"{self.filename}: {key.name}: missing, {why}: {key.kind.allowed}"
            )


def _is_block(path: Path) -> bool:
    return any(path == known[: len(path)] != known for known in _KEYS)


def _unread(values: Mapping[str, Any], path: Path) -> Iterator[Path]:
    """The shortest paths that lead to no key."""
    for name, value in values.items():
        here = (*path, name)
        if here in _KEYS:
            continue
        is_block = isinstance(value, dict)
        if _is_block(here):
            if is_block:
                yield from _unread(value, here)
            elif value is not None:
                yield here
        elif is_block and here[0] in _FOREIGN:
            yield from _unread(value, here)
        else:
            yield here


def _hint(path: Path) -> str:
    *block, name = path
    siblings = {known[len(block)] for known in _KEYS if [*known[: len(block)]] == block}
    close = get_close_matches(name, sorted(siblings), n=1)
    if close:
        return f"; did you mean {dotted([*block, close[0]])}?"
    same = [dotted(known) for known in _KEYS if known[-1] == name]
    return f"; did you mean {' or '.join(same)}?" if same else ""


def _build(block: type[S], path: Path, values: Mapping[str, Any], **given: Any) -> S:
    for info in fields(block):
        here = (*path, *info.encode_name.split("."))
        if dotted(here) in values:
            given[info.name] = values[dotted(here)]
        elif _is_block(here):
            given[info.name] = _build(info.type, here, values)
    return block(**given)
