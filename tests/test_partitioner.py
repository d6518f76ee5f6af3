"""Which partition a key goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.kafka.partitioner import Partitioner, murmur2

# From the unit tests of Kafka's Java client, as Java's signed numbers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


class Murmur2Tests(SynchronousTestCase):
    """The hash itself."""

    def test_as_java(self) -> None:
        """The known values of the Java client come out."""
        self.assertEqual(
            {key: murmur2(key) for key in JAVA},
            {key: value & 0xFFFFFFFF for key, value in JAVA.items()},
        )

    @given(st.binary(max_size=40))
    def test_fits_32_bits(self, data: bytes) -> None:
        """Keys of every length give a number of 32 bits."""
        self.assertTrue(0 <= murmur2(data) < 2**32)


class PartitionerTests(SynchronousTestCase):
    """The choice."""

    def test_known_choices(self) -> None:
        """The sign is dropped by its bit, as Java does it."""
        choose = Partitioner()
        self.assertEqual(choose(b"21", 7), (-973932308 & 0x7FFFFFFF) % 7)
        self.assertNotEqual(choose(b"21", 7), 973932308 % 7)
        self.assertEqual(choose(b"abc", 7), 479470107 % 7)

    @given(st.binary(max_size=40), st.integers(1, 1000))
    def test_in_range(self, key: bytes, partitions: int) -> None:
        """Every key has one partition, and always the same."""
        chosen = Partitioner()(key, partitions)
        self.assertIn(chosen, range(partitions))
        self.assertEqual(Partitioner()(key, partitions), chosen)

    def test_without_key(self) -> None:
        """Records without a key are spread evenly."""
        choose = Partitioner()
        self.assertEqual([choose(None, 3) for _ in range(6)], [0, 1, 2, 0, 1, 2])

    def test_empty_key(self) -> None:
        """An empty key is a key."""
        choose = Partitioner()
        self.assertEqual(len({choose(b"", 50) for _ in range(5)}), 1)
