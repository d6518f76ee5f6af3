"""Tests of ariproxy.ari.frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.ari.frames import masked_text


def unmasked(frame: bytes) -> tuple[bytes, bytes]:
    """Head and payload of a frame, byte by byte as RFC 6455, 5.3 tells it."""
    length = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    key, masked = frame[length : length + 4], frame[length + 4 :]
    return frame[:length], bytes(b ^ key[i % 4] for i, b in enumerate(masked))


class MaskedTextTests(SynchronousTestCase):
    """Frames of a client."""

    def test_lengths(self) -> None:
        """The three forms of the length (RFC 6455, 5.2), at their limits."""
        for size, head in (
            (0, b"\x81\x80"),
            (125, b"\x81\xfd"),
            (126, b"\x81\xfe\x00\x7e"),
            (65_535, b"\x81\xfe\xff\xff"),
            (65_536, b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):
            message = b"x" * size
            found = unmasked(masked_text(message, b"\x01\x02\x03\x04"))
            self.assertEqual(found, (head, message), size)

    def test_example_of_the_rfc(self) -> None:
        """A masked "Hello" (RFC 6455, 5.7)."""
        self.assertEqual(
            masked_text(b"Hello", bytes.fromhex("37fa213d")),
            bytes.fromhex("818537fa213d7f9f4d5158"),
        )

    @given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
    def test_any(self, message: bytes, key: bytes) -> None:
        """What was masked comes back, also with zeros at either end."""
        self.assertEqual(unmasked(masked_text(message, key))[1], message)
