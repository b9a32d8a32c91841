"""Statistics: what became of the mail that was processed on a day, by category, subuser and mailbox provider; and of
single sends and automations. What happens later counts for the day of the mail, so that past days change.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from churnguard_pipelines.sandbox.sendgrid import errors
from churnguard_pipelines.sandbox.sendgrid.account import Account
from churnguard_pipelines.sandbox.sendgrid.requests import Request, day_of
from churnguard_pipelines.sandbox.sendgrid.sending import Happening, Mailing, Message, Sending

METRICS = (
    "blocks", "bounce_drops", "bounces", "clicks", "deferred", "delivered", "invalid_emails", "opens", "processed",
    "requests", "spam_report_drops", "spam_reports", "unique_clicks", "unique_opens", "unsubscribe_drops",
    "unsubscribes",
)  # fmt: skip
OF_MARKETING = (
    "bounce_drops", "bounces", "clicks", "delivered", "invalid_emails", "opens", "requests", "spam_report_drops",
    "spam_reports", "unique_clicks", "unique_opens", "unsubscribes",
)  # fmt: skip
OF_PROVIDERS = ("blocks", "bounces", "deferred", "delivered", "drops", "processed", "requests", "spam_reports")
PROVIDERS = ("Gmail", "Microsoft", "Other")
MOST_NAMES = 10
_COUNTED = {
    "bounce": ("bounces",), "blocked": ("blocks",), "dropped": ("invalid_emails", "drops"), "deferred": ("deferred",),
    "delivered": ("delivered",), "processed": ("requests", "processed"), "open": ("opens",), "click": ("clicks",),
    "spamreport": ("spam_reports",), "unsubscribe": ("unsubscribes",), "group_unsubscribe": ("unsubscribes",),
}  # fmt: skip

Sums = dict[str, int]


def provider_of(email: str) -> str:
    return PROVIDERS[zlib.crc32(email.encode()) % len(PROVIDERS)]


class Books:
    """Sums of what happened in one account, kept up to date."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._read = 0
        self._opened: set[int] = set()
        self._clicked: set[int] = set()
        self.days: dict[tuple[str, date, str], Sums] = defaultdict(lambda: defaultdict(int))
        self.mailings: dict[int, Sums] = defaultdict(lambda: defaultdict(int))
        self.mailing_days: dict[tuple[int, date], Sums] = defaultdict(lambda: defaultdict(int))

    def follow(self) -> None:
        fresh = self._sending.happened[self._read :]
        self._read += len(fresh)
        for happening in fresh:
            self._count(happening)

    def _count(self, happening: Happening) -> None:
        message = happening.message
        day, mailing = day_of(message.at), message.mailing
        names = [*_COUNTED[happening.kind], *self._first(happening.kind, message)]
        for sums in (
            self.days["global", day, ""],
            self.days["category", day, mailing.topic],
            self.days["provider", day, provider_of(message.email)],
            self.mailings[mailing.number],
            self.mailing_days[mailing.number, day],
        ):
            for name in names:
                sums[name] += 1

    def _first(self, kind: str, message: Message) -> tuple[str, ...]:
        seen = {"open": self._opened, "click": self._clicked}.get(kind)
        if seen is None or message.number in seen:
            return ()
        seen.add(message.number)
        return (f"unique_{kind}s",)


def shown(sums: Sums | None, metrics: Iterable[str] = METRICS) -> Sums:
    return {name: sums.get(name, 0) if sums else 0 for name in metrics}


# /v3/stats and the like


def of_days(request: Request, books: Books) -> list[dict[str, Any]]:
    """Each day of the span, also those on which nothing was sent."""
    return [
        {"date": day.isoformat(), "stats": [{"metrics": shown(books.days.get(("global", day, "")))}]}
        for day in _days(request)
    ]


def of_categories(request: Request, books: Books) -> list[dict[str, Any]]:
    names = _names(request, "categories")
    return [
        {
            "date": day.isoformat(),
            "stats": [
                {"type": "category", "name": name, "metrics": shown(books.days.get(("category", day, name)))}
                for name in names
            ],
        }
        for day in _days(request)
    ]


