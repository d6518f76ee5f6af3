"""Tests for ``ariproxy.config.grammar`` and ``ariproxy.config.hocon``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.config import hocon
from ariproxy.errors import ConfigError

TEXTS = {"a": "10s", "b": "007", "c": "1e2", "d": "1.10"}

# What a HOCON file holds for each text: taken from the specification.
GOOD: list[tuple[str, Any]] = [
    ("", {}),
    ("// nothing\n# at all", {}),
    ("\ufeffa = 1", {"a": "1"}),
    ('{ "a": 1, "b": [1, 2,], }', {"a": "1", "b": ["1", "2"]}),
    ("a = 1 # one\nb : 2 // two", {"a": "1", "b": "2"}),
    ("a = 10s\nb = 007\nc = 1e2\nd = 1.10", TEXTS),
    ("a = 1e+5\nb = -5", {"a": "1e+5", "b": "-5"}),
    ("a = yes\nb = true", {"a": "yes", "b": "true"}),
    ('a = null\nb = "null"', {"a": None, "b": "null"}),
    ("a = null${?b}\nc = x null", {"a": None, "c": "x null"}),
    ("a = [null, 1]\na += null", {"a": [None, "1", None]}),
    ("a =\n  5", {"a": "5"}),
    ("a\n{ b = 1 }", {"a": {"b": "1"}}),
    ("a.b = 1\na { c = 2 }\na.d.e = 3", {"a": {"b": "1", "c": "2", "d": {"e": "3"}}}),
    ('"" = 1\na."".b = 2', {"": "1", "a": {"": {"b": "2"}}}),
    ('"""a""" = 1', {"a": "1"}),
    ('a."b.c".d = 1\n"e f" = 2', {"a": {"b.c": {"d": "1"}}, "e f": "2"}),
    ("a = 1\na = 2", {"a": "2"}),
    ("a = 1\na.b = 2", {"a": {"b": "2"}}),
    ("a.b = 1\na = 2\na.c = 3", {"a": {"c": "3"}}),
    ("a { b = 1 }\na = null\na { c = 2 }", {"a": {"c": "2"}}),
    ("a = several words  ", {"a": "several words"}),
    ('a = x"y"z', {"a": "xyz"}),
    ("a = localhost:8088 // where", {"a": "localhost:8088"}),
    ("a = http://x/y // where", {"a": "http://x/y"}),
    ("a = x//y", {"a": "x"}),
    ('a = "x // y # z"', {"a": "x // y # z"}),
    ('a = "\\u00e9\\n\\"\\\\ \\ud83d\\ude00"', {"a": 'é\n"\\ 😀'}),
    ('a = "tab\there"', {"a": "tab\there"}),
    ('a = """x"y\n\\z""""', {"a": 'x"y\n\\z"'}),
    ("a = ${b}\nb = 1\nb = 2", {"a": "2", "b": "2"}),
    ("a = ${b.c}5\nb.c = x", {"a": "x5", "b": {"c": "x"}}),
    ("a = foo ${b} bar\nb = 1", {"a": "foo 1 bar", "b": "1"}),
    ("a = ${b} ${b}\nb = 1", {"a": "1 1", "b": "1"}),
    ("a = ${b} ${b}\nb = [1]", {"a": ["1", "1"], "b": ["1"]}),
    ('a = ${"b.c"}\n"b.c" = 1', {"a": "1", "b.c": "1"}),
    ('a = "${b}"', {"a": "${b}"}),
    ("a = ${?b}", {}),
    ("a = 1\na = ${?b} ${?c}", {"a": " "}),
    ("a = [1] ${?b}", {"a": ["1"]}),
    ('a = "x"${?b}', {"a": "x"}),
    ("a = 1\na = ${?b}", {"a": "1"}),
    ("a { x = 8080, x = ${?a.y} }", {"a": {"x": "8080"}}),
    ("a = [1, ${?b}, 2]", {"a": ["1", "2"]}),
    ("a = ${missing}\na = 1", {"a": "1"}),
    ("a = x\na = ${a}y\na = ${a}z", {"a": "xyz"}),
    ("a { b = x }\na { b = ${a.b}y }", {"a": {"b": "xy"}}),
    ("a { b = 1, c = ${a.b} }\na.b = 2", {"a": {"b": "2", "c": "2"}}),
    ("a += 1\na += 2", {"a": ["1", "2"]}),
    ("a.b = [1]\na { b += 2 }", {"a": {"b": ["1", "2"]}}),
    ("a += { b = 1 }", {"a": [{"b": "1"}]}),
    ("a { x = 1 }\na = [{ y = 2 }]", {"a": [{"y": "2"}]}),
    ("a = [1] [2]", {"a": ["1", "2"]}),
    ("a = { b = 1 } { c = 2 }", {"a": {"b": "1", "c": "2"}}),
    ("t { v = 0 }\na = ${t}\na.w = 1", {"t": {"v": "0"}, "a": {"v": "0", "w": "1"}}),
    ("t { v = 0 }\na = ${t} { v = 1 }", {"t": {"v": "0"}, "a": {"v": "1"}}),
    ("t.d = 1\na = ${t} { e = ${a.d} }", {"t": {"d": "1"}, "a": {"d": "1", "e": "1"}}),
    ("t.d = 1\na = ${t}\nb = ${a.d}", {"t": {"d": "1"}, "a": {"d": "1"}, "b": "1"}),
    ("a { b = 1 }\na = ${?c}", {"a": {"b": "1"}}),
    ("a = 1\na = ${?b}\nb = ${?a}", {"a": "1", "b": "1"}),
    ("a = ${?b}\nb = ${?a}", {}),
    ("c = z\nc = v${?a}\na = v${?b}", {"c": "vv", "a": "v"}),
    ("a.b = [1]\nc = x\na = ${c}", {"a": "x", "c": "x"}),
    ("a = [{ x = ${b} }]\nb = 1", {"a": [{"x": "1"}], "b": "1"}),
    ("a = ${HOST}", {"a": "from-environment"}),
    ("HOST = own\na = ${HOST}", {"HOST": "own", "a": "own"}),
    ("HOST = ${?HOST}", {}),
    ("HOST = ${?HOST}x", {"HOST": "x"}),
    ("HOST += x", {"HOST": ["x"]}),
    ("b.HOST = ${?HOST}", {"b": {"HOST": "from-environment"}}),
    ("service.name = ${service.name}-1", {"service": {"name": "default-name-1"}}),
    ('b { include "own" }\np = 1', {"b": {"p": "x"}, "p": "1"}),
    ("a = ${service.name}", {"a": "default-name"}),
    ('include "application"\na = 1', {"a": "1"}),
    ('include classpath("application.conf")', {}),
    ('include "other"\na = ${x}', {"x": "1", "a": "1"}),
    ('b { include file("other.conf") }', {"b": {"x": "1"}}),
    ('include required("other.conf")', {"x": "1"}),
    ('include\n"other"', {"x": "1"}),
    ('include "both"', {"x": "1", "y": "json"}),
    (
        'b { include "inner" }\nx = 9',
        {"b": {"x": "12", "y": "12", "l": ["1"]}, "x": "9"},
    ),
    ('b { c { include "outward" } }\nw = 9', {"b": {"c": {"v": "9"}}, "w": "9"}),
    ('c { include "between" }\nw = 9', {"c": {"b": {"v": "9"}}, "w": "9"}),
]

INCLUDED = {
    "other.conf": "x = 1",
    "both.conf": "x = 1",
    "both.json": '{"x": "json", "y": "json"}',
    "inner.conf": "x = 1\nx = ${x}2\ny = ${x}\nl += 1",
    "outward.conf": "v = ${w}",
    "between.conf": 'b { include "outward" }',
    "java.properties": "x = 1",
    "own.conf": "p = ${?p}x",
    "plain": "x = 1",
}

# A bad text, and what its one message must say behind the name of the file.
BAD: list[tuple[str, str]] = [
    ("a = {", ":1: a block that is never closed"),
    ("\na = [1", ":2: a list that is never closed"),
    ("a { b = 1 }}", ":1: expected a key"),
    ("{ a = 1 }\nb = 2", ":2: something follows the closing '}'"),
    ("[1, 2]", ":1: a list; the file must hold keys and blocks"),
    ("a =", ":1: a key without a value"),
    ("\n\na b", ":3: expected KEY = VALUE"),
    ("= 1", ":1: expected a key"),
    ("a..b = 1", ":1: a key with an empty part"),
    ('"a".' + " = 1", ":1: a key with an empty part"),
    ("a = 1,, b = 2", ":1: expected a key"),
    ("a = [1,, 2]", ":1: a key without a value"),
    ("a = [, 1]", ":1: a key without a value"),
    ("a = x1e+5", ":1: a value with special characters needs quotes"),
    ("a = 1 = 2", ":1: a value with special characters needs quotes"),
    ("a = pass?word", ":1: a value with special characters needs quotes"),
    ("a = @x", ":1: a key without a value, or a value that needs quotes"),
    ('a = "x', ":1: a quoted text without its closing quote"),
    ('a = """x"', ":1: a quoted text without its closing quote"),
    ('"a = 1', ":1: a quoted text without its closing quote"),
    ('a = "\\q"', ":1: a quoted text with a '\\'"),
    ('a = "\\ud83d"', ":1: a quoted text with a '\\'"),
    ("a = $x", ":1: '$' outside of quotes"),
    ("a = ${}", ":1: expected a key"),
    ("a = ${b", ":1: a substitution without its closing '}'"),
    ("\na = ${b}", ":2: a: ${b} is not set"),
    ("a = ${a}", ":1: a: ${a} has no earlier value"),
    ("a = 1\na = [${?a}]", ":2: a: ${a} leads to itself"),
    ("a += ${?a}", ":1: a: ${a} leads to itself"),
    ("HOST = ${HOST}", ":1: HOST: ${HOST} has no earlier value"),
    ("a = ${b}\nb = ${a}", ":2: b: ${a} leads to itself"),
    ("a = ${?b}x\nb = ${?a}y", ":2: b: ${a} leads to itself"),
    ("a { b = 1, c = ${?a} }", ":1: a.c: ${a} leads to itself"),
    ("a.b = ${?c}\nc = ${?a}", ":2: c: ${a} leads to itself"),
    ('a = "x" { b = 1 }', ":1: a: a block or a list is joined with something else"),
    ("a = [1] x\na { b = 1 }", ":1: a: a block or a list is joined"),
    ("a = ${b} [1]\nb = x", ":1: a: a block or a list is joined"),
    ('include required("none")', ":1: the included file"),
    ('include "java.properties"', ":1: only .conf and .json files can be included"),
    ('include "java"', ":1: only .conf and .json files can be included"),
    ('include url("http://127.0.0.1:1/x")', ":1: only files can be included"),
    ('include "http://127.0.0.1:1/x"', ":1: only files can be included"),
    ('a = [{ include "other" }]', ":1: include inside a list"),
    ("a = [{ b += 1 }]", ":1: '+=' inside a list"),
    ("a += { b += 1 }", ":1: '+=' inside a list"),
    ('include "service.conf"', "include one another more than 10 deep"),
    ("a = " + "[" * 100_000, ":1: nested more than 20 deep"),
    ("a {" * 100_000, ":1: nested more than 20 deep"),
    (".".join("a" * 50) + " = 1", ":1: nested more than 20 deep"),
]

