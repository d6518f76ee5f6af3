"""A simulated Asterisk that is never the bottleneck.

A process of its own: a thread answers requests, over HTTP and as messages on the
websocket, and pings; the main thread writes ready-made frames as fast as the other
side reads, or at an exact rate. It is told what to do, and answers, over a pipe.
"""

from __future__ import annotations

import base64
import hashlib
import multiprocessing
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.answers import http_answer, websocket_answer
from benchmarks.frames import (
    CALLS,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Frames,
    frames_of_client,
    server_frame,
)

_WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CHUNK = 64 * 1024
_OPEN_LIMIT = 30.0


class Asterisk:
    """The simulated Asterisk as its user sees it.

    :ivar port: where it listens.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        return self._pipe.recv()

    def forget(self) -> None:
        """Wait for a new websocket from now on."""
        self._ask("forget")

    def opened(self) -> int:
        """Wait for the websocket; gives when it opened, in nanoseconds."""
        when = self._ask("opened")
        if when is None:
            raise TimeoutError(f"no websocket within {_OPEN_LIMIT:g} s")
        return int(when)

    def start_calls(self) -> None:
        """Send the StasisStart of all calls."""
        self._pipe.send(("start",))
        self._pipe.recv()

    def begin_burst(self, first: int, count: int) -> None:
        """Send events as fast as they are read; ``ended`` tells when it began."""
        self._pipe.send(("burst", first, count))

    def begin_paced(self, first: int, count: int, rate: float) -> None:
        """Send ``rate`` events a second."""
        self._pipe.send(("paced", first, count, rate))

    def begin_channels(self, kind: str, first: int, count: int) -> None:
        """Send an event of each of these channels, as fast as they are read."""
        self._pipe.send(("channels", kind, first, count))

    def ended(self) -> int:
        """Wait until all is sent; gives when the first was, in nanoseconds."""
        return int(self._pipe.recv())

    def fall_silent(self) -> None:
        """Answer nothing, and take nothing, until told to ``speak``."""
        self._ask("fall_silent")

    def speak(self) -> None:
        """Answer all that has come, and go on."""
        self._ask("speak")


@contextmanager
def running_asterisk() -> Iterator[Asterisk]:
    """Run it for as long as the context lasts."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Asterisk(ours)
    finally:
        ours.close()
        process.join(5)
        process.kill()


def _main(pipe: Connection) -> None:
    server = _Server()
    threading.Thread(target=server.serve, daemon=True).start()
    pipe.send(server.port)
    frames = Frames()
    while True:
        try:
            request, *args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(server, request)(frames, *args))
        except OSError as error:
            # The other side is gone; whoever reads the records finds out.
            print(f"simulated Asterisk: {error}", flush=True)
            pipe.send(0)


class _Server:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=500)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._websocket: socket.socket | None = None
        self._opened = threading.Event()
        self._opened_at = 0
        self._sending = threading.Lock()
        self._answering = threading.Event()
        self._answering.set()

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                key.data()

    # -- what the pipe asks for ---------------------------------------------------

    def forget(self, frames: Frames) -> None:
        self._opened.clear()

    def opened(self, frames: Frames) -> int | None:
        return self._opened_at if self._opened.wait(_OPEN_LIMIT) else None

    def fall_silent(self, frames: Frames) -> None:
        self._answering.clear()

    def speak(self, frames: Frames) -> None:
        self._answering.set()

    def start(self, frames: Frames) -> int:
        for number in range(CALLS):
            self._send(frames.start(number, time.monotonic_ns()))
        return 0

    def burst(self, frames: Frames, first: int, count: int) -> int:
        now = time.monotonic_ns()
        numbers = range(first, first + count)
        return self._blast(frames.event(number, now) for number in numbers)

    def channels(self, frames: Frames, kind: str, first: int, count: int) -> int:
        now = time.monotonic_ns()
        numbers = range(first, first + count)
        return self._blast(frames.channel(kind, number, now) for number in numbers)

    def _blast(self, made: Iterator[bytes]) -> int:
        """Make all, then send all; gives when it began to send."""
        chunks: list[bytearray] = []
        chunk = bytearray()
        for frame in made:
            chunk += frame
            if len(chunk) >= _CHUNK:
                chunks.append(chunk)
                chunk = bytearray()
        chunks.append(chunk)
        began = time.monotonic_ns()
        for each in chunks:
            self._send(each)
        return began

    def paced(self, frames: Frames, first: int, count: int, rate: float) -> int:
        began = time.monotonic_ns()
        for number in range(count):
            due = began + int(number * 1e9 / rate)
            if (wait := due - time.monotonic_ns()) > 0:
                time.sleep(wait / 1e9)
            self._send(frames.event(first + number, time.monotonic_ns()))
        return began

    def _send(self, data: bytes | bytearray) -> None:
        # The other thread may answer a ping, though not in the middle of a frame.
        with self._sending:
            if self._websocket is None:
                raise ConnectionError("no websocket is open")
            self._websocket.sendall(data)

    # -- connections --------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held = bytearray()

        def readable() -> None:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                self._close(connection)
                return
            self._answering.wait()
            held.extend(data)
            if connection is self._websocket:
                self._messages(connection, held)
            else:
                self._requests(connection, held)

        self._selector.register(connection, selectors.EVENT_READ, readable)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        if connection is self._websocket:
            self._websocket = None
        connection.close()

    def _requests(self, connection: socket.socket, held: bytearray) -> None:
        while (end := held.find(b"\r\n\r\n")) >= 0:
            original = bytes(held[:end])
            head = original.lower()
            size = 0
            if (at := head.find(b"\r\ncontent-length:")) >= 0:
                size = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if len(held) < end + 4 + size:
                return
            del held[: end + 4 + size]
            if (at := head.find(b"\r\nsec-websocket-key:")) >= 0:
                self._upgrade(connection, original[at + 20 :].split(b"\r\n", 1)[0])
                return
            connection.sendall(http_answer(original.split(b"\r\n", 1)[0]))

    def _upgrade(self, connection: socket.socket, key: bytes) -> None:
        digest = hashlib.sha1(key.strip() + _WEBSOCKET_GUID).digest()
        with self._sending:
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                + base64.b64encode(digest)
                + b"\r\n\r\n"
            )
            self._websocket = connection
        self._opened_at = time.monotonic_ns()
        self._opened.set()

    def _messages(self, connection: socket.socket, held: bytearray) -> None:
        """Answer all that one read has brought in one write."""
        answers = bytearray()
        closed = False
        for opcode, payload in frames_of_client(held):
            if opcode == TEXT:
                answers += server_frame(websocket_answer(payload))
            elif opcode == PING:
                answers += server_frame(payload, PONG)
            elif opcode == CLOSE:
                answers += server_frame(payload, CLOSE)
                closed = True
        if answers:
            with self._sending:
                connection.sendall(answers)
        if closed:
            self._close(connection)
