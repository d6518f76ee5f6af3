"""Whether the proxy and what it depends on are well.

The backing services are asked every few seconds, by nobody's request: who
reads health or metrics gets the last results. So a hundred scrapes at once
neither burden a service nor raise a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ariproxy.errors import AriProxyError
from ariproxy.interfaces import IHealthChecked

__all__ = ["Condition", "Health", "Readiness", "Reason"]

_CHECK_NAMES = {"kafka": "KafkaConnectionCheck", "asterisk": "AriConnectionCheck"}
_STORE_CHECK_NAME = "PersistenceStoreCheck"

# Readiness hears of Asterisk from the condition of its websocket; a REST
# request that fails is answered as such, and no reason to take the node away.
_NOT_FOR_READINESS = frozenset({"asterisk"})

_STARTING_SECONDS = 60.0


class Condition(Struct, frozen=True):
    """Something that must hold for the proxy to be ready.

    ``problem`` returns ``None`` while it holds, else one line, without a
    secret, on what is wrong. It is called often and must not wait.
    """

    part: str
    problem: Callable[[], str | None]


class Reason(Struct, frozen=True):
    """Why the proxy is not ready: the part, since when (UTC), its last error."""

    part: str
    since: str
    error: str


class Readiness(Struct, frozen=True):
    """Whether the proxy does its work.

    ``state`` tells a start that is under way (``starting``: never ready yet,
    for at most a minute) from trouble (``failing``).
    """

    ready: bool
    state: Literal["ready", "starting", "failing", "stopping"]
    reasons: tuple[Reason, ...]


class Health:
    """Asks the backing services at intervals and keeps the last results.

    :param checks: asked in this order; their names are those of the metric
        label ``backing_service``.
    :param conditions: what else readiness depends on.
    :param clock: waits and measures.
    :param now: seconds since 1970, for the times that people read.
    :param interval: seconds from the start of one round to the next.
    :param limit: seconds after which a check that has not ended has failed.
    :param grace: seconds that the store or Kafka, once it was well, may be
        away before the proxy counts as not ready.
    """

    def __init__(
        self,
        checks: Sequence[IHealthChecked],
        conditions: Sequence[Condition] = (),
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        interval: float = 5.0,
        limit: float = 2.0,
        grace: float = 10.0,
    ) -> None:
        self._clock = clock
        self._now = now
        self._interval = interval
        self._services = [_Service(check, clock, limit, grace) for check in checks]
        self._conditions = [_WatchedCondition(one, clock) for one in conditions]
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = clock
        self._started = self._last_round = clock.seconds()
        self._was_ready = False
        self._stopping = False

    def start(self) -> None:
        """Begin with a first round at once."""
        self._started = self._last_round = self._clock.seconds()
        self._rounds.start(self._interval)

    def stop(self) -> None:
        """Ask no more; the proxy is not ready from now on, but alive."""
        self._stopping = True
        if self._rounds.running:
            self._rounds.stop()
        for service in self._services:
            service.give_up()

    def _round(self) -> None:
        self._last_round = self._clock.seconds()
        for service in self._services:
            service.ask()
        for condition in self._conditions:
            condition.look()

    def errors(self) -> list[str]:
        """One line for each service whose last check failed or is not done yet."""
        return [
            f"{_CHECK_NAMES.get(one.part, _STORE_CHECK_NAME)}: {one.error}"
            if one.known
            else f"Unable to determine health status: {one.part} {one.error}"
            for one in self._services
            if one.error is not None
        ]

    def availability(self) -> dict[str, bool]:
        """The services that were checked, each with how its last check went."""
        return {one.part: one.error is None for one in self._services if one.known}

    def live(self) -> bool:
        """Whether the rounds go on: they stop when the reactor does not turn."""
        late = self._clock.seconds() - self._last_round > 3 * self._interval
        return self._stopping or not late

    def ready(self) -> Readiness:
        """Whether the proxy does its work now, and if not, why not."""
        for condition in self._conditions:
            condition.look()
        watched = [s for s in self._services if s.part not in _NOT_FOR_READINESS]
        reasons = tuple(
            Reason(one.part, self._date(one.since), one.error or "")
            for one in (*watched, *self._conditions)
            if one.counts()
        )
        if self._stopping:
            return Readiness(False, "stopping", reasons)
        if not reasons:
            self._was_ready = True
            return Readiness(True, "ready", ())
        age = self._clock.seconds() - self._started
        starting = not self._was_ready and age <= _STARTING_SECONDS
        return Readiness(False, "starting" if starting else "failing", reasons)

    def _date(self, since: float) -> str:
        date = datetime.fromtimestamp(self._now() - self._clock.seconds() + since, UTC)
        return date.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Watched:
    """One part: what is wrong with it, if anything, and since when it is so."""

    _log = Logger()

    def __init__(self, part: str, clock: IReactorTime, grace: float) -> None:
        self.part = part
        self.error: str | None = "has not been checked yet"
        self.known = False
        self.since = clock.seconds()
        self._clock = clock
        self._grace = grace
        self._was_well = False

    def settle(self, error: str | None) -> bool:
        """Keep the newest result; whether it turned from good to bad or back."""
        turned = not self.known or (self.error is None) != (error is None)
        if turned:
            self.since = self._clock.seconds()
        self.known = True
        self.error = error
        self._was_well = self._was_well or error is None
        return turned

    def counts(self) -> bool:
        """Whether its trouble is old enough to make the proxy not ready."""
        if self.error is None:
            return False
        age = self._clock.seconds() - self.since
        return not self._was_well or age >= self._grace


class _WatchedCondition(_Watched):
    def __init__(self, condition: Condition, clock: IReactorTime) -> None:
        super().__init__(condition.part, clock, 0.0)
        self._problem = condition.problem

    def look(self) -> None:
        try:
            problem = self._problem()
        except Exception as error:
            problem = f"cannot be told: {type(error).__name__}"
            if problem != self.error:
                self._log.failure("The state of {part} cannot be told", part=self.part)
        self.settle(problem)


class _Service(_Watched):
    """A backing service, asked by one check at a time."""

    def __init__(
        self, check: IHealthChecked, clock: IReactorTime, limit: float, grace: float
    ) -> None:
        super().__init__(check.name, clock, grace)
        self._check = check
        self._limit = limit
        self._asking: Deferred[None] | None = None
        self._given_up = False

    def ask(self) -> None:
        """Start a check, unless the one before has not ended yet."""
        if self._asking is not None:
            return
        self._given_up = False
        asking = self._asking = ensureDeferred(self._asked())
        timer = self._clock.callLater(self._limit, self._overrun)

        def ended(_: object) -> None:
            self._asking = None
            if timer.active():
                timer.cancel()

        asking.addBoth(ended)

    def give_up(self) -> None:
        """Cancel a check that is under way; what it still says is not heard."""
        self._given_up = True
        if self._asking is not None:
            self._asking.cancel()

    def _overrun(self) -> None:
        # A check that cannot be cancelled goes on, and no other is begun.
        self._report(f"no answer within {self._limit:g} s")
        self.give_up()

    async def _asked(self) -> None:
        error = await self._trouble()
        if not self._given_up:
            # A store tells its troubles itself, with the first call that fails.
            self._report(error, told=self.part not in _CHECK_NAMES)

    async def _trouble(self) -> str | None:
        try:
            await self._check.check()
        except AriProxyError as error:
            return str(error)
        except Exception as error:
            text = f"the check failed: {type(error).__name__}"
            if text != self.error and not self._given_up:
                self._log.failure("The check of {service} failed", service=self.part)
            return text
        return None

    def _report(self, error: str | None, told: bool = False) -> None:
        if not self.settle(error):
            return
        if error is None:
            self._log.info("{service} answers", service=self.part)
        else:
            tell = self._log.debug if told else self._log.warn
            tell(
                "{service} does not answer its check: {error}",
                service=self.part,
                error=error,
            )
