"""What the core of the proxy expects of everything outside it.

Methods that may wait return an awaitable; the implementations are coroutines.
Errors are those of :mod:`ariproxy.errors` only: an adapter translates what its
library raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from zope.interface import Attribute, Interface

from ariproxy.ari.messages import AsteriskAnswer, AsteriskRequest
from ariproxy.kafka.records import IncomingRecord, OutgoingRecord

__all__ = [
    "IAsterisk",
    "ICachedStore",
    "IHealthChecked",
    "IPublisher",
    "IRecordSource",
    "IStore",
    "IWorkers",
]

T = TypeVar("T")

# mypy-zope reads these classes; zope's methods have no ``self``.


class IHealthChecked(Interface):
    """Something whose availability can be asked."""

    name: str = Attribute(
        "The value of the metric label ``backing_service``: ``kafka``, "
        "``asterisk``, ``redis``, ``cassandra``, ``sqlite`` or ``memory``."
    )

    def check() -> Awaitable[None]:
        """Ask once, with the adapter's own time limit.

        Returns ``None`` when all is well. Raises an ``AriProxyError`` whose
        text says, in one line and without a secret, what is wrong and what
        mends it. Leaves nothing behind and may be called as often as wanted.
        """


class IStore(IHealthChecked):
    """A map from text to text that outlives the process.

    Keys and values are any text, up to 10 kB. Entries expire at the store's
    ttl after the last ``set`` or ``refresh``.
    """

    def get(key: str) -> Awaitable[str | None]:
        """The value; ``None`` means that there is none.

        Raises ``StoreUnavailable`` or ``StoreRefused``; never returns ``None``
        because of a failure.
        """

    def set(key: str, value: str) -> Awaitable[None]:
        """Write the value, replacing another, and start its ttl anew.

        A repeated call is harmless. Raises ``StoreUnavailable`` (it is unknown
        whether the value was written) or ``StoreRefused``.
        """

    def refresh(key: str) -> Awaitable[None]:
        """Start the entry's ttl anew; nothing happens where there is none."""

    def forget(key: str) -> Awaitable[None]:
        """Remove the entry; nothing happens where there is none."""

    def close() -> Awaitable[None]:
        """Let go of connections, files and threads.

        Calls made after it raise ``StoreUnavailable``. A repeated call is
        harmless.
        """


class ICachedStore(IStore):
    """A store that answers known keys without waiting."""

    def peek(key: str) -> str | None:
        """The value if it is known here; ``None`` says nothing about the store."""


class IAsterisk(IHealthChecked):
    """The REST side of one Asterisk."""

    def request(request: AsteriskRequest) -> Awaitable[AsteriskAnswer]:
        """Carry out one request and give Asterisk's answer, whatever its status.

        Raises ``AsteriskUnavailable`` when the request did not reach Asterisk,
        and ``AsteriskAnswerLost`` when it may have.
        """


class IPublisher(IHealthChecked):
    """Takes records for Kafka; those of one partition leave in the given order."""

    taken: int = Attribute("How many records were taken since the start.")

    def publish(
        record: OutgoingRecord, settled: Callable[[Exception | None], None]
    ) -> None:
        """Take one record; never waits and never raises.

        ``settled`` is called exactly once, in the reactor's thread: with
        ``None`` when the brokers have acknowledged the record, otherwise with
        ``BufferFull``, ``PublishFailed``, ``RecordTooLarge`` or
        ``RecordRefused``. It may be called before ``publish`` returns.
        """

    def waiting() -> int:
        """How many records are taken and not yet settled."""

    def flush(timeout: float) -> Awaitable[int]:
        """Wait until all taken records are settled, at most ``timeout`` seconds.

        Returns how many are still not settled.
        """

    def close() -> Awaitable[None]:
        """End the client. What is not settled by now fails with ``PublishFailed``."""


class IRecordSource(Interface):
    """Consumes one topic in a consumer group, with explicit settling.

    The offset committed for a partition is the first one that is not settled.
    """

    def start(receive: Callable[[Sequence[IncomingRecord]], None]) -> None:
        """Join the group. ``receive`` is called in the reactor's thread.

        An unreachable broker is no error: it is tried for ever.
        """

    def settle(record: IncomingRecord) -> None:
        """This record is done and its offset may be committed.

        A repeated call, or one for a partition that was taken away, is
        harmless.
        """

    def claim(record: IncomingRecord) -> bool:
        """Ask, just before the record's command is run, whether it is still ours.

        ``False``: its partition was taken away since it was read; another
        consumer runs it, and it must be dropped here. ``True``: when the
        partition is taken away from now on, the source waits a while for
        ``settle`` before it lets go.
        """

    def pause() -> None:
        """Fetch no more, but stay in the group. A repeated call is harmless."""

    def resume() -> None:
        """Fetch again after ``pause``."""

    def stop() -> Awaitable[None]:
        """Commit what is settled and leave the group; ends within a time limit.

        After the call ``receive`` is not called any more.
        """


class IWorkers(Interface):
    """Threads for calls that block. Nothing else in the package makes a thread."""

    def call(function: Callable[..., T], *args: Any) -> Awaitable[T]:
        """Run ``function(*args)`` in a thread; fires with its result or error."""

    def to_reactor(function: Callable[..., Any], *args: Any) -> None:
        """Called in a worker's thread: run ``function(*args)`` in the reactor's."""
