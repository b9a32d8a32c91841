"""Asks only for what changed: the latest value of the rule's incremental field, less its lag, goes into the request.

Values keep the form in which the source writes them, and what has no zone gets none: which one is meant is known to the
source alone. Times with and without a zone, or numbers and texts, have no order and are refused.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

from churnguard_pipelines import record_paths
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.model import RuleIntegration
from churnguard_pipelines.records import Window
from churnguard_pipelines.rule_options import Incremental

TIME_LAG = 60.0
"""Seconds, unless the rule says: what was changed while it was read may have come with an earlier time."""
AHEAD = timedelta(days=1)
"""That a source's clock and zone may be before ours."""
_MILLISECONDS = 10_000_000_000
"""The least number of a time in milliseconds; in seconds it is the year 2286."""
_BASIC = re.compile(r"\d{8}T\d{6}(?:[.,]\d+)?(?P<zone>Z|[+-]\d{2}(?::?\d{2})?|)")
_EXTENDED = re.compile(r"\d{4}-\d{2}-\d{2}(?:.\d{2}:\d{2}.*)?")


class Changes:
    """``how``: the rule's incremental field and parameters; ``started``: when the read began."""

    def __init__(self, integration: RuleIntegration, how: Incremental, started: datetime) -> None:
        self._started = started
        self._integration = integration
        self._how = how
        self._path = record_paths.parse(how.field)

    def parameters(self, latest: Any, window: Window | None) -> dict[str, Any]:
        """Of a request for what changed since ``latest``, or in the window."""
        how = self._how
        if window is not None:
            ended = {how.end_parameter: self._written(window.end)} if how.end_parameter else {}
            return {how.parameter: self._written(window.start)} | ended
        if latest is not None:
            try:
                return {how.parameter: self._less_lag(latest)}
            except OverflowError:
                pass  # before all time: as if nothing was known
        return {} if how.start is None else {how.parameter: how.start}

    def later(self, latest: Any, record: Any) -> Any:
        """The later one of what was known and the record's. Raises ``ProviderMisbehaved`` where there is no order."""
        value = self._path.first(record)
        if value is None or value == "" or isinstance(value, (bool, dict, list)) or self._is_to_come(value):
            return latest
        if latest is None:
            return value
        try:
            return value if _comparable(value) > _comparable(latest) else latest
        except TypeError:
            raise ProviderMisbehaved(
                f"the values of `{self._how.field}` have no order: some are times with a zone, times without one, "
                "numbers or other texts.",
                integration_id=self._integration.integration_id,
                remedy="Name another field in `incremental`, or leave it out and read everything each time.",
            ) from None

    def _is_to_come(self, value: Any) -> bool:
        """Whether it is a time that nothing can have been changed at yet: remembered, it would hide all before it."""
        if isinstance(value, (int, float)) and not self._how.format:
            return False
        moment = _moment(value)
        return moment is not None and _in_utc(moment) > self._started + AHEAD

    def is_in(self, record: Any, window: Window) -> bool:
        """Whether a record belongs to the window; one without a time does not."""
        moment = _moment(self._path.first(record))
        if moment is None:
            return False
        return window.start <= _in_utc(moment) < window.end

    def _less_lag(self, latest: Any) -> Any:
        lag = self._how.lag
        if isinstance(latest, (int, float)):
            if lag is None and not self._how.format:
                return latest
            seconds = TIME_LAG if lag is None else lag
            scale = 1000 if self._how.format == "epoch_ms" else 1
            return latest - type(latest)(seconds * scale)
        moment = _moment(latest)
        if moment is None:
            return latest
        earlier = moment - timedelta(seconds=TIME_LAG if lag is None else lag)
        return self._written(earlier) if self._how.format else _as_written(latest, earlier)

    def _written(self, moment: datetime) -> Any:
        match self._how.format:
            case "epoch":
                return int(moment.timestamp())
            case "epoch_ms":
                return int(moment.timestamp() * 1000)
            case "date":
                return moment.date().isoformat()
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment.tzinfo else moment.isoformat()


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _comparable(value: Any) -> Any:
    """A moment is later than another whatever their zones; what is no time is compared as it is."""
    return value if isinstance(value, (int, float)) else _moment(value) or str(value)


def _moment(value: Any) -> datetime | None:
    if isinstance(value, (int, float)):
        seconds = value / 1000 if value >= _MILLISECONDS else value
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            return None
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) and len(value) >= len("2026-01-31") else None
    except ValueError:
        return None


def _as_written(text: str, moment: datetime) -> str:
    """In the form of another time: a date alone, ``T`` or a space, as many fraction digits, ``Z`` or an offset."""
    if basic := _BASIC.fullmatch(text):
        return moment.strftime("%Y%m%dT%H%M%S") + basic["zone"]
    if not _EXTENDED.fullmatch(text):
        return moment.isoformat()
    if len(text) == len("2026-01-31"):
        return date.isoformat(moment)
    plain, fraction = moment.replace(tzinfo=None, microsecond=0).isoformat(text[10]), ""
    rest = text[19:]
    if rest.startswith((".", ",")):
        digits = next((at for at, each in enumerate(rest[1:], 1) if not each.isdigit()), len(rest))
        fraction, rest = rest[0] + f"{moment.microsecond:06d}".ljust(digits - 1, "0")[: digits - 1], rest[digits:]
    seconds = plain if len(text) >= 19 and text[16:17] == ":" else plain[:16]
    return seconds + fraction + (rest if len(text) >= 19 else text[16:])
