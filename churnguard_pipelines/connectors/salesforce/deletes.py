"""Finds what was deleted: Salesforce's log of deletions has the ids of the last fifteen days.

https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_getdeleted.htm
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from churnguard_pipelines.connectors.salesforce.api import SalesforceApi
from churnguard_pipelines.connectors.salesforce.describe import Description

KEPT = timedelta(days=15) - timedelta(hours=1)
"""The log goes back fifteen days; a read takes its time."""
MINUTE = timedelta(minutes=1)
SHORTEST = 2 * MINUTE
"""Seconds of a start and an end are ignored, and they must be more than a minute apart."""
TOO_MANY = "EXCEEDED_ID_LIMIT"  # 600,000
TOO_OLD = "INVALID_REPLICATION_DATE"
NO_LOG = "INVALID_TYPE_FOR_OPERATION"


class NotLogged(Exception):
    """This object's deletions are not logged, whatever its description says."""


class LogIncomplete(Exception):
    """Deletions are missing in the log: only a read of the whole object tells what is gone."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """``at``: when each id was deleted, in milliseconds; ``until``: the log was read up to there."""

    at: Mapping[str, int]
    until: datetime


def deletions(api: SalesforceApi, about: Description, since: datetime, until: datetime) -> Iterator[Deleted]:
    """What the log holds between the moments, oldest first. Raises :class:`LogIncomplete`,
    :class:`NotLogged`."""
    start, last = whole_minute(since), whole_minute(until)
    end = last
    while end - start >= SHORTEST:
        answer = api.deleted(about.name, start, end, tolerated=(TOO_MANY, TOO_OLD, NO_LOG))
        if answer.refused == NO_LOG:
            raise NotLogged
        if answer.refused == TOO_MANY and end - start >= 2 * SHORTEST:
            end = start + max(SHORTEST, whole_minute(start + (end - start) / 2) - start)
            continue
        if answer.refused:
            raise LogIncomplete
        try:
            gone = {each["id"]: milliseconds(each["deletedDate"]) for each in answer.body["deletedRecords"]}
            earliest = moment(answer.body["earliestDateAvailable"])
            covered = min(whole_minute(moment(answer.body["latestDateCovered"])), end)
        except (KeyError, TypeError, ValueError):
            raise api.misbehaved(f"tells of deleted {about.name} in a way that cannot be understood") from None
        if whole_minute(earliest) > start:
            raise LogIncomplete
        yield Deleted(gone, max(covered, start))
        if covered <= start:
            return
        start, end = covered, last


def whole_minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


def moment(text: Any) -> datetime:
    """Raises ``ValueError`` or ``TypeError``."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is UTC:
        return found
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def milliseconds(text: Any) -> int:
    return round(moment(text).timestamp() * 1000)
