"""Every exception of the proxy.

``TemporaryError`` and ``PermanentError`` tell the caller what may be done: a
temporary failure may go away by itself, so the same call may be made again; a
permanent one needs another input, another setting, or a person.
"""

from __future__ import annotations


class AriProxyError(Exception):
    """The base of all errors raised on purpose by this package."""


class TemporaryError(AriProxyError):
    """Something outside is away or slow; the same call may succeed later."""


class PermanentError(AriProxyError):
    """The same call will fail again until its input or a setting changes."""


class ConfigError(PermanentError):
    """A configuration that cannot be used.

    :param problems: one line each: the file, the key, what was found and what
        is allowed. Never a secret.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class UndecodableMessage(PermanentError):
    """A message of Asterisk, or a command, that cannot be read at all."""


class CommandRefused(PermanentError):
    """A command that can be read but must not be sent to Asterisk.

    Its text is shown to the call-controller in the answer.

    :param status: that of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class StoreUnavailable(TemporaryError):
    """The store did not answer, or refused for a reason that may pass.

    It never means "absent": an absent key is ``None``.
    """


class StoreRefused(PermanentError):
    """The store refuses for a reason that a person must mend (rights, disk)."""


class AsteriskUnavailable(TemporaryError):
    """Asterisk could not be reached, so the request was not carried out."""


class AsteriskAnswerLost(TemporaryError):
    """The request left, but its answer was late, cut off or lost.

    Whether Asterisk carried it out is unknown.
    """


class PublishFailed(TemporaryError):
    """Kafka did not take a record for a reason that may pass."""


class BufferFull(PublishFailed):
    """No room is left for records that wait for Kafka."""


class RecordRefused(PermanentError):
    """Kafka will not take this record, however often it is sent."""


class RecordTooLarge(RecordRefused):
    """The record is larger than the client or the broker allows."""
