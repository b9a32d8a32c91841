"""One account of a served sandbox's SendGrid, for tests and benches that set it up, change it and know what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, TypeVar

from churnguard_pipelines.sandbox.sendgrid import activity, marketing, stats, suppressions, webhooks
from churnguard_pipelines.sandbox.sendgrid.access import key_of
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.api import subusers
from churnguard_pipelines.sandbox.sendgrid.provider import SendGrid, change_limits

T = TypeVar("T")


class AccountHandle:
    """`key`: with every scope. `subuser`: changes and reads what one of the account's subusers has instead."""

    def __init__(self, sendgrid: SendGrid, name: str, subuser: str | None = None) -> None:
        self._sendgrid, self._name, self._subuser = sendgrid, name, subuser
        self.key = key_of(name)

    def act(self, action: Callable[[Account], T]) -> T:
        """`action(account)` under the lock. What it changes is not remembered over a restart."""
        with self._sendgrid.world.lock:
            account = self._sendgrid.sending_account(self._name)
            return action(account.subusers[self._subuser] if self._subuser else account)

    def subuser(self, name: str) -> AccountHandle:
        return AccountHandle(self._sendgrid, self._name, name)

    def suppress(self, kind: str, email: str, at: int) -> None:
        """The address is put on a list, as of that second."""
        self.act(lambda account: account.sending.suppress(kind, email, at))

    # Keys and limits

    def key_without(self, *scopes: str) -> str:
        """Another key, which lacks these scopes."""
        return self._sendgrid.access.add(self._name, scopes)

    def revoke(self, key: str) -> None:
        self._sendgrid.access.revoke(key)

    def limit(self, **changes: int | None) -> None:
        """`limit(general=600, activity=None)`; see `limits.Limits`."""
        with self._sendgrid.world.lock:
            change_limits(self._sendgrid.quotas[self._name].limits, changes)

    def unlimited(self) -> None:
        self.limit(general=None, marketing=None, activity=None)

    @property
    def refused(self) -> int:
        """How many requests were answered 429."""
        return self._sendgrid.quotas[self._name].refused

    # Reading

    def objects(self, name: str) -> list[dict[str, Any]]:
        """Everything of one kind, as the API shows it, named as in the API's paths."""
        return self.act(lambda account: self._objects(account, name))

    def _objects(self, account: Account, name: str) -> list[dict[str, Any]]:
        if name in account.sending.suppressed:
            return [suppressions.shown(name, each) for each in suppressions.ordered(account, name)]
        books = self._sendgrid.api.books(account)
        found: dict[str, Callable[[], list[dict[str, Any]]]] = {
            "groups": lambda: suppressions.groups(account),
            "members": lambda: suppressions.members(account),
            "subusers": lambda: subusers(account),
            "templates": lambda: marketing.templates(account),
            "automations": lambda: stats.of_automations(account, books),
            "lists": lambda: marketing.lists(account),
            "segments": lambda: [*marketing.segments(account), *marketing.old_segments(account)],
            "singlesends": lambda: marketing.single_sends(account),
            "singlesend_stats": lambda: [
                stats.of_single_send(account, books, each)
                for each in account.sending.mailings
                if account.single_send_id(each) not in account.deleted
            ],
            "messages": lambda: [activity.shown(account, each) for each in activity.kept(account)],
            "events": lambda: [
                webhooks.event_of(account, each, place) for place, each in enumerate(account.sending.happened)
            ],
        }
        return found[name]()

    def contacts(self) -> set[str]:
        """Ids."""
        return self.act(lambda it: {it.uuid("contact", email) for email in it.contacts if email not in it.deleted})

    def sums(self, dimension: str) -> dict[tuple[str, str], dict[str, int]]:
        """(day, name) -> metrics, of all days with mail; dimension: global, category, provider, subuser, or automation,
        whose names are of its steps."""

        def read(account: Account) -> dict[tuple[str, str], dict[str, int]]:
            metrics = {"provider": stats.OF_PROVIDERS, "automation": stats.OF_MARKETING}.get(dimension, stats.METRICS)
            return {
                (day.isoformat(), name): stats.shown(sums, metrics)
                for day, name, sums in self._counted(account, dimension)
            }

        return self.act(read)

    def _counted(self, account: Account, dimension: str) -> Iterator[tuple[date, str, stats.Sums]]:
        books_of = self._sendgrid.api.books
        if dimension == "automation":
            steps = {each.number: account.step_id(each) for each in account.sending.series_mailings}
            for (number, day), sums in books_of(account).mailing_days.items():
                if number in steps:
                    yield day, f"{account.automation_id()}:{steps[number]}", sums
            return
        own = {"": account} if dimension != "subuser" else account.subusers
        for subuser, each in own.items():
            for (kind, day, name), sums in books_of(each).days.items():
                if kind == ("global" if subuser else dimension):
                    yield day, subuser or name, sums

    # Webhooks

    @property
    def public_key(self) -> str:
        return webhooks.public_key(self._subuser or self._name)

    def webhooks(self, url: str, *, since: int | None = None) -> None:
        """The account's events from now on, or from this one on, go to `url`, signed."""
        self._sendgrid.subscribe(self.act(lambda account: account), url, since=since)

    @property
    def delivered(self) -> int:
        """How many events somebody has taken, of every account; one that came twice counts twice."""
        return self._sendgrid.webhooks.delivered
