"""The API's paths: which endpoint answers what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from churnguard_pipelines.sandbox.sendgrid import activity, errors, marketing, stats, suppressions, webhooks
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.requests import Request
from churnguard_pipelines.sandbox.sendgrid.stats import Books

Endpoint = Callable[[Request], Any]


class Api:
    """Endpoints of every account; `scopes`: those of the key that asks."""

    def __init__(self) -> None:
        self._books: dict[str, Books] = {}
        self._gets: Mapping[str, Endpoint] = {
            "user/username": lambda it: {"username": it.account.username, "user_id": it.account.user_id},
            "user/webhooks/event/settings/all": _settings,
            "asm/groups": lambda it: suppressions.groups(it.account),
            "asm/suppressions": lambda it: suppressions.members(it.account),
            "suppression/bounces/classifications": lambda it: stats.of_classifications(it, it.account),
            "stats": lambda it: stats.of_days(it, self.books(it.account)),
            "categories": _categories,
            "categories/stats": lambda it: stats.of_categories(it, self.books(it.account)),
            "mailbox_providers/stats": lambda it: stats.of_providers(it, self.books(it.account)),
            "subusers": lambda it: it.by_offset(subusers(it.account), 500, 500),
            "subusers/stats": self._subuser_stats,
            "marketing/lists": lambda it: it.by_token(marketing.lists(it.account), 100, 1000),
            "marketing/segments/2.0": lambda it: {"results": marketing.segments(it.account)},
            "marketing/segments": lambda it: {"results": marketing.old_segments(it.account)},
            "marketing/singlesends": lambda it: it.by_token(marketing.single_sends(it.account), 25, 100),
            "marketing/contacts/count": _count,
            "marketing/field_definitions": lambda it: marketing.field_definitions(it.account),
            "marketing/stats/singlesends": self._single_sends,
            "marketing/stats/automations": self._automations,
            "templates": lambda it: it.by_token(marketing.templates_asked_for(it), 100, 200),
            "messages": activity.found,
        }

    def books(self, account: Account) -> Books:
        books = self._books.setdefault(account.name, Books(account.sending))
        books.follow()
        return books

    def answer(self, request: Request, scopes: frozenset[str]) -> tuple[int, Any]:
        """Refusal where there is no such endpoint, or the account may not use it."""
        path = request.path.removeprefix("/v3/").rstrip("/")
        account = request.account
        if path == "scopes" and request.method == "GET":
            return 200, {"scopes": sorted(scopes)}
        if path.startswith("marketing/") and account.legacy:
            raise errors.forbidden()
        if path.startswith("messages") and not account.addon:
            raise errors.forbidden()
        if request.method == "POST" and path == "marketing/contacts/exports":
            return 202, marketing.export(request)
        if request.method != "GET":
            raise errors.Refusal(405, "method not allowed")
        if (endpoint := self._gets.get(path)) is not None:
            return 200, endpoint(request)
        return 200, self._one_of_many(request, path.split("/"))

    def _one_of_many(self, request: Request, parts: list[str]) -> Any:
        account = request.account
        match parts:
            case ["suppression", kind]:
                return suppressions.listed(request, kind)
            case ["asm", "groups", group, "suppressions"]:
                return suppressions.members_of(account, group)
            case ["marketing", "contacts", "exports", id]:
                return marketing.job(request, id)
            case ["marketing", "stats", "automations", id] if id == account.automation_id():
                rows = stats.of_steps(request, account, self.books(account))
                return request.by_token(rows, 25, 50, "results")
        raise errors.not_found()

    def _subuser_stats(self, request: Request) -> Any:
        return stats.of_subusers(request, {n: self.books(each) for n, each in request.account.subusers.items()})

    def _single_sends(self, request: Request) -> Any:
        account, books = request.account, self.books(request.account)
        sent = [each for each in account.sending.mailings if account.single_send_id(each) not in account.deleted]
        return request.by_token([stats.of_single_send(account, books, each) for each in sent], 25, 50, "results")

    def _automations(self, request: Request) -> Any:
        rows = stats.of_automations(request.account, self.books(request.account))
        return request.by_token(rows, 25, 50, "results")


def _categories(request: Request) -> Any:
    names = sorted({each.mailing.topic for each in request.account.sending.messages})
    return request.by_offset([{"category": name} for name in names], 50, 500)


def subusers(account: Account) -> list[dict[str, Any]]:
    return [
        {"disabled": False, "id": each.user_id, "username": name, "email": f"{name}@example.com"}
        for name, each in account.subusers.items()
    ]


def _count(request: Request) -> Any:
    there = sum(email not in request.account.deleted for email in request.account.contacts)
    return {"contact_count": there, "billable_count": there}


def _settings(request: Request) -> Any:
    return {"max_allowed": 5, "webhooks": [{"id": "1", "public_key": webhooks.public_key(request.account.name)}]}
