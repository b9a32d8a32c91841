"""Silent gaps are found by the provider's own counts and keys, and mended by reading them alone again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import SourceChanged
from churnguard_pipelines.model import Organization
from churnguard_pipelines.records import TIMESTAMP, Column
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.ingest.tables import syncs
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import parity
from churnguard_pipelines.syncing.parity import Comparison, compare_counts, compare_keys
from tests.blocked import wait_until_blocked
from tests.conftest import as_administrator
from tests.connectors.counting import Counting
from tests.connectors.toy import Account, Toy, accounts

NOW = datetime(2026, 9, 1, tzinfo=UTC)
PEOPLE = 300
DAYS_APART = 5


class Crm:
    """An account with people created over four years, all of them synced; and what we have of them."""

    def __init__(self, account: Account) -> None:
        self.account, self.store = account, account.store
        self.people = [
            {"id": f"p{number:03}", "email": f"{number}@acme.example", "created": self._created(number)}
            for number in range(PEOPLE)
        ]
        account.holds("contacts", *self.people)
        assert account.sync("contacts").status == "succeeded"
        with self.store.operator() as connection:
            connection.execute(sa.update(syncs).values(started_at=NOW))

    @staticmethod
    def _created(number: int) -> str:
        return (NOW - timedelta(days=1 + DAYS_APART * number)).isoformat()

    @property
    def asked(self) -> list[tuple[str, Any]]:
        return Counting.asked

    def lose(self, *numbers: int) -> None:
        """As if they had never come."""
        with psycopg.connect(as_administrator(self.store.database_url)) as connection:
            lost = [f"p{number:03}" for number in numbers]
            connection.execute("DELETE FROM raw.toy_contacts WHERE id = ANY(%s)", (lost,))

    def counts(self) -> Comparison:
        return self._compared(compare_counts)

    def keys(self) -> Comparison:
        return self._compared(compare_keys)

    def have(self) -> set[str]:
        with self.store.organization("acme") as connection:
            live = sa.text("SELECT id FROM raw.toy_contacts WHERE organization_id = 'acme' AND deleted_at IS NULL")
            return set(connection.scalars(live))

    def _compared(self, compare: Any) -> Comparison:
        Counting.asked = []
        found: Comparison = compare(self.store, get_integration(self.store, "acme-crm"), Toy.objects[0])
        return found


@pytest.fixture
def crm(store: Store, organization: Organization, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crm]:
    monkeypatch.setattr(parity, "LIMIT", 10)
    monkeypatch.setattr(Counting, "asked", [], raising=False)
    with accounts(store, monkeypatch, Counting) as opened:
        yield Crm(opened())


def test_what_is_alike_costs_one_count(crm: Crm) -> None:
    assert crm.counts() == Comparison()
    assert [what for what, _ in crm.asked] == ["count"]


def test_a_hole_is_found_by_halves_and_read_again_alone(crm: Crm) -> None:
    crm.lose(200, 201, 17)
    found = crm.counts()
    assert (found.missing, found.extra, found.mended, found.left) == (3, 0, 3, 0)
    assert [keys for what, keys in crm.asked if what == "fetch"] == [["p017"], ["p200", "p201"]], "the newest first"
    compared = [window for what, window in crm.asked if what == "keys"]
    assert len(compared) == 2
    assert all(window.end - window.start < timedelta(days=DAYS_APART * 2 * parity.LIMIT) for window in compared)
    assert sum(what == "count" for what, _ in crm.asked) < 40
    assert crm.have() == {person["id"] for person in crm.people}
    assert crm.counts() == Comparison(), "there is nothing to be found any more"


def test_what_is_gone_there_is_deleted_here(crm: Crm) -> None:
    crm.account.holds("contacts", *(person for person in crm.people if person["id"] != "p123"))
    found = crm.counts()
    assert (found.missing, found.extra, found.mended) == (0, 1, 1)
    assert "p123" not in crm.have()


def test_what_another_writer_holds_is_mended_all_the_same(crm: Crm) -> None:
    """PostgreSQL may choose the one that mends to break a circle of writers."""
    crm.account.holds("contacts", *(person for person in crm.people if person["id"] not in ("p001", "p002")))
    take = "UPDATE raw.toy_contacts SET synced_at = now() WHERE id = %s"
    with psycopg.connect(as_administrator(crm.store.database_url)) as other:
        other.execute("SET deadlock_timeout = '1min'")  # it is not the other that looks for a circle first
        other.execute(take, ["p002"])
        comparing = in_thread("compare", crm.counts)
        wait_until_blocked(crm.store)
        in_thread("other", lambda: other.execute(take, ["p001"])).result(20)
    assert comparing.result(20).mended == 2


def test_a_provider_without_keys_to_ask_by_has_the_hole_s_time_read_again(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counting, "by_key", False)
    crm.lose(42)
    assert crm.counts().mended == 1
    ((_, window),) = [each for each in crm.asked if each[0] == "read"]
    assert ("keys", window) in crm.asked, "the window that was compared, and no more"


def test_numbers_that_are_alike_by_accident_are_found_by_keys(crm: Crm) -> None:
    """One that is missing and one that should not be here."""
    crm.lose(0)
    crm.account.holds("contacts", *(person for person in crm.people if person["id"] != "p001"))
    assert crm.counts() == Comparison()
    found = crm.keys()
    assert (found.missing, found.extra, found.mended) == (1, 1, 2)
    assert not [each for each in crm.asked if each[0] == "count"]


def test_more_keys_than_one_comparison_reads_are_compared_by_halves(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "LIMIT", 1)
    crm.lose(1)
    assert (crm.keys().mended, crm.keys()) == (1, Comparison())


def test_a_record_that_was_rejected_is_known_and_not_missing(crm: Crm) -> None:
    crm.account.holds("contacts", *crm.people, {"id": "odd", "created": crm.people[9]["created"], "email": "a\0b"})
    crm.account.sync("contacts")
    with crm.store.operator() as connection:
        connection.execute(sa.update(syncs).values(started_at=NOW))
    found = crm.counts()
    assert (found.missing, found.rejected) == (0, 1)
    assert not [each for each in crm.asked if each[0] == "fetch"]


def test_what_the_provider_counts_and_does_not_give_stays_a_finding(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "hidden", 1)
    crm.lose(5)
    found = crm.counts()
    assert (found.missing, found.mended) == (1, 1)
    monkeypatch.setattr(Counting, "keys", lambda *_: None)
    assert crm.counts().uncompared > 0


def test_a_check_asks_a_bounded_number_of_questions_and_the_next_one_goes_on(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_QUESTIONS", 40)
    crm.lose(*range(0, PEOPLE, 30))
    mended = 0
    for _ in range(10):
        found = crm.counts()
        assert len([each for each in crm.asked if each[0] != "fetch"]) <= 41
        mended += found.mended
        if not found.uncompared:
            break
    assert mended == 10
    assert crm.counts() == Comparison()


def test_another_account_s_records_mend_nothing(crm: Crm) -> None:
    crm.lose(7)
    crm.account.answers("/account", 200, {"id": "somebody-else"})
    with pytest.raises(SourceChanged):
        crm.counts()
    assert "p007" not in crm.have()


def test_a_newer_version_that_came_meanwhile_stays(crm: Crm) -> None:
    """What the provider lists now may be older than what a webhook brought."""
    crm.lose(8)
    with psycopg.connect(as_administrator(crm.store.database_url)) as connection:
        connection.execute(
            "INSERT INTO raw.toy_contacts (organization_id, integration_id, id, email, source_version, deleted_at, "
            "delete_kind, synced_at, extra) "
            "VALUES ('acme', 'acme-crm', 'p008', 'x', 10 ^ 9, now(), 'hard', now(), '{}')"
        )
    found = crm.counts()
    assert (found.missing, found.mended, found.left) == (1, 0, 1)


def test_what_is_younger_than_the_connector_reads_is_not_missing_and_comes_all_the_same(
    crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading trails an hour behind: neither what was made in it, nor what was made before and changed in it."""
    columns = (*Toy.objects[0].columns, Column("changed", TIMESTAMP))
    item = replace(Toy.objects[0], columns=columns, modified_column="changed")
    monkeypatch.setattr(Counting, "trails_by", timedelta(hours=1))
    monkeypatch.setattr(Toy, "objects", (item, *Toy.objects[1:]))
    crm.account.sync("contacts")
    young = {"created": (NOW - timedelta(minutes=50)).isoformat(), "id": "young"}
    touched = {"created": (NOW - timedelta(days=3)).isoformat(), "id": "touched", "changed": NOW.isoformat()}
    lost = {"created": (NOW - timedelta(days=3)).isoformat(), "id": "lost", "changed": "2026-08-29T00:00:00Z"}
    with crm.store.operator() as connection:
        connection.execute(sa.update(syncs).values(started_at=NOW))
    crm.account.holds("contacts", *crm.people, young, touched, lost)
    found = crm.counts()
    assert (found.missing, found.mended) == (1, 1)
    assert {"touched", "lost"} <= crm.have()
    assert "young" not in crm.have()