# What a file may be made of.
TOKENS = [
    *'a b . = : += { } [ ] , ${a} ${?b} ${a.b} "x" null 1 # // \n'.split(" "),
    " ",
    'include "other"',
    '"""',
    "\\",
]


class HoconTests(SynchronousTestCase):
    """The rules of HOCON, and where a text breaks them."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "service.conf"
        for name, text in INCLUDED.items():
            (self.folder / name).write_text(text)

    def read(self, text: str | bytes, *overrides: str) -> hocon.Document:
        data = text.encode() if isinstance(text, str) else text
        self.file.write_bytes(data)
        return hocon.read(
            str(self.file),
            overrides,
            {"HOST": "from-environment"},
            {("service", "name"): "default-name"},
        )

    def problems(self, text: str | bytes, *overrides: str) -> tuple[str, ...]:
        error = self.assertRaises(ConfigError, self.read, text, *overrides)
        return error.problems

    def test_good_texts(self) -> None:
        """Each text means what the specification says."""
        for text, expected in GOOD:
            self.assertEqual(self.read(text).values, expected, text)

    def test_bad_texts(self) -> None:
        """Each mistake is told with its file, line and mend."""
        for text, expected in BAD:
            problem = self.problems(text)[0]
            self.assertIn(expected, problem, text[:40])
            self.assertTrue(problem.startswith(str(self.folder)), problem)

    def test_all_unset_substitutions(self) -> None:
        """All substitutions that find nothing are told at once."""
        problems = self.problems("a = ${x}\nb { c = ${y} }")
        self.assertEqual(len(problems), 2)
        self.assertIn(":2: b.c: ${y} is not set", problems[1])

    def test_long_chain(self) -> None:
        """A chain of substitutions without end is an error, not a crash."""
        chain = "\n".join(f"a{n} = ${{a{n + 1}}}" for n in range(2000))
        self.assertIn("nested too deep", self.problems(chain)[0])

    def test_skipped_includes(self) -> None:
        """A file that is not there is told of, unless it is the built-in one."""
        document = self.read('include "application"\ninclude "local"\na = 1')
        self.assertEqual(document.skipped, ('include "local"',))
        # Nor is a name without an ending the name of a file.
        self.assertEqual(self.read('include "plain"').skipped, ('include "plain"',))

    def test_include_in_folder(self) -> None:
        """An included file is looked for beside the file that includes it."""
        (self.folder / "sub").mkdir()
        (self.folder / "sub" / "one.conf").write_text('include "two"')
        (self.folder / "sub" / "two.conf").write_text("y = 2")
        self.assertEqual(self.read('include "sub/one"').values, {"y": "2"})

    def test_error_in_included_file(self) -> None:
        """The message names the included file."""
        (self.folder / "other.conf").write_text("\nx = ?")
        self.assertIn("other.conf:2: ", self.problems('include "other"')[0])

    def test_overrides(self) -> None:
        """Overrides win, and the substitutions of the file see them."""
        document = self.read(
            "a = 1\nb = ${a}\nc { d = 1, e = 2 }", "a=2", "c.d = 3", "f.g=${b}0"
        )
        self.assertEqual(
            document.values,
            {"a": "2", "b": "2", "c": {"d": "3", "e": "2"}, "f": {"g": "20"}},
        )
        self.assertEqual(document.overridden, {("a",), ("c", "d"), ("f", "g")})

    def test_override_over_inherited_block(self) -> None:
        """An override reaches into a block made by a substitution."""
        document = self.read("t { x = 1, y = 2 }\na = ${t}", "a.x=5")
        self.assertEqual(document.values["a"], {"x": "5", "y": "2"})

    def test_override_values(self) -> None:
        """A plain value is taken as it is; lists, blocks, quotes are HOCON."""
        for text, expected in [
            ("p@ss#w//ord?", "p@ss#w//ord?"),
            ("a=b", "a=b"),
            ("[::1]:8088", "[::1]:8088"),
            ('"', '"'),
            ("http://x:1/y", "http://x:1/y"),
            ("", ""),
            ("null", None),
            ('"null"', "null"),
            ('["x", y]', ["x", "y"]),
            ("{ x = 1 }", {"x": "1"}),
        ]:
            self.assertEqual(self.read("", f"a={text}").values, {"a": expected})

    def test_bad_overrides(self) -> None:
        """A malformed override is told by --set and key, never by its value."""
        for override, expected in [
            ("service.x", "--set: an override must read KEY=VALUE"),
            ("=hunter2", "--set: an override must read KEY=VALUE"),
            ('service.x=["hunter2]', "--set service.x: a quoted text without"),
            ("service..x=hunter2", "--set service..x: a key with an empty part"),
            ("service.x={hunter2}", "--set service.x: expected KEY = VALUE"),
            ("service.x=${hunter2", "--set service.x: a substitution without its"),
        ]:
            problem = self.problems("", override)[0]
            self.assertIn(expected, problem)
            self.assertNotIn("hunter2", problem)

    def test_files_that_cannot_be_read(self) -> None:
        """A missing file, a folder, a bad name: one line with the reason."""
        for name, expected in [
            (str(self.folder / "none"), "No such file or directory"),
            (str(self.folder), "Is a directory"),
            ("a\0b", "not the name of a file"),
        ]:
            error = self.assertRaises(ConfigError, hocon.read, name, (), {}, {})
            self.assertEqual(error.problems, (f"{name}: cannot be read: {expected}",))

    def test_not_utf8(self) -> None:
        """The line of the first byte that is not UTF-8 is told."""
        self.assertIn(":2: not UTF-8", self.problems(b"a = 1\nb = \xff")[0])

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever a file holds, only ConfigError comes of it."""
        try:
            self.read(data)
        except ConfigError as error:
            self.assertTrue(error.problems)

    @given(
        st.lists(
            st.sampled_from(TOKENS),
            max_size=25,
        )
    )
    def test_any_tokens(self, tokens: list[str]) -> None:
        """Nor of any order of what HOCON is made of."""
        try:
            self.read("".join(tokens), *tokens[:1])
        except ConfigError as error:
            self.assertTrue(error.problems)

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_quoted_text(self, text: str) -> None:
        """A text quoted as in JSON comes out as it went in."""
        document = self.read(f"a = {json.dumps(text)}\nb = x${{a}}y\nc = [${{a}}]")
        self.assertEqual(document.values, {"a": text, "b": f"x{text}y", "c": [text]})

    @given(
        st.recursive(
            st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
            lambda inner: st.dictionaries(st.text('abc."$ é'), inner) | st.lists(inner),
            max_leaves=12,
        ).filter(lambda value: isinstance(value, dict))
    )
    def test_json(self, value: dict[str, Any]) -> None:
        """Every JSON object is HOCON and means the same."""
        self.assertEqual(self.read(json.dumps(value)).values, value)
