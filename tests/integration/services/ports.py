"""Free ports on 127.0.0.1 that stay free while a server restarts.

They lie below the range from which the kernel serves outgoing connections (32768 by
default on Linux), so that no client takes the port of a server that is down.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading

HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 10_000, 32_000
_given: set[int] = set()
_lock = threading.Lock()


def free_ports(count: int) -> int:
    """Find ``count`` ports in a row that nobody uses for TCP or UDP.

    A port is given at most once in the life of this process.

    :returns: the first of them.
    :raises OSError: there is no such row, after 1000 tries.
    """
    with _lock:
        for _ in range(1000):
            first = random.randrange(_LOWEST, _HIGHEST - count, 2)
            row = range(first, first + count)
            if _given.isdisjoint(row) and all(_is_unused(port) for port in row):
                _given.update(row)
                return first
    raise OSError(f"no {count} free ports in a row between {_LOWEST} and {_HIGHEST}")


def free_port() -> int:
    """Find a port that nobody uses for TCP or UDP; see :func:`free_ports`."""
    return free_ports(1)


def accepts(port: int) -> bool:
    """Tell whether a connection to the TCP port is accepted within a second."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
        return True
    return False


def _is_unused(port: int) -> bool:
    try:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as attempt:
                if kind == socket.SOCK_STREAM:
                    # Connections that have ended linger for a minute; they are no use.
                    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                attempt.bind((HOST, port))
    except OSError:
        return False
    return True
