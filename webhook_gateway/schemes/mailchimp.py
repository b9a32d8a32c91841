"""Mailchimp: https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/"""

from __future__ import annotations

from typing import Any

from webhook_gateway.schemes.bodies import as_json, digest, entity, required, scalar, storable
from webhook_gateway.schemes.forms import CONTENT_TYPES, fields, nested
from webhook_gateway.schemes.sdk import Delivery, Event, Scheme, Trust
from webhook_gateway.schemes.signatures import has_url_secret


class Mailchimp(Scheme):
    """Mailchimp signs nothing and recommends a secret in the URL: ``…?secret=…``. It tries the URL with GET."""

    provider, title = "mailchimp", "Mailchimp"
    content_types = CONTENT_TYPES
    generated_secret_prefix = "mcwh_"  # noqa: S105 - no secret: how those that we make begin
    probes = ("GET", "HEAD")

    def verify(self, delivery: Delivery, trust: Trust) -> bool:
        return has_url_secret(delivery, trust)

    def events(self, delivery: Delivery) -> list[Event]:
        """One per delivery, without an id: what it says is its id, since every attempt says the same. A POST with
        nothing in it is one more way to try the URL."""
        pairs = fields(delivery.body)
        if not pairs:
            return []
        form = nested(pairs)
        kind, data = required(form, "type"), form.get("data")
        identifier = digest(*(text for pair in sorted(pairs) for text in pair))
        return [Event(identifier, storable(kind), _entity(data if isinstance(data, dict) else {}), as_json(form))]


def _entity(data: dict[str, Any]) -> str:
    """A member of a list (``upemail`` calls it new_id), or a campaign."""
    member = scalar(data.get("id")) or scalar(data.get("new_id")) or scalar(data.get("email"))
    return entity(scalar(data.get("list_id")), member)
