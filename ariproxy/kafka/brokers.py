"""Whether Kafka answers."""

from __future__ import annotations

from twisted.logger import Logger


class Brokers:
    """Whether the brokers answer, told to the log once per change.

    All methods are called in the reactor's thread.
    """

    _log = Logger()

    def __init__(self, client: str, addresses: str) -> None:
        self._client = client
        self._addresses = addresses
        self.trouble = ""

    def failed(self, error: str) -> None:
        """The client reports an error; it goes on trying by itself."""
        if not self.trouble:
            self._log.warn(
                "Kafka at {addresses} is away for the {client}: {error}; "
                "trying until it answers",
                addresses=self._addresses,
                client=self._client,
                error=error,
            )
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
