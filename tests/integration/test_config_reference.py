"""Our reader of HOCON against the reference implementation, file by file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path as File
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config import hocon
from ariproxy.config.grammar import Block, Items, Path, Value, parse
from ariproxy.config.grammar import Reference as Substitution
from ariproxy.errors import ConfigError
from tests.integration.services import reference
from tests.integration.services.reference import Reference

CHECKOUT = File(__file__).parents[2]
ENVIRON = {"SITE": "berlin", "HTTP_PORT": "9001", "ARI_PASSWORD": "s3", "EMPTY": ""}
FILES = 2000

# Where the two differ on purpose: what is so, a file, what we read in it, and what
# the reference reads; None for a file that is refused. Nothing else may differ. What
# comes out of a circle depends on where the reference enters it; we refuse most.
DIFFERENCES: list[tuple[str, str, Any, Any]] = [
    ("a value may hold ':'", "a = pbx:8088", {"a": "pbx:8088"}, None),
    ("a value may hold '://'", "a = http://x/y", {"a": "http://x/y"}, None),
    ("a key may be called include", "include = 1", {"include": "1"}, None),
    ("quotes may hold control characters", 'a = "\t"', {"a": "\t"}, None),
    ("a key may follow an include", 'include "x" a = 1', {"a": "1"}, None),
    ("a block in front needs no '='", "a { } { b = 1 }", {"a": {"b": "1"}}, None),
    ("'+=' may touch a number", "1+=2", {"1": ["2"]}, None),
    (
        "what is hidden may be missing",
        "b.c = ${x}\nb.c = ${SITE}",
        {"b": {"c": "berlin"}},
        None,
    ),
    (
        "a copy may look at itself",
        "t.x = 1\ns = ${t} { y = ${s.x} }",
        {"t": {"x": "1"}, "s": {"x": "1", "y": "1"}},
        None,
    ),
    (
        "file() is beside the file, not in the working folder",
        'include file("beside.conf")',
        {"x": "1"},
        {},
    ),
    (
        "a key may add to itself in a block that was something else",
        "a = 1\na.b += 1\na.b += 2",
        {"a": {"b": ["1", "2"]}},
        {"a": {"b": ["2"]}},
    ),
    ("no Java properties", 'include "java"', None, {"x": "1"}),
    ("no include in a list", 'a = [{ include "beside" }]', None, {"a": [{"x": "1"}]}),
    ("no half of a surrogate pair", r'a = "\ud83d"', None, {"a": "?"}),
    ("nothing beside a block or list", "a = [1] x", None, {"a": ["1"]}),
    ("no block inside of itself", "a { b = 1, c = ${?a} }", None, {"a": {"b": "1"}}),
    ("no list of what its key held", "a = 1\na = [${?a}]", None, {"a": []}),
    (
        "no environment in the value of its own key",
        "SITE = ${SITE}\nSITE = ${?NONE}",
        None,
        {"SITE": "berlin"},
    ),
    (
        "no circle, though one can be cut",
        "a = 1\nb = ${a}\na = ${b}2",
        None,
        {"a": "12", "b": "1"},
    ),
    ("no text made of a circle", "a = ${?b}x\nb = ${?a}y", None, {"a": "yx", "b": "y"}),
]
# What those say that refuse a file of the generator which the other reads, for the
# reasons above.
WE_REFUSE = re.compile(
    "leads to itself|joined with something else|nested too deep|include inside a list"
    "|has no earlier value"
)
THEY_REFUSE = re.compile("UnresolvedSubstitution|Cannot concatenate|BugOrBroken")

WORDS = st.sampled_from(
    "x on 10s 512MiB 6 007 1e3 1E-2 1.10 -5 0 true false yes null-and-void pbx.example"
    " io.retel.ariproxy.persistence.plugin.RedisPersistenceStore 127.0.0.1 a/b/c"
    " /var/lib/ari-proxy/db müller 50% p;w~d (x) <y> it's a_b-c 1.2.3 truefalse nullx"
    " include 3.x 9999999999999999999999 .5 5. - includes 1e+5".split()
)
QUOTED = st.one_of(
    st.sampled_from(
        [
            '""',
            '"localhost:9092"',
            '"ws://x/ari?app=a&api_key=b:c"',
            '"${SITE}"',
            r'"\u00e9\n\t\"\\\/ \ud83d\ude00"',
            '"# // no"',
            '"007"',
            '"null"',
            '" "',
            '"""raw "x" \\n \n line"""',
            '"""x""""',
            '""""""',
        ]
    ),
    st.text('ab :/#"\\\n\té😀{}[]$,=', max_size=6).map(json.dumps),
)
TEXTS = st.one_of(
    WORDS,
    QUOTED,
    st.lists(WORDS, min_size=2, max_size=3).map(" ".join),
    st.lists(WORDS | QUOTED, min_size=2, max_size=3).map(" ".join),
    st.tuples(WORDS, QUOTED).map("".join),
)
# So few that keys meet; a key is always a block or never, and only some are copied.
COPIED = st.sampled_from(["t", "t.u", "v"])
BLOCK_PATHS = st.sampled_from(["a", "b", "a.b", "b.a", "a.a"])
NAMES = st.sampled_from(["c", "d-e", '"f.g"', "h"])
PATHS = NAMES | st.tuples(BLOCK_PATHS, NAMES).map(".".join)
KEYS = PATHS | st.sampled_from(["a . b", "h i", '"h"', "10", "1.5", "a_b", "é"])
SUBSTITUTIONS = st.one_of(
    st.sampled_from(["${SITE}", "${?SITE}", "${?NONE}", "${?EMPTY}", "${HTTP_PORT}"]),
    PATHS.map("${{?{}}}".format),
    PATHS.map("${{?{}}}".format),
    st.just("${c}"),
)
BREAKS = st.sampled_from(
    ["\n", "\n", "\n\n", ",\n", ", ", "\n, ", " // why\n", " # why\n", "\n#x = 1\n"]
)
EQUALS = st.sampled_from([" = ", "=", ": ", " : ", "\n= ", " =\n  ", "\t=\t"])
PARTS = ["part", "part.conf", "data", "data.json", "sub/part"]
INCLUDES = st.one_of(
    st.sampled_from([*PARTS, "none", "application"]).map('include "{}"'.format),
    st.sampled_from(PARTS).map('include required("{}")'.format),
    st.sampled_from(['include classpath("none")', 'include\n  "part"']),
)


def joined(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(pieces, st.sampled_from(["", " "]), pieces).map("".join)


@st.composite
def lists(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """A list, also with line breaks and a last comma."""
    elements = draw(st.lists(values, max_size=3))
    between = "".join(element + draw(BREAKS) for element in elements[:-1])
    left = draw(st.sampled_from(["[", "[ ", "[\n"]))
    right = draw(st.sampled_from(["]", ",]", "\n]", ",\n]", " # last\n]"]))
    return left + between + "".join([*elements[-1:], right]) if elements else left + "]"


SIMPLE = st.one_of(TEXTS, SUBSTITUTIONS, st.just("null"))
# The reference allows no += and few includes in a list.
ELEMENTS = SIMPLE | st.lists(st.tuples(PATHS, SIMPLE).map(" = ".join), max_size=2).map(
    lambda entries: "{" + ", ".join(entries) + "}"
)
LISTS = lists(ELEMENTS | lists(ELEMENTS))
VALUES = st.one_of(
    SIMPLE,
    SIMPLE,
    joined(TEXTS | SUBSTITUTIONS),
    LISTS,
    joined(LISTS | SUBSTITUTIONS),
)


@st.composite
def entries(draw: st.DrawFn) -> str:
    """A key with its value, in any of the ways to write that."""
    value = draw(VALUES)
    form = draw(st.integers(0, 9))
    if form == 0:
        return f"{draw(PATHS)} += {value}"
    if form == 1:
        optional = draw(PATHS)
        return f"{optional}{draw(EQUALS)}${{?{optional}}}{value}"
    if form == 2:
        path = draw(PATHS)
        return f"{path} = {value}\n{path} = ${{{path}}} {draw(VALUES)}"
    return draw(KEYS) + draw(EQUALS) + value


@st.composite
def block_entries(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    """A key with a block, or with several that are joined."""
    path, copied = draw(BLOCK_PATHS), draw(COPIED)
    left, right = draw(st.sampled_from([("{", "}"), ("{ ", " }"), ("{\n", "\n}")]))
    block = left + draw(inner) + right
    form = draw(st.integers(0, 9))
    if form == 0:
        return f"{path} = ${{?{copied}}} {block}"
    if form == 1:
        return f"{path} = {block}${{?{copied}}}"
    if form == 2:
        return f"{path} = {block} {left} {draw(inner)} {right}"
    if form == 3:
        return f"{path} = ${{?{copied}}}"
    if form < 6:
        return f"{copied} {block}"
    return path + draw(st.sampled_from([" ", "", "\n", " = ", ": "])) + block


@st.composite
def bodies(draw: st.DrawFn, depth: int, includes: st.SearchStrategy[str]) -> str:
    """What stands in a file, or in a block."""
    statement = st.one_of(*[entries()] * 4, includes)
    if depth:
        inner = bodies(depth - 1, includes)
        statement = st.one_of(statement, block_entries(inner), block_entries(inner))
    statements = draw(st.lists(statement, max_size=5))
    between = "".join(text + draw(BREAKS) for text in statements[:-1])
    return between + "".join(statements[-1:])


BODIES = bodies(3, INCLUDES).map("c = 1\n{}".format)
DOCUMENTS = BODIES | BODIES.map("{{{}\n}}\n".format)
JSON = st.dictionaries(
    st.sampled_from(["c", "d-e", "f.g", ""]),
    st.recursive(st.text("x:/ é\n", max_size=3) | st.none(), st.lists, max_leaves=4),
).map(json.dumps)
# No file includes itself.
LEAVES = bodies(1, st.nothing())
INCLUDED = st.fixed_dictionaries(
    {
        "part.conf": LEAVES,
        "data.json": JSON,
        "sub/part.conf": LEAVES.map('include "leaf"\n{}'.format),
        "sub/leaf.conf": LEAVES,
    }
)


def _pieces(values: Iterable[Value], path: Path) -> Iterator[tuple[Path, object]]:
    """All that values are made of, each with its path."""
    for value in values:
        for piece in value.pieces:
            yield path, piece
            if isinstance(piece, Items):
                yield from _pieces(piece.values, path)
            if isinstance(piece, Block):
                for key, inner in piece.entries.items():
                    yield from _pieces(inner, (*path, key))


def _looks_at_itself(root: Block) -> bool:
    """Tell whether a block that was also something else has a substitution of it.

    The reference finds nothing in such a block, or too little.
    """
    pieces = [*_pieces([Value([root], "")], ())]
    blocks = {path for path, piece in pieces if isinstance(piece, Block)}
    mixed = blocks & {path for path, piece in pieces if not isinstance(piece, Block)}
    return any(
        path[: len(block)] == block == found[: len(block)]
        for path, piece in pieces
        if isinstance(piece, Substitution)
        for found in (piece.path, piece.path[piece.inside :])
        for block in mixed
    )


class ReferenceTests(SynchronousTestCase):
    """The same files read by both."""

    skip = reference.missing()

    def setUp(self) -> None:
        self.folder = File(self.mktemp()).absolute()
        (self.folder / "sub").mkdir(parents=True)
        self.reference = self.enterContext(Reference(ENVIRON))

    def write(self, name: str, text: str) -> File:
        file = self.folder / name
        file.write_bytes(text.encode())
        return file

    def ours(self, file: File) -> dict[str, Any] | str:
        try:
            return hocon.read(str(file), (), ENVIRON, {}).values
        except ConfigError as error:
            return "\n".join(error.problems)

    def compare(self, file: File) -> str:
        """Read a file by both.

        Returns how it went; fails if both read it and found different values.
        """
        ours, theirs = self.ours(file), self.reference.read(file)
        if isinstance(ours, str) and isinstance(theirs, str):
            return "refused by both"
        if isinstance(ours, str) and WE_REFUSE.search(ours):
            return "refused by us"
        if isinstance(theirs, str) and THEY_REFUSE.search(theirs):
            return "refused by them"
        if isinstance(ours, dict) and isinstance(theirs, dict) and ours != theirs:
            root = Block()
            parse(file.read_text(), str(file), root)
            if _looks_at_itself(root):
                return "lost by them"
        if ours != theirs:
            texts = {str(f): f.read_text() for f in [file, *self.folder.rglob("*.*")]}
            self.fail(f"{texts}\nours: {ours}\nreference: {theirs}")
        return "equal"

    def test_random_files(self) -> None:
        """What operators may write means the same to both."""
        outcomes: Counter[str] = Counter()

        @settings(
            max_examples=FILES,
            deadline=None,
            phases=set(Phase) - {Phase.explain},
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(DOCUMENTS, INCLUDED, st.sampled_from(["\n", "\r\n"]))
        def check(document: str, parts: dict[str, str], line_break: str) -> None:
            for name, text in parts.items():
                self.write(name, text)
            file = self.write("main.conf", document.replace("\n", line_break))
            outcomes[self.compare(file)] += 1

        check()
        self.assertGreater(outcomes["equal"], FILES / 2, outcomes)

    def test_differences(self) -> None:
        """Each difference that is on purpose exists, and is as described."""
        self.write("beside.conf", "x = 1")
        self.write("java.properties", "x = 1")
        for what, text, expected, of_reference in DIFFERENCES:
            file = self.write("main.conf", text)
            ours, theirs = self.ours(file), self.reference.read(file)
            self.assertEqual(None if isinstance(ours, str) else ours, expected, what)
            self.assertEqual(
                None if isinstance(theirs, str) else theirs, of_reference, what
            )

    def test_our_files(self) -> None:
        """The files of the tests, the one that is shipped and that of the README."""
        shipped = CHECKOUT / "etc/ari-proxy/service.conf"
        readme = (CHECKOUT / "README.rst").read_text()
        example = readme.split("in the format HOCON::")[1].split("\n\n``")[0]
        files = [
            *(CHECKOUT / "tests/configs").rglob("*.conf"),
            shipped,
            # With all its defaults, whose lines begin with "#" and a key.
            self.write("all.conf", re.sub(r"(?m)^( *)#", r"\1", shipped.read_text())),
            self.write("readme.conf", example),
        ]
        self.assertGreater(len(files), 6)
        for file in files:
            self.assertEqual(self.compare(file), "equal", file.name)
            self.assertNotEqual(self.ours(file), {}, file.name)
