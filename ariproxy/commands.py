"""The other direction: a command of Kafka -> Asterisk -> its answer in Kafka.

Every command that can be read gets exactly one answer. Its offset is settled
only when Kafka has acknowledged that answer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ariproxy.admission import Admission
from ariproxy.ari.messages import AsteriskAnswer
from ariproxy.ari.resources import Resource
from ariproxy.callcontext import CallContexts
from ariproxy.clocks import sleep
from ariproxy.delivery import DeliveryMarks, Gate
from ariproxy.envelope import (
    Answer,
    Command,
    asterisk_answer,
    decode_command,
    encode_response,
    proxy_answer,
)
from ariproxy.errors import (
    AriProxyError,
    AsteriskAnswerLost,
    AsteriskUnavailable,
    CommandRefused,
    PublishFailed,
    RecordTooLarge,
    UndecodableMessage,
)
from ariproxy.interfaces import IAsterisk, IPublisher, IRecordSource
from ariproxy.kafka.records import Headers, IncomingRecord, OutgoingRecord
from ariproxy.metrics import Metrics
from ariproxy.ordering import Lanes
from ariproxy.requests import Request, prepare
from ariproxy.unreadable import PUBLISH_RETRY_AFTER, Unreadable

NOTICED_AFTER = 0.5
"""Seconds after which it is known whether Asterisk is away: a connection may be
refused a moment before the websocket closes."""

_RUN_BEFORE = (
    "the command may have been run before the proxy was restarted; "
    "it is not run again, as service.commands.delivery is at-most-once"
)


class _LeftToOthers(Exception):
    """Asterisk was not asked, and another node will ask its own."""


class _Running(Struct, eq=False):
    """One command on its way through."""

    record: IncomingRecord
    command: Command
    resources: Sequence[Resource] = ()
    outcome: str = "answered"
    delivery: int = 1


class CommandStream:
    """Runs commands in the order of their call context and publishes answers.

    ``answered`` is called with the call context of each answer that Kafka has.
    ``marks`` is ``None`` where commands are run at least once.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        topic: str,
        commands_topic: str,
        dead_letter_topic: str | None,
        source: IRecordSource,
        asterisk: IAsterisk,
        contexts: CallContexts,
        publisher: IPublisher,
        metrics: Metrics,
        clock: IReactorTime,
        answered: Callable[[str], None],
        admission: Admission,
        marks: DeliveryMarks | None,
        concurrency: int,
        verbose: bool,
    ) -> None:
        self._topic = topic
        self._commands_topic = commands_topic
        self._source = source
        self._asterisk = asterisk
        self._contexts = contexts
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._answered = answered
        self._admission = admission
        self._marks = marks
        self._verbose = verbose
        self._lanes = Lanes(concurrency, self._failed)
        self._unreadable = Unreadable(
            dead_letter_topic, source, publisher, metrics, clock
        )
        self._gate = Gate()
        self._shared = False
        self._stopping = False

    @property
    def running(self) -> int:
        """How many commands are being carried out."""
        return self._lanes.running

    @property
    def waiting(self) -> int:
        """How many commands wait for their turn."""
        return self._lanes.waiting

    def start(self, shared: bool = False) -> None:
        """Begin to consume.

        :param shared: whether other nodes consume the same topic for Asterisks of
            their own. What finds no Asterisk here then waits for ``go_on``, and
            after ``stop`` it is theirs.
        """
        self._shared = shared
        self._source.start(self.receive)

    def hold(self) -> None:
        """Run nothing more until ``go_on``. A repeated call is harmless."""
        self._gate.shut()
        self._source.pause()

    def go_on(self) -> None:
        """Run commands again after ``hold``."""
        self._source.resume()
        self._gate.open()

    async def stop(self, timeout: float) -> int:
        """Start no more commands and wait for those running; give how many still do.

        Commands that were not started are not settled: whoever consumes the
        partition next runs them.
        """
        self._stopping = True
        self._source.pause()
        self._lanes.clear()
        self._gate.open()
        waited = 0.0
        while self._lanes.running and waited < timeout:
            await sleep(self._clock, 0.05)
            waited += 0.05
        return self._lanes.running

    async def close(self) -> None:
        """Commit what is settled and leave the group. May be repeated."""
        await self._source.stop()

    def receive(self, records: Sequence[IncomingRecord]) -> None:
        """Take a batch as it was consumed; never raises, never waits."""
        if self._stopping:
            return
        for record in records:
            try:
                command = decode_command(record.value)
            except UndecodableMessage as error:
                self._unreadable.take(record, error)
                continue
            self._lanes.add(
                self._lane(record, command), partial(self._run, record, command)
            )

    @staticmethod
    def _lane(record: IncomingRecord, command: Command) -> Hashable:
        """Commands of one lane run one after the other.

        Without call context the record's key says what belongs together;
        without a key nothing does.
        """
        if command.call_context is not None:
            return command.call_context
        return record.key or (record.topic, record.partition, record.offset)

    # -- one command ----------------------------------------------------------

    async def _run(self, record: IncomingRecord, command: Command) -> None:
        await self._gate.passed()
        if self._stopping or not self._source.claim(record):
            return
        running = _Running(record, command)
        try:
            answer = await self._answer(running)
        except _LeftToOthers:
            return
        except Exception:
            # A defect of ours; the controller gets its answer all the same.
            self._log.failure(
                "Command {command_id} not carried out",
                call_context=command.call_context,
                command_id=command.command_id,
            )
            running.outcome = "defect"
            answer = proxy_answer(500, "the proxy failed to carry out the command")
        self._publish(running, answer)

    async def _answer(self, running: _Running) -> Answer:
        record = running.record
        try:
            request = prepare(record, running.command)
            running.resources = request.resources
            self._admission.check(record, request.asked)
        except CommandRefused as error:
            running.outcome = "refused"
            return proxy_answer(error.status, str(error))
        if self._marks is not None:
            try:
                running.delivery = await self._marks.attempt(record)
            except AriProxyError as error:
                running.outcome = "unmarked"
                return proxy_answer(500, f"not run, to run it at most once: {error}")
            if running.delivery > 1 and request.asked.method != "GET":
                running.outcome = "unknown"
                return proxy_answer(500, _RUN_BEFORE, outcome="unknown")
        context = running.command.call_context
        created = request.created if context is not None else ()
        registration = await self._contexts.register(created, context or "")
        try:
            answer = await self._ask_here(record, request)
        except _LeftToOthers:
            await self._contexts.refused(registration)
            if self._marks is not None:
                await self._marks.withdraw(record, running.delivery)
            raise
        except AsteriskAnswerLost as error:
            running.outcome = "unknown"
            await self._contexts.accepted(registration)
            return proxy_answer(500, str(error), outcome="unknown")
        except AriProxyError as error:
            running.outcome = "unreachable"
            await self._contexts.refused(registration)
            return proxy_answer(500, str(error))
        if answer.status < 400:
            await self._contexts.accepted(registration)
        else:
            await self._contexts.refused(registration)
        return self._carried(answer)

    @staticmethod
    def _carried(answer: AsteriskAnswer) -> Answer:
        if answer.size > len(answer.body):
            return _too_large(answer.status, answer.size)
        return asterisk_answer(answer.status, answer.body, answer.content_type)

    async def _ask_here(
        self, record: IncomingRecord, request: Request
    ) -> AsteriskAnswer:
        """Ask; a shared command that did not reach Asterisk may wait or be left."""
        try:
            return await self._ask(request)
        except AsteriskUnavailable:
            if not self._shared:
                raise
        await sleep(self._clock, NOTICED_AFTER)
        await self._gate.passed()
        if self._stopping or not self._source.claim(record):
            raise _LeftToOthers
        return await self._ask(request)

    async def _ask(self, request: Request) -> AsteriskAnswer:
        asked, template = request.asked, request.template.path
        self._metrics.request_started(asked.method, template)
        if self._verbose:
            self._log.debug(
                ">>> ARI COMMAND {method} {url} {body}",
                method=asked.method,
                url=asked.url,
                body=(asked.body or b"").decode("utf-8", "replace"),
            )
        begin = self._clock.seconds()
        try:
            answer = await self._asterisk.request(asked)
        except AriProxyError:
            self._metrics.request_failed(asked.method, template)
            raise
        self._metrics.request_finished(
            asked.method, template, self._clock.seconds() - begin
        )
        if self._verbose:
            self._log.debug(
                ">>>   ARI RESPONSE {status} {body}",
                status=answer.status,
                body=answer.body.decode("utf-8", "replace"),
            )
        return answer

    # -- its answer -------------------------------------------------------------

    def _publish(self, running: _Running, answer: Answer) -> None:
        command = running.command
        value = encode_response(
            self._commands_topic, command, running.resources, answer
        )
        key = command.call_context
        record = OutgoingRecord(
            self._topic,
            None if key is None else key.encode("utf-8", "replace"),
            value,
            _headers(running),
        )
        self._offer(running, answer, record)

    def _offer(self, running: _Running, answer: Answer, record: OutgoingRecord) -> None:
        self._publisher.publish(
            record, partial(self._published, running, answer, record)
        )

    def _published(
        self,
        running: _Running,
        answer: Answer,
        record: OutgoingRecord,
        error: Exception | None,
    ) -> None:
        command = running.command
        if isinstance(error, PublishFailed):
            # The answer waits here until Kafka takes it; its offset waits too.
            self._clock.callLater(
                PUBLISH_RETRY_AFTER, self._offer, running, answer, record
            )
            return
        if isinstance(error, RecordTooLarge):
            reduced = _too_large(answer.status_code, len(record.value or b""))
            if reduced != answer:
                self._publish(running, reduced)
                return
        if error is None:
            self._metrics.command_settled(running.outcome)
            if command.call_context is not None:
                self._answered(command.call_context)
        else:
            self._metrics.command_settled("answer-lost")
            self._log.error(
                "Answer to command {command_id} not taken by Kafka: {error}",
                call_context=command.call_context,
                command_id=command.command_id,
                error=error,
            )
        self._source.settle(running.record)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("A command ended without an answer", failure)


def _too_large(status: int, size: int) -> Answer:
    return proxy_answer(
        status, f"the answer of {size} bytes is too large for Kafka", size=size
    )


def _headers(running: _Running) -> Headers:
    """What goes on from the command (W3C Trace Context), and its repetition."""
    headers = tuple(each for each in running.record.headers if each[0] == "traceparent")
    if running.delivery > 1:
        headers += (("delivery", str(running.delivery).encode()),)
    return headers
