"""Which commands may be run: rules of the operator, and their age."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ariproxy.ari.messages import AsteriskRequest
from ariproxy.errors import CommandRefused
from ariproxy.kafka.records import IncomingRecord
from ariproxy.repeated import Repeated


def _pattern(rule: str) -> str:
    """A rule like ``POST /channels/**`` as a regular expression.

    ``*`` is any method, or any one segment of a path; ``**`` is the rest.
    """
    method, path = rule.split(" ", 1)
    spelled = re.escape(path).replace(r"/\*\*", r"(/.*)?").replace(r"\*", r"[^/]*")
    return f"{'[A-Z]+' if method == '*' else method} {spelled}"


def _rules(rules: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{_pattern(rule)})" for rule in rules) or r"(?!)")


class Admission:
    """Refuses what must not be run.

    :param allow: the only commands that may be run; ``None`` for all.
    :param deny: commands that may not be run, whatever ``allow`` says.
    :param max_age: seconds after which a command is too old; ``None`` for never.
    :param now: seconds since 1970.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        allow: Sequence[str] | None,
        deny: Sequence[str],
        max_age: float | None,
        now: Callable[[], float],
        clock: IReactorTime,
    ) -> None:
        self._allow = None if allow is None else _rules(allow)
        self._deny = _rules(deny)
        self._denies = bool(deny)
        self._max_age = max_age
        self._now = now
        self._refusals = Repeated(clock)

    def check(self, record: IncomingRecord, request: AsteriskRequest) -> None:
        """Raises ``CommandRefused`` with the status of the answer: 403, or 500."""
        if self._allow is not None or self._denies:
            self._check_rules(request)
        if self._max_age is not None and record.timestamp is not None:
            age = self._now() - record.timestamp
            if age > self._max_age:
                raise CommandRefused(
                    f"the command is {age:.1f} s old, "
                    f"and service.commands.max-age is {self._max_age:g} s",
                    status=500,
                )

    def _check_rules(self, request: AsteriskRequest) -> None:
        asked = f"{request.method} {request.url.partition('?')[0]}"
        if self._deny.fullmatch(asked):
            rule = "service.commands.deny"
        elif self._allow is not None and not self._allow.fullmatch(asked):
            rule = "service.commands.allow"
        else:
            return
        if count := self._refusals.due(rule):
            self._log.warn(
                "Command {asked} refused by {rule} ({count} since the last such line)",
                asked=asked,
                rule=rule,
                count=count,
            )
        raise CommandRefused(f"{asked} is refused by {rule}", status=403)