def of_providers(request: Request, books: Books) -> list[dict[str, Any]]:
    """Only those providers that there was mail for; days without any have none."""
    made = []
    for day in _days(request):
        there = [(name, books.days.get(("provider", day, name))) for name in PROVIDERS]
        stats = [
            {"type": "mailbox_provider", "name": name, "metrics": shown(sums, OF_PROVIDERS)}
            for name, sums in there
            if sums
        ]
        made.append({"date": day.isoformat(), "stats": stats})
    return made


def of_subusers(request: Request, books: dict[str, Books]) -> list[dict[str, Any]]:
    names = _names(request, "subusers")
    if unknown := [name for name in names if name not in books]:
        raise errors.invalid("subusers", f"subuser {unknown[0]} does not exist")
    return [
        {
            "date": day.isoformat(),
            "stats": [
                {"type": "subuser", "name": name, "metrics": shown(books[name].days.get(("global", day, "")))}
                for name in names
            ],
        }
        for day in _days(request)
    ]


def of_classifications(request: Request, account: Account) -> dict[str, Any]:
    """Of bounces, by day, most frequent first."""
    days: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for happening in account.sending.happened:
        if happening.kind == "bounce":
            days[day_of(happening.at)][classification_of(happening.message.email)] += 1
    begin, end = request.day("start_date", date.min), request.day("end_date", date.max)
    result = []
    for day, counts in sorted(days.items()):
        if begin <= day <= end:
            ordered = sorted(counts.items(), key=lambda each: -each[1])
            stats = [{"classification": name, "count": count} for name, count in ordered]
            result.append({"date": day.isoformat(), "stats": stats})
    return {"result": result}


def classification_of(email: str) -> str:
    return ("Invalid Address", "Mailbox Unavailable")[zlib.crc32(email.encode()) // 7 % 2]


# /v3/marketing/stats


def of_single_send(account: Account, books: Books, mailing: Mailing) -> dict[str, Any]:
    return {
        "id": account.single_send_id(mailing),
        "ab_variation": "00000000-0000-0000-0000-000000000000",
        "ab_phase": "all",
        "aggregation": "total",
        "stats": shown(books.mailings.get(mailing.number), OF_MARKETING),
    }


def of_automations(account: Account, books: Books) -> list[dict[str, Any]]:
    return [of_automation(account, books)] if account.sending.series else []


def of_automation(account: Account, books: Books) -> dict[str, Any]:
    total: Sums = defaultdict(int)
    for mailing in account.sending.series_mailings:
        for name, count in books.mailings.get(mailing.number, {}).items():
            total[name] += count
    stats = shown(total, OF_MARKETING)
    return {"id": account.automation_id(), "aggregation": "total", "step_id": "all", "stats": stats}


def of_steps(request: Request, account: Account, books: Books) -> list[dict[str, Any]]:
    """By step, and by day where that is asked for; only days on which there was something."""
    if "step_id" not in request.many("group_by"):
        return [of_automation(account, books)]
    rows = []
    begin, end = request.day("start_date", date.min), request.day("end_date", date.max)
    for mailing in account.sending.series_mailings:
        id, step = account.automation_id(), account.step_id(mailing)
        if request.one("aggregated_by", "total") == "day":
            rows += [
                {"id": id, "aggregation": day.isoformat(), "step_id": step, "stats": shown(sums, OF_MARKETING)}
                for (number, day), sums in sorted(books.mailing_days.items())
                if number == mailing.number and begin <= day <= end
            ]
        else:
            sums_of_all = books.mailings.get(mailing.number)
            rows.append({"id": id, "aggregation": "total", "step_id": step, "stats": shown(sums_of_all, OF_MARKETING)})
    return rows


def _days(request: Request) -> list[date]:
    today = day_of(request.account.clock())
    begin, end = request.day("start_date"), min(request.day("end_date", today), today)
    if request.one("aggregated_by", "day") != "day":
        raise errors.invalid("aggregated_by", "the sandbox knows days only")
    return [begin + timedelta(number) for number in range((end - begin).days + 1)]


def _names(request: Request, parameter: str) -> list[str]:
    names = request.many(parameter)
    if not 1 <= len(names) <= MOST_NAMES:
        raise errors.invalid(parameter, f"between 1 and {MOST_NAMES} {parameter} must be provided")
    return names
