"""A Redis that refuses what it is told to refuse, with the words of the real one."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from tests.integration.services.ports import HOST


class ScriptedRedis:
    """Speaks RESP 2, keeps values, forgets no entry by itself.

    :ivar port: where it listens.
    :ivar refusals: command -> the error that it is answered with; ``*`` for all
        that are not named. May be changed at any time.
    :ivar values: what was set.
    """

    def __init__(self) -> None:
        self.port = 0
        self.refusals: dict[str, str] = {}
        self.values: dict[str, str] = {}

    def listen(self, reactor: Any) -> Any:
        """Begin; gives the listening port."""
        factory = Factory.forProtocol(lambda: _Connection(self))
        listening = reactor.listenTCP(0, factory, interface=HOST)
        self.port = listening.getHost().port
        return listening

    def answer(self, command: str, words: list[str]) -> str:
        """What is sent back, without the last line end."""
        refusal = self.refusals.get(command, self.refusals.get("*"))
        if refusal is not None:
            return f"-{refusal}"
        if command == "PING":
            return "+PONG"
        if command == "GET":
            value = self.values.get(words[0])
            return "$-1" if value is None else f"${len(value.encode())}\r\n{value}"
        if command == "SET":
            self.values[words[0]] = words[1]
            return "+OK"
        if command == "DEL":
            return f":{int(self.values.pop(words[0], None) is not None)}"
        return f":{int(words[0] in self.values)}"


class _Connection(LineReceiver):
    """``*2``, ``$3``, ``GET``, ``$1``, ``x``: one command, each word on two lines."""

    def __init__(self, redis: ScriptedRedis) -> None:
        self._redis = redis
        self._wanted = 0
        self._lines: list[str] = []

    def lineReceived(self, line: bytes) -> None:
        if not self._wanted:
            self._wanted = int(line[1:])
            return
        self._lines.append(line.decode())
        if len(self._lines) == 2 * self._wanted:
            command, *words = self._lines[1::2]
            self._wanted, self._lines = 0, []
            self.sendLine(self._redis.answer(command.upper(), words).encode())
