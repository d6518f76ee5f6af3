"""Tests of ariproxy.ari.urls."""

from __future__ import annotations

import re
import time
from urllib.parse import unquote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.urls import command_url
from ariproxy.errors import CommandRefused


class CommandUrlTests(SynchronousTestCase):
    """What is sent to Asterisk, and what never is."""

    def test_kept(self) -> None:
        """A fitting url is sent exactly as it was spelled."""
        for url in (
            "/channels",
            "/channels?endpoint=PJSIP/100&app=demo",
            "/channels/1.2/play?media=sound:a,sound:b&x=%20+%2B",
            "/channels/a%2Fb%25/answer",
            "/asterisk/ping?a=b?c=d",
            "/events/user/a;b=c@d!$&'()*,~-_",
            "/recordings/stored/..x/...",
            "/channels/x?next=../..",
            "/arithmetic",
            "/",
        ):
            self.assertEqual(str(command_url(url)), url)

    def test_ari_prefix(self) -> None:
        """A leading /ari is taken off, once and as a whole segment."""
        for url, sent in (
            ("/ari/channels?x=/ari/", "/channels?x=/ari/"),
            ("/ari", "/"),
            ("/ari?x=1", "/?x=1"),
            ("/ari/ari/channels", "/ari/channels"),
            ("/ariel", "/ariel"),
        ):
            self.assertEqual(str(command_url(url)), sent)

    def test_fragment(self) -> None:
        """A fragment is not sent, wherever it begins."""
        self.assertEqual(str(command_url("/channels#x?y")), "/channels")
        self.assertEqual(str(command_url("/channels?a=1#x")), "/channels?a=1")
        self.assertEqual(str(command_url("/channels?a=%23x")), "/channels?a=%23x")

    def test_encoded(self) -> None:
        """Characters that have no place in an address are percent-encoded."""
        for url, sent in (
            ("/channels/Zoë?n=€", "/channels/Zo%C3%AB?n=%E2%82%AC"),
            ('/channels/"<>^`{|}', "/channels/%22%3C%3E%5E%60%7B%7C%7D"),
            ("/channels/a\\b", "/channels/a%5Cb"),
            ("/channels/\x85\u2028", "/channels/%C2%85%E2%80%A8"),
        ):
            self.assertEqual(str(command_url(url)), sent)

    def test_no_path(self) -> None:
        """What is no path below ARI's base is refused."""
        for url in (
            "",
            "channels",
            "http://example.org/channels",
            "//example.org/channels",
            "///x",
            "\\\\example.org\\x",
            "?x=1",
            "#x",
            "@example.org/",
            ".",
        ):
            self.assertRaises(CommandRefused, command_url, url)

    def test_control_characters(self) -> None:
        """Spaces, control characters and lone surrogates are refused, anywhere."""
        for number in (*range(0x21), 0x7F, 0xD800, 0xDFFF):
            for url in ("/channels/a{}b", "/channels?a={}", "/a#{}", "/ari{}"):
                self.assertRaises(CommandRefused, command_url, url.format(chr(number)))

    def test_leaves_base(self) -> None:
        """Segments that lead out of /ari are refused, however they are spelled."""
        for path in (
            "/..",
            "/../x",
            "/ari/..",
            "/ari/../../x",
            "/channels/../../x",
            "/channels/./x",
            "/channels/..",
            "/channels/..?x",
            "/channels/..#x",
            "/channels/%2e%2e/x",
            "/channels/%2E./x",
            "/channels/.%2e",
            "/channels/%252e%252e/x",
            "/channels/%25252e%25252e/x",
            "/channels/..%2fx",
            "/channels%2f..%2f..",
            "/channels/..\\x",
            "/channels\\..\\x",
            "/channels%5c..%5cx",
            "/channels/%25%32%65%2e/x",
        ):
            self.assertRaises(CommandRefused, command_url, path)

    def test_endless_layers(self) -> None:
        """A path that is encoded over and over is refused at once."""
        begin = time.process_time()
        for path in ("/%" + "25" * 300_000 + "2e", "/" + "%25252541" * 100_000):
            with self.assertRaises(CommandRefused):
                command_url(path + "/%2525252525252e")
        self.assertLess(time.process_time() - begin, 5)

    @settings(deadline=None)
    @given(
        st.text(
            st.sampled_from("/.%25eE2Ff\\ari?#:@ \n\u00e4\ud800") | st.characters(),
            max_size=30,
        )
    )
    def test_any_text(self, text: str) -> None:
        """Any text is refused, or sent in ASCII as a path that stays below /ari."""
        try:
            sent = str(command_url(text))
        except CommandRefused:
            return
        self.assertTrue(sent.startswith("/"))
        self.assertIsNone(re.search(r"[^\x21-\x7e]", sent))
        path = sent.partition("?")[0]
        for _ in range(10):
            self.assertNotIn("..", re.split(r"[/\\]", path))
            path = unquote(path)


class ParameterTests(SynchronousTestCase):
    """Query parameters."""

    def test_parameter(self) -> None:
        """A parameter is decoded; of several the last counts, as for Asterisk."""
        url = command_url("/bridges?name=a%20b+c&bridgeId=1&bridgeId=%C3%AB&x")
        self.assertEqual(url.parameter("name"), "a b c")
        self.assertEqual(url.parameter("bridgeId"), "ë")
        self.assertEqual(url.parameter("x"), "")
        self.assertEqual(url.parameter("y"), "")

    def test_with_parameter(self) -> None:
        """A parameter is added behind what was there, which stays as spelled."""
        for url, longer in (
            ("/bridges", "/bridges?bridgeId=a+%26"),
            ("/bridges?name=%7e+x", "/bridges?name=%7e+x&bridgeId=a+%26"),
        ):
            added = command_url(url).with_parameter("bridgeId", "a &")
            self.assertEqual(str(added), longer)
            self.assertEqual(added.parameter("bridgeId"), "a &")
