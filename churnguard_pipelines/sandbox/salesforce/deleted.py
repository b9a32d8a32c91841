"""/sobjects/{object}/deleted: ids of what was deleted in a window, as long as the log knows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Change
from churnguard_pipelines.sandbox.salesforce import errors, ids
from churnguard_pipelines.sandbox.salesforce.fields import moment
from churnguard_pipelines.sandbox.salesforce.objects import SObject
from churnguard_pipelines.sandbox.salesforce.query import View

MINUTE, DAY = 60_000, 86_400_000
REACH = 15  # days


def deleted(view: View, found: SObject, parameters: dict[str, str]) -> dict[str, Any]:
    """Seconds are ignored: a window is of whole minutes, and of more than one."""
    if not found.stamped or not found.deletable:
        raise errors.Refusal(400, "INVALID_TYPE_FOR_OPERATION", f"entity type {found.name} is not replicatable")
    start, end = (_minute(parameters.get(name)) for name in ("start", "end"))
    now = view.crm.now
    if start > now or end <= start + MINUTE - 1 or end - start < MINUTE:
        raise errors.Refusal(
            400, "INVALID_REPLICATION_DATE", "startDate must be at least one minute greater than endDate"
        )
    if start < now - REACH * DAY - MINUTE:
        raise errors.Refusal(400, "INVALID_REPLICATION_DATE", f"startDate cannot be more than {REACH} days ago")
    known = max(start, now - int(view.org.limits.deleted_log_days * DAY))
    gone = {id: at for id, at in _gone(view, found).items() if known <= at < end}
    if len(gone) > view.org.limits.deleted_ids:
        raise errors.Refusal(400, "EXCEEDED_ID_LIMIT", f"exceeded id limit of {view.org.limits.deleted_ids}")
    return {
        "deletedRecords": [{"id": id, "deletedDate": moment(at)} for id, at in gone.items()],
        "earliestDateAvailable": moment(now - int(view.org.limits.deleted_log_days * DAY)),
        "latestDateCovered": moment(min(end, now) // MINUTE * MINUTE),
    }


def _minute(text: str | None) -> int:
    try:
        return int(datetime.fromisoformat(text or "").timestamp() * 1000) // MINUTE * MINUTE
    except ValueError:
        raise errors.Refusal(400, "INVALID_REPLICATION_DATE", f"invalid date: {text}") from None


def _gone(view: View, found: SObject) -> dict[str, int]:
    """Id and instant of each deletion that still holds; purged records too."""
    gone = {found.id_of(record): record.archived_at for record in found.records(view.crm, True) if record.archived_at}
    for change in view.crm.changes:
        if change.doing == "purge" and change.kind in found.kinds:
            gone.setdefault(_id(found, change), change.at)
    return gone


def _id(found: SObject, change: Change) -> str:
    many = len(found.kinds) > 1
    return ids.make(found.prefix, change.id * len(found.kinds) + found.kinds.index(change.kind) if many else change.id)
