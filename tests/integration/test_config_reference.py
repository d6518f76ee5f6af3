"""Our reader of HOCON against the reference implementation, file by file."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config import hocon
from ariproxy.config.grammar import Block, parse
from ariproxy.config.grammar import Reference as Substitution
from ariproxy.errors import ConfigError
from tests.integration.services import reference
from tests.integration.services.reference import Reference

CHECKOUT = Path(__file__).parents[2]
ENVIRON = {"SITE": "berlin", "HTTP_PORT": "9001", "ARI_PASSWORD": "s3", "EMPTY": ""}
FILES = 2000

# Where the two differ on purpose: what is so, a file, what we read in it, and what
# the reference reads; None for a file that is refused. Nothing else may differ.
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
    ("a key may add to the environment", "SITE = ${SITE}1", {"SITE": "berlin1"}, None),
    ("a list may hold what it replaces", "a = 1\na = [${a}]", {"a": ["1"]}, None),
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
    ("a key may add to itself in a block that was something else",
     "a = 1\na.b += 1\na.b += 2", {"a": {"b": ["1", "2"]}}, {"a": {"b": ["2"]}}),
    ("no Java properties", 'include "java"', None, {"x": "1"}),
    ("no include in a list", 'a = [{ include "beside" }]', None, {"a": [{"x": "1"}]}),
    ("no half of a surrogate pair", r'a = "\ud83d"', None, {"a": "?"}),
    ("nothing beside a block or list", "a = [1] x", None, {"a": ["1"]}),
    ("no block inside of itself", "a { b = 1, c = ${?a} }", None, {"a": {"b": "1"}}),
    (
        "no circle, though one can be cut",
        "a = 1\nb = ${a}\na = ${b}2",
        None,
        {"a": "12", "b": "1"},
    ),
    ("no text made of a circle", "a = ${?b}x\nb = ${?a}y", None, {"a": "yx", "b": "y"}),
]
# What those say that refuse a file of the generator which the other reads.
WE_REFUSE = re.compile(
    "leads to itself|joined with something else|nested too deep|include inside a list"
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
        ['""', '"localhost:9092"', '"ws://x/ari?app=a&api_key=b:c"', '"${SITE}"']
        + [r'"\u00e9\n\t\"\\\/ \ud83d\ude00"', '"# // no"', '"007"', '"null"', '" "']
        + ['"""raw "x" \\n \n line"""', '"""x""""', '""""""']
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
# So few that keys meet.
NAMES = ["a", "b", "c-d", '"e.f"', "g"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(".".join)
KEYS = PATHS | st.sampled_from(["a . b", "h i", '"a"', "10", "1.5", "a_b", "é"])
SUBSTITUTIONS = st.one_of(
    st.sampled_from(["${SITE}", "${?SITE}", "${?NONE}", "${?EMPTY}", "${HTTP_PORT}"]),
    PATHS.map("${{?{}}}".format),
    PATHS.map("${{{}}}".format),
)
BREAKS = st.sampled_from(
    ["\n", "\n", "\n\n", ",\n", ", ", "\n, ", " // why\n", " # why\n", "\n#x = 1\n"]
    + [" \t\n", ", # why\n"]
)
EQUALS = st.sampled_from([" = ", "=", ": ", " : ", "\n= ", " =\n  ", "\t=\t"])
INCLUDED = ["part", "part.conf", "data", "data.json", "sub/part", "none", "application"]
INCLUDES = st.one_of(
    st.sampled_from(INCLUDED).map('include "{}"'.format),
    st.sampled_from(INCLUDED[:5]).map('include required("{}")'.format),
    st.sampled_from(['include classpath("none")', 'include\n  "part"']),
)


@st.composite
def lists(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """A list, also with line breaks and a last comma."""
    elements = draw(st.lists(values, max_size=3))
    text = "".join(element + draw(BREAKS) for element in elements[:-1])
    end = draw(st.sampled_from(["", ",", "\n", ",\n", " # last\n"])) if elements else ""
    return (
        draw(st.sampled_from(["[", "[ ", "[\n"]))
        + text
        + "".join(elements[-1:])
        + end
        + "]"
    )


@st.composite
def blocks(draw: st.DrawFn, bodies: st.SearchStrategy[str]) -> str:
    """A block in braces."""
    left, right = draw(st.sampled_from([("{", "}"), ("{ ", " }"), ("{\n", "\n}")]))
    return left + draw(bodies) + right


@st.composite
def entries(draw: st.DrawFn, values: st.SearchStrategy[str]) -> str:
    """A key with its value, in any of the ways to write that."""
    key = draw(KEYS)
    value = draw(values)
    form = draw(st.integers(0, 9))
    if form == 0:
        return f"{key} += {value}"
    if form == 1:
        return f"{key}{draw(EQUALS)}${{{draw(st.sampled_from(['', '?']))}{key}}}{value}"
    if form == 2:
        path = draw(PATHS)
        return f"{path} = {value}\n{path} = ${{{path}}} {draw(values)}"
    if value.startswith("{") and value.count("{") == 1 and value.endswith("}"):
        return key + draw(st.sampled_from([" ", "", "\n", " = ", ": "])) + value
    return key + draw(EQUALS) + value


def joined(pieces: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(pieces, st.sampled_from(["", " "]), pieces).map("".join)


@st.composite
def bodies(
    draw: st.DrawFn,
    values: st.SearchStrategy[str],
    includes: st.SearchStrategy[str] = INCLUDES,
) -> str:
    """What stands in a block or a file."""
    statement = st.one_of(*[entries(values)] * 6, includes)
    statements = draw(st.lists(statement, min_size=1, max_size=5))
    return "".join(s + draw(BREAKS) for s in statements[:-1]) + statements[-1]


SIMPLE = st.one_of(TEXTS, SUBSTITUTIONS, st.just("null"))
FLAT = st.one_of(
    SIMPLE,
    SIMPLE,
    joined(st.one_of(TEXTS, SUBSTITUTIONS)),
    lists(SIMPLE),
    joined(st.one_of(lists(SIMPLE), SUBSTITUTIONS)),
)
# An include in a list is refused: no bodies there, but blocks of plain entries.
PLAIN_BLOCK = st.lists(st.tuples(PATHS, SIMPLE).map(" = ".join), max_size=2).map(
    lambda found: "{" + ", ".join(found) + "}"
)
NESTED = st.one_of(FLAT, blocks(bodies(FLAT)), lists(PLAIN_BLOCK | FLAT))
VALUES = st.one_of(
    FLAT,
    blocks(bodies(NESTED)),
    joined(st.one_of(blocks(bodies(FLAT)), SUBSTITUTIONS)),
)
DOCUMENTS = st.one_of(bodies(VALUES), blocks(bodies(VALUES)), st.just(""))
JSON = st.dictionaries(
    st.sampled_from(["a", "b", "e.f", ""]),
    st.recursive(
        st.text("x:/ é\n", max_size=3) | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("ab"), inner),
        max_leaves=4,
    ),
).map(json.dumps)
# No file may include itself.
PARTS = st.fixed_dictionaries(
    {
        "part.conf": bodies(FLAT, st.just('include "sub/part"')),
        "data.json": JSON,
        "sub/part.conf": bodies(FLAT, st.just('include "leaf"')),
        "sub/leaf.conf": bodies(FLAT, st.just('include "none"')),
    },
)


def _adds_below_another_value(
    block: Block, path: tuple[str, ...], another: bool = False
) -> bool:
    """Tell whether a key adds to itself in a block that was also something else.

    The reference loses what such a key held before.
    """
    for key, values in block.entries.items():
        pieces = [piece for value in values for piece in value.pieces]
        own = (*path, key)
        paths = [piece.path for piece in pieces if isinstance(piece, Substitution)]
        if another and any(found[: len(own)] == own for found in paths):
            return True
        inner = [piece for piece in pieces if isinstance(piece, Block)]
        another_here = another or len(inner) < len(pieces)
        if any(_adds_below_another_value(piece, own, another_here) for piece in inner):
            return True
    return False


class ReferenceTests(SynchronousTestCase):
    """The same files read by both."""

    skip = reference.missing()

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "sub").mkdir(parents=True)
        self.reference = self.enterContext(Reference(ENVIRON))

    def write(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_bytes(text.encode())
        return file

    def ours(self, file: Path) -> dict[str, Any] | str:
        try:
            return hocon.read(str(file), (), ENVIRON, {}).values
        except ConfigError as error:
            return "\n".join(error.problems)

    def compare(self, file: Path) -> str:
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
            if _adds_below_another_value(root, ()):
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
            suppress_health_check=[HealthCheck.too_slow],
        )
        @given(DOCUMENTS, PARTS, st.sampled_from(["\n", "\r\n"]))
        def check(document: str, parts: dict[str, str], line_break: str) -> None:
            for name, text in parts.items():
                self.write(name, text)
            file = self.write("main.conf", document.replace("\n", line_break))
            outcomes[self.compare(file)] += 1

        check()
        print(outcomes)
        self.assertGreater(outcomes["equal"], sum(outcomes.values()) / 2)

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
