"""What is said of brokers that do not answer."""

from __future__ import annotations

from confluent_kafka import KafkaError
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from ariproxy.kafka.brokers import AWAY, REFUSED, VAGUE, Brokers
from ariproxy.kafka.librdkafka import explained


class BrokersTests(SynchronousTestCase):
    """One line per change, and the best reason known."""

    def setUp(self) -> None:
        self.brokers = Brokers("producer", "a:9092")
        self.log = self.enterContext(capturedLogs())

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.log]

    def test_once(self) -> None:
        """An outage is told once, and its end."""
        for reason in ("refused", "refused", "reset"):
            self.brokers.failed(reason)
        self.assertEqual(self.brokers.trouble, "reset")
        self.brokers.answered()
        self.brokers.answered()
        self.assertEqual(self.brokers.trouble, "")
        first, last = self.lines()
        self.assertIn("Kafka at a:9092 is away for the producer: refused", first)
        self.assertIn("answers the producer again", last)

    def test_vague(self) -> None:
        """That nobody answers hides no reason, and is told when there is none."""
        self.brokers.failed("nobody", VAGUE)
        self.assertEqual(self.brokers.trouble, "nobody")
        self.brokers.failed("refused", AWAY)
        self.brokers.failed("nobody", VAGUE)
        self.assertEqual(self.brokers.trouble, "refused")
        self.assertEqual(len(self.lines()), 1)

    def test_wrong_password_after_outage(self) -> None:
        """What a person must mend is told even where an outage was."""
        self.brokers.failed("refused")
        self.brokers.failed("wrong password", REFUSED)
        self.brokers.failed("wrong password", REFUSED)
        self.brokers.failed("refused")
        self.assertEqual(len(self.lines()), 2)
        self.assertIn("wrong password", self.lines()[1])

    def test_next_outage(self) -> None:
        """It is told like the first."""
        for _ in range(2):
            self.brokers.failed("wrong password", REFUSED)
            self.brokers.answered()
        self.assertEqual(len(self.lines()), 4)


class ExplainedTests(SynchronousTestCase):
    """librdkafka's errors in an operator's words."""

    def test_mends(self) -> None:
        """Security errors name the settings."""
        for code, setting in (
            (KafkaError._AUTHENTICATION, "service.kafka.security.user"),
            (KafkaError._SSL, "service.kafka.security.protocol"),
            (KafkaError._ALL_BROKERS_DOWN, "service.kafka.security.protocol"),
            (KafkaError.GROUP_AUTHORIZATION_FAILED, "service.kafka.security.user"),
        ):
            text, _ = explained(KafkaError(code, "x"))
            self.assertIn(setting, text)

    def test_weights(self) -> None:
        """What a person must mend weighs most."""
        codes = (
            KafkaError._ALL_BROKERS_DOWN,
            KafkaError._TRANSPORT,
            KafkaError._AUTHENTICATION,
        )
        weights = [explained(KafkaError(code, "x"))[1] for code in codes]
        self.assertEqual(weights, [VAGUE, AWAY, REFUSED])

    def test_stable(self) -> None:
        """What changes at each attempt is left out."""
        error = KafkaError(
            KafkaError._TRANSPORT, "a: Disconnected (after 312ms in state AUTH_REQ)"
        )
        self.assertEqual(explained(error)[0], "a: Disconnected")

    def test_certificate(self) -> None:
        """A certificate that is not trusted has its mend, whatever its code."""
        error = KafkaError(KafkaError._TRANSPORT, "a: certificate verify failed")
        text, weight = explained(error)
        self.assertIn("service.kafka.security.protocol, .ca", text)
        self.assertEqual(weight, REFUSED)
