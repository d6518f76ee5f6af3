"""The keys of the configuration as a list, for the loader and the reference."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from ariproxy.config.grammar import Path, dotted
from ariproxy.config.keys import Config, Derived, RequiredWith
from ariproxy.config.values import Kind, Secret

__all__ = ["Key", "keys", "spelled"]


class Key(Struct, frozen=True):
    """One key: where it stands, what it means, and what it is without.

    ``default`` is ``NODEFAULT`` where the key is required. ``derived`` and
    ``required_with`` say what the default comes from, or which store needs it.
    """

    path: Path
    kind: Kind
    meaning: str
    default: Any
    derived: str | None
    required_with: str | None

    @property
    def name(self) -> str:
        """The key as it is written in a file."""
        return dotted(self.path)

    @property
    def required(self) -> bool:
        return self.default is NODEFAULT and self.derived is None


def keys(block: type[Struct] = Config, path: Path = ()) -> Iterator[Key]:
    """All keys of a block, in the order of the reference."""
    hints = get_type_hints(block, include_extras=True)
    for info in fields(block):
        hint = hints[info.name]
        here = (*path, *info.encode_name.split("."))
        if isinstance(hint, type) and issubclass(hint, Struct):
            yield from keys(hint, here)
        elif get_origin(hint) is Annotated:
            yield _key(here, hint, _default(info))


def _key(path: Path, hint: Any, default: Any) -> Key:
    notes = list(_notes(hint))
    stores = [note.store for note in notes if isinstance(note, RequiredWith)]
    return Key(
        path=path,
        kind=next(note for note in notes if isinstance(note, Kind)),
        meaning=next(note for note in notes if isinstance(note, str)),
        default=default,
        derived=next((n.default for n in notes if isinstance(n, Derived)), None),
        required_with=stores[0] if stores else None,
    )


def _notes(hint: Any) -> Iterator[Any]:
    """What stands beside a type, also beside the members of a union."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
        yield from _notes(hint.__origin__)
    elif get_origin(hint) is not tuple:
        for member in get_args(hint):
            yield from _notes(member)


def _default(info: FieldInfo) -> Any:
    if info.default_factory is not NODEFAULT:
        return info.default_factory()
    return info.default


def spelled(value: Any) -> str | None:
    """A value as it is written in a file; ``None`` for one that is not written."""
    if value is None:
        return None
    if isinstance(value, Secret):
        return json.dumps(value.reveal())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _duration(value)
    if isinstance(value, int) and value and value % 1024**3 == 0:
        return f"{value // 1024**3}GiB"
    if isinstance(value, tuple | dict):
        return json.dumps(value)
    return str(value) or '""'


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:.0f}{unit}"
    return f"{seconds * 1000:g}ms"
