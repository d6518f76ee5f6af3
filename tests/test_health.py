"""Tests of ariproxy.health."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ariproxy.errors import StoreUnavailable
from ariproxy.health import Condition, Health, Reason
from ariproxy.interfaces import IHealthChecked

START = 1_790_000_000.0  # 2026-09-21T14:13:20Z


@implementer(IHealthChecked)
class FakeService:
    """A service whose next checks end as the test says.

    ``outcome`` is ``None`` for well, an exception to raise, or a Deferred to
    wait for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcome: Exception | Deferred[None] | None = None
        self.asked = 0
        self.running = 0
        self.most_running = 0

    async def check(self) -> None:
        self.asked += 1
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            if isinstance(self.outcome, Deferred):
                await self.outcome
            elif self.outcome is not None:
                raise self.outcome
        finally:
            self.running -= 1


class HealthTestCase(SynchronousTestCase):
    """Three services, two conditions and a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = FakeService("redis")
        self.kafka = FakeService("kafka")
        self.asterisk = FakeService("asterisk")
        self.websocket: str | None = None
        self.partitions: str | None = None
        self.health = Health(
            [self.store, self.kafka, self.asterisk],
            [
                Condition("websocket", lambda: self.websocket),
                Condition("partitions", lambda: self.partitions),
            ],
            clock=self.clock,
            now=lambda: START + self.clock.seconds(),
        )

    def turn(self, seconds: float) -> None:
        """Let time pass in steps of a second, so that every round is made."""
        for _ in range(int(seconds)):
            self.clock.advance(1)


class CheckTests(HealthTestCase):
    """Tests of asking the services."""

    def test_the_fake(self) -> None:
        """The fake keeps to the interface."""
        verifyObject(IHealthChecked, self.store)

    def test_by_themselves(self) -> None:
        """The services are asked at the start and every five seconds."""
        self.assertEqual(self.store.asked, 0)
        self.health.start()
        self.assertEqual(self.store.asked, 1)
        self.turn(60)
        self.assertEqual([self.store.asked, self.kafka.asked], [13, 13])

    def test_not_by_readers(self) -> None:
        """However often the results are read, no service is asked for it."""
        self.health.start()
        for _ in range(100):
            self.health.errors()
            self.health.availability()
            self.health.ready()
        self.assertEqual(self.kafka.asked, 1)

    def test_all_well(self) -> None:
        """No errors, and all are available."""
        self.health.start()
        self.assertEqual(self.health.errors(), [])
        self.assertEqual(
            self.health.availability(), {"redis": True, "kafka": True, "asterisk": True}
        )

    def test_prefixes(self) -> None:
        """Each error begins with the name under which it is known."""
        for service in (self.store, self.kafka, self.asterisk):
            service.outcome = StoreUnavailable(f"{service.name} is away")
        self.health.start()
        self.assertEqual(
            self.health.errors(),
            [
                "PersistenceStoreCheck: redis is away",
                "KafkaConnectionCheck: kafka is away",
                "AriConnectionCheck: asterisk is away",
            ],
        )
        self.assertEqual(set(self.health.availability().values()), {False})

    def test_before_the_first_result(self) -> None:
        """A service that has not answered yet is an error, but not unavailable."""
        self.kafka.outcome = Deferred()
        self.health.start()
        (error,) = self.health.errors()
        self.assertEqual(
            error,
            "Unable to determine health status: kafka has not been checked yet",
        )
        self.assertEqual(self.health.availability(), {"redis": True, "asterisk": True})

    def test_the_limit(self) -> None:
        """A check without an answer has failed after two seconds."""
        self.kafka.outcome = Deferred()
        self.health.start()
        self.turn(1)
        self.assertNotIn("kafka", self.health.availability())
        self.turn(1)
        self.assertEqual(
            self.health.errors(), ["KafkaConnectionCheck: no answer within 2 s"]
        )
        self.assertEqual(self.kafka.running, 0)

    def test_the_next_round_after_the_limit(self) -> None:
        """A service that answers again is well with the next round."""
        self.kafka.outcome = Deferred()
        self.health.start()
        self.turn(3)
        self.kafka.outcome = None
        self.turn(2)
        self.assertEqual(self.health.errors(), [])

    def test_never_twice_at_once(self) -> None:
        """A check that cannot be cancelled has failed, and no other is begun."""
        stuck: Deferred[None] = Deferred(lambda deferred: None)
        ended: Deferred[None] = Deferred()

        @implementer(IHealthChecked)
        class Stubborn(FakeService):
            async def check(self) -> None:
                self.asked += 1
                try:
                    await stuck
                except Exception:
                    await ended

        service = Stubborn("kafka")
        health = Health([service], clock=self.clock, now=self.clock.seconds)
        health.start()
        self.turn(30)
        self.assertEqual(service.asked, 1)
        self.assertEqual(
            health.errors(), ["KafkaConnectionCheck: no answer within 2 s"]
        )
        ended.callback(None)
        self.assertEqual(health.availability(), {"kafka": False})
        self.turn(5)
        self.assertEqual(service.asked, 2)

    def test_a_check_that_translates_its_end(self) -> None:
        """What a check says after it was cancelled does not hide the reason."""

        @implementer(IHealthChecked)
        class Translating(FakeService):
            async def check(self) -> None:
                try:
                    await Deferred()
                except Exception as error:
                    raise StoreUnavailable("cancelled") from error

        health = Health(
            [Translating("sqlite")], clock=self.clock, now=self.clock.seconds
        )
        health.start()
        self.turn(2)
        self.assertEqual(
            health.errors(), ["PersistenceStoreCheck: no answer within 2 s"]
        )

    def test_a_bug_in_a_check(self) -> None:
        """It counts as a failure and is logged once, not in every round."""
        self.store.outcome = KeyError("secret")
        self.health.start()
        self.turn(20)
        self.assertEqual(
            self.health.errors(), ["PersistenceStoreCheck: the check failed: KeyError"]
        )
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_one_line_per_change(self) -> None:
        """The log has one line when a service is lost and one when it is back."""
        self.health.start()
        with capturedLogs() as lines:
            self.kafka.outcome = StoreUnavailable("refused")
            self.turn(30)
            self.kafka.outcome = None
            self.turn(30)
        self.assertEqual(
            [(line["log_level"], line["service"]) for line in lines],
            [(LogLevel.warn, "kafka"), (LogLevel.info, "kafka")],
        )

    def test_the_store_tells_itself(self) -> None:
        """What a store says of itself is not told twice; its silence is."""
        self.health.start()
        with capturedLogs() as lines:
            self.store.outcome = StoreUnavailable("refused")
            self.turn(30)
            self.store.outcome = None
            self.turn(30)
            self.store.outcome = Deferred()
            self.turn(8)
        self.assertEqual(
            [line["log_level"] for line in lines],
            [LogLevel.debug, LogLevel.info, LogLevel.warn],
        )

    def test_stop(self) -> None:
        """After the end nothing is asked, awaited or left on the clock."""
        self.kafka.outcome = Deferred()
        self.health.start()
        with capturedLogs() as lines:
            self.health.stop()
            self.turn(30)
        self.assertEqual(self.kafka.running, 0)
        self.assertEqual(self.store.asked, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(lines, [])

    def test_stop_before_the_start(self) -> None:
        """A stop without a start is harmless."""
        self.health.stop()
        self.assertEqual(self.health.ready().state, "stopping")


class ReadinessTests(HealthTestCase):
    """Tests of whether the proxy does its work."""

    def parts(self) -> list[str]:
        """The parts because of which it is not ready."""
        return [reason.part for reason in self.health.ready().reasons]

    def test_ready(self) -> None:
        """All is well: ready, without reasons."""
        self.health.start()
        readiness = self.health.ready()
        self.assertTrue(readiness.ready)
        self.assertEqual((readiness.state, readiness.reasons), ("ready", ()))

    def test_before_the_start(self) -> None:
        """Nothing was checked: not ready, but starting."""
        readiness = self.health.ready()
        self.assertEqual((readiness.ready, readiness.state), (False, "starting"))
        self.assertEqual(self.parts(), ["redis", "kafka"])

    def test_starting_and_stuck(self) -> None:
        """A start that takes more than a minute is trouble."""
        self.websocket = "refused"
        self.health.start()
        self.turn(60)
        self.assertEqual(self.health.ready().state, "starting")
        self.turn(1)
        self.assertEqual(self.health.ready().state, "failing")

    def test_failing(self) -> None:
        """Who was ready once is not starting any more."""
        self.health.start()
        self.health.ready()
        self.websocket = "closed by Asterisk"
        self.assertEqual(self.health.ready().state, "failing")

    def test_a_reason(self) -> None:
        """A reason tells the part, since when, and the newest error."""
        self.health.start()
        self.turn(40)
        self.websocket = "connection lost"
        self.turn(5)
        self.websocket = "connection refused"
        self.turn(300)
        self.assertEqual(
            self.health.ready().reasons,
            (Reason("websocket", "2026-09-21T14:14:05Z", "connection refused"),),
        )

    def test_conditions_count_at_once(self) -> None:
        """A lost condition counts at the next question, and so does its return."""
        self.health.start()
        self.partitions = "none assigned"
        self.assertEqual(self.parts(), ["partitions"])
        self.partitions = None
        self.assertTrue(self.health.ready().ready)

    def test_grace(self) -> None:
        """Kafka or the store may be away for ten seconds once they were well."""
        self.health.start()
        for service in (self.kafka, self.store):
            service.outcome = StoreUnavailable("refused")
            self.turn(5)
            self.assertEqual(self.parts(), [])
            self.turn(9)
            self.assertEqual(self.parts(), [])
            self.turn(1)
            self.assertEqual(self.parts(), [service.name])
            service.outcome = None
            self.turn(5)
            self.assertEqual(self.parts(), [])

    def test_no_grace_at_the_start(self) -> None:
        """A store that never answered makes the proxy not ready at once."""
        self.store.outcome = StoreUnavailable("refused")
        self.health.start()
        self.assertEqual(self.parts(), ["redis"])

    def test_asterisk_is_no_reason(self) -> None:
        """Asterisk's REST check is left to /health/backing-services."""
        self.asterisk.outcome = StoreUnavailable("refused")
        self.health.start()
        self.turn(60)
        self.assertTrue(self.health.ready().ready)

    def test_a_bug_in_a_condition(self) -> None:
        """A condition that raises does not hold; it is logged once."""
        health = Health(
            [],
            [Condition("producer", lambda: str(1 // 0))],
            clock=self.clock,
            now=self.clock.seconds,
        )
        health.start()
        self.turn(20)
        (reason,) = health.ready().reasons
        self.assertEqual(reason.error, "cannot be told: ZeroDivisionError")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_stopping(self) -> None:
        """A proxy that stops is alive and not ready."""
        self.health.start()
        self.health.stop()
        self.turn(60)
        readiness = self.health.ready()
        self.assertEqual((readiness.ready, readiness.state), (False, "stopping"))
        self.assertTrue(self.health.live())


class LiveTests(HealthTestCase):
    """Tests of whether the reactor turns."""

    def test_live(self) -> None:
        """As long as the rounds are made, whatever they find."""
        self.store.outcome = StoreUnavailable("refused")
        self.health.start()
        self.turn(100)
        self.assertTrue(self.health.live())

    def test_stalled(self) -> None:
        """Rounds that are overdue mean that the reactor stood still."""
        health = self.health
        health.start()
        self.clock.rightNow += 16
        self.assertFalse(health.live())
        self.clock.advance(0)
        self.assertTrue(health.live())
