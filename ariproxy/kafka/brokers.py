"""Whether Kafka answers."""

from __future__ import annotations

from twisted.logger import Logger

VAGUE, AWAY, REFUSED = range(3)
"""How much an error says: only that nobody answers; why; what a person must mend."""


class Brokers:
    """Whether the brokers answer, told to the log once per change.

    All methods are called in the reactor's thread.
    """

    _log = Logger()

    def __init__(self, client: str, addresses: str) -> None:
        self._client = client
        self._addresses = addresses
        self.trouble = ""
        self._told = -1

    def failed(self, error: str, weight: int = AWAY) -> None:
        """The client reports an error; it goes on trying by itself.

        It is logged unless one that says as much was: who first hears that a
        broker is away must also hear that the password is wrong.
        """
        if weight > self._told:
            self._told = max(weight, AWAY)
            self._log.warn(
                "Kafka at {addresses} is away for the {client}: {error}; "
                "trying until it answers",
                addresses=self._addresses,
                client=self._client,
                error=error,
            )
        if weight > VAGUE or not self.trouble:
            self.trouble = error

    def answered(self) -> None:
        """The brokers have answered."""
        if self.trouble:
            self._log.info(
                "Kafka at {addresses} answers the {client} again",
                addresses=self._addresses,
                client=self._client,
            )
            self.trouble = ""
            self._told = -1
