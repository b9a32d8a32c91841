"""Statistics of days: those that change later are read again, and days without mail have no row."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.sendgrid.conftest import NOW, Row, errors_of, live, sync
from tests.connectors.standin import Query, StandIn

TODAY = datetime.fromtimestamp(NOW, UTC).date()


def metrics(**sums: int) -> Row:
    return {"metrics": {"requests": 0, "delivered": 0, "opens": 0} | sums}


class Days:
    """``/v3/stats`` behind the stand-in, with zeros for days of which nobody told."""

    def __init__(self, provider: StandIn) -> None:
        self.sums: dict[date, Row] = {}
        self.asked: list[tuple[date, date]] = []
        provider.says["/v3/stats"] = [self._answer]

    def _answer(self, query: Query) -> list[Row]:
        begin, end = (date.fromisoformat(query[name][0]) for name in ("start_date", "end_date"))
        self.asked.append((begin, end))
        days = [begin + timedelta(n) for n in range((end - begin).days + 1)]
        return [{"date": day.isoformat(), "stats": [self.sums.get(day, metrics())]} for day in days]


@pytest.fixture
def days(sendgrid: StandIn) -> Days:
    return Days(sendgrid)


def test_days_without_mail_have_no_row(store: Store, days: Days) -> None:
    days.sums[date(2012, 2, 29)] = metrics(requests=5)
    days.sums[TODAY] = metrics(requests=7, opens=2)
    sync(store, "global_stats")
    assert {key: row["requests"] for key, row in live(store, "global_stats").items()} == {
        "2012-02-29": 5, TODAY.isoformat(): 7,
    }  # fmt: skip


def test_what_happens_late_changes_a_day_that_was_read(store: Store, days: Days, sendgrid: StandIn) -> None:
    """The last seven days are read again."""
    days.sums[TODAY - timedelta(6)] = metrics(requests=5)
    sync(store, "global_stats")
    days.asked.clear()
    days.sums[TODAY - timedelta(6)] = metrics(requests=5, opens=3)
    sendgrid.now = NOW + 86_400
    sync(store, "global_stats")
    assert live(store, "global_stats")[(TODAY - timedelta(6)).isoformat()]["opens"] == 3
    assert days.asked == [(TODAY - timedelta(7), TODAY + timedelta(1))]


def test_a_pause_of_weeks_leaves_no_gap(store: Store, days: Days, sendgrid: StandIn) -> None:
    sync(store, "global_stats")
    days.sums[TODAY + timedelta(2)] = metrics(requests=5)
    sendgrid.now = NOW + 40 * 86_400
    sync(store, "global_stats")
    assert live(store, "global_stats").keys() == {(TODAY + timedelta(2)).isoformat()}


def test_more_than_ten_categories_are_asked_for_ten_by_ten(store: Store, sendgrid: StandIn) -> None:
    names = [f"category {number:02}" for number in range(23)]
    asked: list[list[str]] = []

    def says(query: Query) -> list[Row]:
        asked.append(query["categories"])
        stats = [{"type": "category", "name": name, **metrics(requests=1)} for name in query["categories"]]
        return [{"date": query["end_date"][0], "stats": stats}]

    sendgrid.says["/v3/categories"] = [[{"category": name} for name in names]]
    sendgrid.says["/v3/categories/stats"] = [says]
    assert errors_of(sync(store, "category_stats")) == {}
    assert {row["category"] for row in live(store, "category_stats").values()} == set(names)
    assert max(map(len, asked)) == 10


def test_a_subuser_has_its_own_statistics(store: Store, account: AccountHandle) -> None:
    sync(store, "subuser_stats", "subusers")
    theirs = account.subuser("acme-alerts").sums("global")
    ours = {row["date"].isoformat(): row for row in live(store, "subuser_stats").values()
            if row["subuser"] == "acme-alerts"}  # fmt: skip
    assert {(day, ""): row["requests"] for day, row in ours.items()} == {
        key: sums["requests"] for key, sums in theirs.items()
    }
    assert {row["username"] for row in live(store, "subusers").values()} == {"acme-alerts", "acme-events"}


def test_steps_of_an_automation_add_up_to_its_total(store: Store, sandbox: Sandbox, account: AccountHandle) -> None:
    for _ in range(8):
        sandbox.account("acme").insert_customer()
    sandbox.account("acme").advance(8 * 86_400)
    sync(store, "automations", "automation_stats")
    (total,) = live(store, "automations").values()
    steps = live(store, "automation_stats").values()
    assert total["requests"] > 20
    for name in ("requests", "delivered", "opens", "unique_opens", "clicks", "bounces"):
        assert sum(row[name] for row in steps) == total[name], name
    assert {row["automation_id"] for row in steps} == {total["id"]}
    assert len({row["step_id"] for row in steps}) == 3


def test_of_a_day_that_makes_no_sense_nothing_is_stored(store: Store, sendgrid: StandIn) -> None:
    sendgrid.says["/v3/stats"] = [[{"date": "2026-01-01"}]]
    assert errors_of(sync(store, "global_stats")).keys() == {"global_stats"}


def test_an_automation_that_is_deleted_while_they_are_read_hides_no_other(store: Store, sendgrid: StandIn) -> None:
    path, day = "/v3/marketing/stats/automations", datetime.fromtimestamp(NOW, UTC).date().isoformat()
    sendgrid.says[path] = [{"results": [{"id": "a1"}, {"id": "a2"}], "_metadata": {}}]
    sendgrid.says[f"{path}/a1"] = [(404, {"errors": [{"message": "not found"}]})]
    step = {"id": "a2", "step_id": "s1", "aggregation": day, "stats": {"opens": 1}}
    sendgrid.says[f"{path}/a2"] = [{"results": [step], "_metadata": {}}]
    assert errors_of(sync(store, "automation_stats")) == {}
    assert live(store, "automation_stats").keys() == {f"a2:s1:{day}"}
