"""Threads for libraries that block.

Only this file names Twisted's thread pool and the calls that cross threads.
Each user has a pool of its own: the reactor's pool is small and also resolves
host names, so one library that hangs would stop the others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ariproxy.errors import TemporaryError
from ariproxy.interfaces import IWorkers

__all__ = ["Workers"]

T = TypeVar("T")


@implementer(IWorkers)
class Workers:
    """At most ``size`` threads, made when they are first needed and then kept.

    Nothing is started before ``start``, so an object may be built before the
    process forks. Calls made before ``start`` wait for it.

    :param reactor: an ``IReactorFromThreads`` and ``IReactorTime``.
    :param name: shown in the names of the threads and in the log.
    """

    _log = Logger()

    def __init__(self, reactor: Any, name: str, size: int) -> None:
        self._reactor = reactor
        self._name = name
        self._pool = ThreadPool(minthreads=0, maxthreads=size, name=name)
        # A call that hangs must not keep the process from ending: the
        # interpreter waits for every thread that is not a daemon.
        self._pool.threadFactory = partial(  # type: ignore[assignment]
            Thread, daemon=True
        )
        self._stopped = False
        self._joined: Deferred[None] = Deferred()

    def start(self) -> None:
        """Begin to carry out calls."""
        self._pool.start()

    async def stop(self, timeout: float) -> bool:
        """Take no more calls, and wait until those taken are done.

        Waits at most ``timeout`` seconds and never blocks the reactor. Returns
        whether all threads have ended; one that still works is left behind and
        ends with the process. A repeated call waits again.
        """
        if not self._stopped:
            self._stopped = True
            # ThreadPool.stop joins its threads, so it needs one of its own.
            Thread(target=self._join, name=f"{self._name}-stop", daemon=True).start()
        waiting: Deferred[bool] = Deferred()
        timer = self._reactor.callLater(timeout, waiting.callback, False)

        def in_time(_: None) -> None:
            if timer.active():
                timer.cancel()
                waiting.callback(True)

        self._joined.addCallback(in_time)
        ended = await waiting
        if not ended:
            self._log.warn(
                "{name}: a call hangs after {timeout} s; its thread is left behind",
                name=self._name,
                timeout=timeout,
            )
        return ended

    def _join(self) -> None:
        self._pool.stop()
        self._reactor.callFromThread(self._joined.callback, None)

    def call(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        """Run ``function(*args)`` in a thread; fires with its result or error.

        After ``stop`` it fails with ``TemporaryError``.
        """
        if self._stopped:
            return fail(TemporaryError(f"the threads of {self._name} have ended"))
        return deferToThreadPool(self._reactor, self._pool, function, *args)

    def to_reactor(self, function: Callable[..., Any], *args: Any) -> None:
        """Called in a worker's thread: run ``function(*args)`` in the reactor's."""
        self._reactor.callFromThread(function, *args)
