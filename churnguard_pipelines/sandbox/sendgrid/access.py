"""API keys and what each may do. https://www.twilio.com/docs/sendgrid/api-reference/api-key-permissions"""

from __future__ import annotations

import base64
import hashlib

from churnguard_pipelines.sandbox.sendgrid import errors

SCOPES = (
    "asm.groups.read", "asm.groups.suppressions.read", "categories.read", "categories.stats.read",
    "mailbox_providers.stats.read", "marketing.read", "messages.read", "stats.global.read", "stats.read",
    "subusers.read", "subusers.stats.read", "suppression.blocks.read", "suppression.bounces.read",
    "suppression.invalid_emails.read", "suppression.spam_reports.read", "suppression.unsubscribes.read",
    "suppression.read", "templates.read", "user.username.read", "user.webhooks.event.settings.read",
)  # fmt: skip
_NEEDED = (
    ("/v3/asm/suppressions", "asm.groups.suppressions.read"),
    ("/v3/asm/", "asm.groups.read"),
    ("/v3/suppression/bounces", "suppression.bounces.read"),
    ("/v3/suppression/blocks", "suppression.blocks.read"),
    ("/v3/suppression/invalid_emails", "suppression.invalid_emails.read"),
    ("/v3/suppression/spam_reports", "suppression.spam_reports.read"),
    ("/v3/suppression/unsubscribes", "suppression.unsubscribes.read"),
    ("/v3/categories/stats", "categories.stats.read"),
    ("/v3/categories", "categories.read"),
    ("/v3/mailbox_providers/", "mailbox_providers.stats.read"),
    ("/v3/stats", "stats.global.read"),
    ("/v3/subusers/stats", "subusers.stats.read"),
    ("/v3/subusers", "subusers.read"),
    ("/v3/marketing/", "marketing.read"),
    ("/v3/messages", "messages.read"),
    ("/v3/templates", "templates.read"),
    ("/v3/user/username", "user.username.read"),
    ("/v3/user/webhooks/", "user.webhooks.event.settings.read"),
)


def key_of(account: str, without: tuple[str, ...] = ()) -> str:
    """Of the account, with every scope but these."""
    digest = hashlib.sha512("/".join((account, *sorted(without))).encode()).digest()
    text = base64.urlsafe_b64encode(digest).decode()
    return f"SG.{text[:22]}.{text[22:65]}"


class Access:
    """Every key that is valid in this sandbox, with its account's name and its scopes."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[str, frozenset[str]]] = {}

    def add(self, account: str, without: tuple[str, ...] = ()) -> str:
        key = key_of(account, without)
        self._keys[key] = account, frozenset(SCOPES) - frozenset(without)
        return key

    def revoke(self, key: str) -> None:
        self._keys.pop(key, None)

    def find(self, key: str | None) -> tuple[str, frozenset[str]]:
        """Refusal 401 for no key or one that is none."""
        if key is None:
            raise errors.no_credentials()
        if key not in self._keys:
            raise errors.revoked()
        return self._keys[key]


def need(path: str, scopes: frozenset[str]) -> None:
    """Refusal 403 where the scope for a path is missing; /v3/scopes needs none."""
    needed = next((scope for prefix, scope in _NEEDED if path.startswith(prefix)), None)
    if needed is not None and needed not in scopes:
        raise errors.forbidden()
