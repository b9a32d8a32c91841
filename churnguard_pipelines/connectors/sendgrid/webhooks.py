"""What SendGrid's event webhook tells: each event is a row, once, however often and in whatever order it comes.

https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event. Nothing else has all of them: statistics are
sums, and e-mail activity has the latest state of a message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from churnguard_pipelines.connectors.sendgrid.activity import message_id
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.records import Record

OBJECT = "events"
OF_THE_ACCOUNT = frozenset({"account_status_change"})
_FIRST_MILLISECOND = 10**11
"""Epoch seconds never are as large: single sends' events tell milliseconds."""


def object_of(event: Mapping[str, Any]) -> str | None:
    kind = event.get("event")
    return OBJECT if isinstance(kind, str) and kind not in OF_THE_ACCOUNT else None


def records(events: Sequence[Mapping[str, Any]]) -> list[Record]:
    return [_record(event) for event in events]


def _record(event: Mapping[str, Any]) -> Record:
    told = event.get("timestamp")
    if not isinstance(told, int) or isinstance(told, bool):
        raise ProviderMisbehaved("an event of SendGrid's webhook does not say when.")
    milliseconds = told if told >= _FIRST_MILLISECOND else told * 1000
    made = {
        **event,
        "occurred_at": milliseconds / 1000,
        "message_id": message_id(event, "sg_message_id"),
        "sg_event_id": event.get("sg_event_id") or _digest(event),
    }
    return Record(made, milliseconds)


def _digest(event: Mapping[str, Any]) -> str:
    """Of an event without an id, which some are."""
    return hashlib.sha256(orjson.dumps(event, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()[:40]
