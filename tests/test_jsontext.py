"""Tests of ariproxy.jsontext."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.jsontext import compact, parse, parse_first, text_of

DIGITS = b"9" * 5000

# Any JSON that Python can hold, with lone surrogates and big integers in it.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=())), inner)
    ),
    max_leaves=12,
)


class ParseTests(SynchronousTestCase):
    """Reading one JSON text."""

    def test_rewritten(self) -> None:
        """What is read is written compact, with the original's spelling of numbers."""
        for text, expected in (
            (b' { "b" : [ 1 , 2 ] , "a" : null } ', b'{"b":[1,2],"a":null}'),
            (b'{"a":1e2}', b'{"a":100.0}'),
            (b'{"a":1.10}', b'{"a":1.1}'),
            (b'{"a":123456789012345678901}', b'{"a":123456789012345678901}'),
            (b'{"a":-9007199254740993}', b'{"a":-9007199254740993}'),
            (b'"\\u00e4\\/\\u20ac"', '"ä/€"'.encode()),
            (b'"\\ud83d\\ude00"', '"\U0001f600"'.encode()),
            (b'"\\ud800 \\n"', b'"\\ud800 \\n"'),
            (b"null", b"null"),
        ):
            self.assertEqual(compact(parse(text)), expected, text)

    def test_numbers_beyond_python(self) -> None:
        """Numbers that Python cannot hold are carried as text, never as null."""
        text = b'{"a":1e400,"b":-1e400,"c":' + DIGITS + b',"d":1e2}'
        for read in (parse, parse_first):
            self.assertEqual(
                read(text),
                {"a": "1e400", "b": "-1e400", "c": DIGITS.decode(), "d": 100.0},
            )
        mixed = b'["\\ud800",1e400]'
        self.assertEqual(compact(parse(mixed)), b'["\\ud800","1e400"]')

    def test_refused(self) -> None:
        """What is not exactly one JSON text in UTF-8 is a ValueError."""
        for text in (b"", b" ", b"{", b"{}x", b"[1] 2", b"NaN", b"-Infinity", b"01"):
            self.assertRaises(ValueError, parse, text)
        for text in (b'"\xff"', b'{"a":"\xc3"}', b"\xff\xfe{\x00}\x00", b"'a'"):
            self.assertRaises(ValueError, parse, text)

    def test_deep(self) -> None:
        """A text that is nested too deep raises RecursionError and nothing else."""
        for depth in (500_000, 1_000_000):
            text = b"[" * depth + b"]" * depth
            self.assertRaises(RecursionError, parse, text)
            self.assertRaises(RecursionError, parse_first, text + b" more")

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, text: bytes) -> None:
        """Bytes are read, or refused by one of the declared errors."""
        for read in (parse, parse_first):
            try:
                read(text)
            except (ValueError, RecursionError):
                continue

    @settings(deadline=None)
    @given(JSON)
    def test_any_json(self, value: Any) -> None:
        """Every JSON comes through unchanged, whatever wrote it."""
        for text in (json.dumps(value).encode(), compact(value)):
            self.assertEqual(parse(text), value)
            self.assertEqual(parse_first(text + b" {}"), value)
        self.assertEqual(json.loads(compact(value)), value)


class ParseFirstTests(SynchronousTestCase):
    """Reading the first JSON value of a text."""

    def test_rest_ignored(self) -> None:
        """Whatever follows the value does not matter."""
        for rest in (b"", b" ", b"{", b"}}", b" null", b"\xff", b"\x00"):
            self.assertEqual(parse_first(b' \n\t{"a":1}' + rest), {"a": 1}, rest)

    def test_invalid_utf8(self) -> None:
        """Bytes that are not UTF-8 become U+FFFD."""
        self.assertEqual(parse_first(b'{"a":"x\xffy"}'), {"a": "x\ufffdy"})

    def test_refused(self) -> None:
        """A text that does not begin with JSON is a ValueError."""
        for text in (b"", b"\n", b"x{}", b'{"a":', b"NaN", b'"a', b"\xff"):
            self.assertRaises(ValueError, parse_first, text)


class TextOfTests(SynchronousTestCase):
    """Scalars as text."""

    def test_scalars(self) -> None:
        """Numbers and booleans count as text, spelled as JSON spells them."""
        for value, text in (
            ("a", "a"),
            ("", ""),
            (5, "5"),
            (-1, "-1"),
            (10**30, "1" + "0" * 30),
            (100.0, "100.0"),
            (True, "true"),
            (False, "false"),
            ("Zoë €", "Zoë €"),
            ("\ud800ä\udfff", "?ä?"),
        ):
            self.assertEqual(text_of(value), text)

    def test_others(self) -> None:
        """What is no scalar has no text."""
        for value in (None, [], ["a"], {}, {"id": "a"}):
            self.assertEqual(text_of(value), "")
