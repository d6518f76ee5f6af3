"""Which partition a record goes to: the choice of the Java client.

librdkafka has this built in (``murmur2_random``); pykafka has not. Records of
one key must go to one partition whoever publishes them, also in a fleet of Java
and Python proxies.
"""

from __future__ import annotations

from functools import lru_cache

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_BITS = 0xFFFFFFFF


@lru_cache(maxsize=10_000)
def murmur2(data: bytes) -> int:
    """The 32-bit hash of ``data``, not negative.

    MurmurHash2 with the seed of ``org.apache.kafka.common.utils.Utils``; Java
    shows the same bits as a signed number.
    """
    length = len(data)
    hashed = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _MULTIPLIER & _BITS
        word = (word ^ word >> 24) * _MULTIPLIER & _BITS
        hashed = hashed * _MULTIPLIER & _BITS ^ word
    if length > whole:
        rest = int.from_bytes(data[whole:], "little")
        hashed = (hashed ^ rest) * _MULTIPLIER & _BITS
    hashed = (hashed ^ hashed >> 13) * _MULTIPLIER & _BITS
    return hashed ^ hashed >> 15


class Partitioner:
    """Chooses as the Java client's default partitioner does.

    Records without a key go round all partitions, one after the other: the
    Java client promises nothing for them but an even spread.
    """

    def __init__(self) -> None:
        self._turn = -1

    def __call__(self, key: bytes | None, partitions: int) -> int:
        """The number of one of ``partitions`` partitions."""
        if key is None:
            self._turn += 1
            return self._turn % partitions
        # Java drops the sign by its bit, not by the absolute value.
        return (murmur2(key) & 0x7FFFFFFF) % partitions
