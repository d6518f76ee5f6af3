"""Keeps the entries of resources that live on, however long they live.

Entries of the store expire, so that what nobody ends is not kept for ever. A
call may be longer than that, and silent, and the proxy may have been restarted
in the middle of it: so Asterisk itself is asked what it has.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ariproxy.ari.messages import AsteriskRequest
from ariproxy.callcontext import KEY_PREFIX
from ariproxy.errors import AriProxyError
from ariproxy.interfaces import IAsterisk, IStore
from ariproxy.jsontext import parse, text_of

SHORTEST_INTERVAL = 1.0

AT_ONCE = 20
"""Entries that are refreshed side by side."""


class Liveness:
    """Refreshes, three times in each ttl, the entries of channels and bridges.

    Playbacks and recordings are not listed by ARI; their events find the call
    by the channel or bridge that they name.

    :param ttl: seconds until an entry of the store expires.
    """

    _log = Logger()

    def __init__(
        self, asterisk: IAsterisk, store: IStore, clock: IReactorTime, ttl: float
    ) -> None:
        self._asterisk = asterisk
        self._store = store
        self._interval = max(ttl / 3, SHORTEST_INTERVAL)
        self._clock = clock
        self._rounds = LoopingCall(self.refresh)

    def start(self) -> None:
        """Begin; also called when the websocket has opened again.

        The first round is made at once: the proxy may have been away for long.
        """
        self.stop()
        # Not the old one: with a round under way it would go on beside the new.
        self._rounds = LoopingCall(self.refresh)
        self._rounds.clock = self._clock
        self._rounds.start(self._interval)

    def stop(self) -> None:
        """Refresh no more. May be repeated."""
        if self._rounds.running:
            self._rounds.stop()

    def refresh(self) -> Deferred[None]:
        """One round. Never fails: what was missed is done in the next round."""
        return ensureDeferred(self._refresh())

    async def _refresh(self) -> None:
        try:
            live = [*await self._ids("/channels"), *await self._ids("/bridges")]
        except (AriProxyError, ValueError) as error:
            self._log.debug("Asterisk did not list its resources: {error}", error=error)
            return
        work = iter(live)
        workers = [ensureDeferred(self._refresh_each(work)) for _ in range(AT_ONCE)]
        for worker in workers:
            await worker

    async def _ids(self, url: str) -> list[str]:
        answer = await self._asterisk.request(AsteriskRequest("GET", url))
        if answer.status != 200:
            raise ValueError(f"{url} is answered with {answer.status}")
        found = parse(answer.body)
        if not isinstance(found, list):
            raise ValueError(f"{url} is answered with something else than a list")
        return [text_of(each["id"]) for each in found if _has_id(each)]

    async def _refresh_each(self, work: Iterator[str]) -> None:
        for resource_id in work:
            try:
                await self._store.refresh(KEY_PREFIX + resource_id)
            except AriProxyError as error:
                self._log.debug(
                    "Entry of {resource_id} not refreshed: {error}",
                    resource_id=resource_id,
                    error=error,
                )
                return


def _has_id(found: object) -> bool:
    return isinstance(found, dict) and "id" in found
