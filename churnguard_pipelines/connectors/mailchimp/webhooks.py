"""What Mailchimp's webhooks tell: whose record to ask for. Forms are no states, and come in any order.

https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from churnguard_pipelines.connectors.mailchimp.api import MailchimpApi
from churnguard_pipelines.connectors.mailchimp.listings import ListingReader
from churnguard_pipelines.connectors.mailchimp.objects import MemberOptions
from churnguard_pipelines.connectors.mailchimp.rows import Shape
from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.engine.fair_threads import map_in_threads
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.records import Deletion, Record

_OBJECTS = {
    **dict.fromkeys(("subscribe", "unsubscribe", "profile", "upemail", "cleaned"), "members"),
    "campaign": "campaigns",
}


def object_of(event: Mapping[str, Any]) -> str | None:
    return _OBJECTS.get(str(event.get("type")))


def changes(
    api: MailchimpApi, campaigns: ListingReader, item: Object, events: Sequence[Mapping[str, Any]]
) -> tuple[list[Record], list[Deletion]]:
    """What these events make of an object's records. A member that is gone for good is not told of here, since nothing
    says which contact it was: the next read of all members finds it."""
    if not isinstance(item.options, MemberOptions):
        return campaigns.now(item, [_told(each, "id") for each in events])
    paths = dict.fromkeys(_path(api, each) for each in events)
    there = map_in_threads("members", api.connections, api.row, paths)
    return _records(item, [each for each in there if each is not None]), []


def subscriber_hash(email: str) -> str:
    """The id of a member: the MD5 of the address in lower case."""
    return hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()


def _records(item: Object, found: Iterable[tuple[dict[str, Any], int]]) -> list[Record]:
    shape = Shape(item)
    return [record for row, asked in found for record in shape.records([row], asked)]


def _path(api: MailchimpApi, event: Mapping[str, Any]) -> str:
    """``upemail`` is of one contact, whose address is the new one now."""
    email = _told(event, "new_email" if event.get("type") == "upemail" else "email")
    return f"/lists/{api.id('webhooks', _told(event, 'list_id'))}/members/{subscriber_hash(email)}"


def _told(event: Mapping[str, Any], name: str) -> str:
    data = event.get("data")
    told = data.get(name) if isinstance(data, dict) else None
    if not isinstance(told, str) or not told:
        raise ProviderMisbehaved(
            f"a webhook event of Mailchimp does not say its {name}.",
            remedy="The next sync finds what it was about.",
        )
    return told
