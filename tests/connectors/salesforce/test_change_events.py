"""Change events of the simulated Pub/Sub API, followed beside the syncs: what is told is a row at once, what cannot be
told is read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from churnguard_pipelines.errors import AuthenticationFailed, LaneTakenOver, ProviderUnavailable, Stopped
from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.salesforce.pubsub.server import PubSub
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.integrations import get_integration, replace_integration
from churnguard_pipelines.store.ingest import arrivals
from churnguard_pipelines.store.ingest.arrivals import Arrivals
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.store.raw.warehouse import Warehouse
from churnguard_pipelines.syncing.events import lane as event_lane
from churnguard_pipelines.syncing.events.lane import EventLane
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.salesforce.test_sandbox import Crm, assert_equal

OBJECTS = ("Account", "Contact", "Lead", "Task")
PATIENCE = 30.0


class Followed(Crm):
    """The integration in real time; syncs are made by hand."""

    def __init__(self, store: Store, sandbox: Sandbox) -> None:
        self.pubsub: PubSub = sandbox.salesforce.pubsub()
        self.pubsub.keep_alive = 0.05
        super().__init__(store, sandbox)

    def configure(self, user: str = "acme", *objects: str, **more: Any) -> None:
        credentials = more.pop("credentials", None) or {
            "credential_type": "bearer",
            "access_token": f"00Dsandbox_{user}",
        }
        given = credentials.pop("custom_fields", {}) | {"pubsub_url": f"http://{self.pubsub.target}"}
        made = configuration(
            "acme-crm", provider_name="salesforce", integration_type="crm", base_url=self.sandbox.url,
            credentials=credentials | {"custom_fields": given},
            sync_config={"requests_per_minute": 60_000, "concurrent_requests": 4, "retry_backoff": 0.01,
                         "sync_mode": "real_time", "objects": list(objects or OBJECTS)} | more,
        )  # fmt: skip
        replace_integration(self.store, made, actor="test")

    @contextmanager
    def lane(self) -> Iterator[EventLane]:
        """That has heard from Salesforce."""
        with EventLane(self.store, Warehouse(self.store), get_integration(self.store, "acme-crm")) as lane:
            self.work(lane, lambda: self.pubsub.subscribers("acme") > 0 and self.position()["replay"] is not None)
            yield lane

    def work(self, lane: EventLane, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < deadline, "it never came"
            lane.step(0.2)

    def follow(self, *names: str) -> None:
        """Until the tables are the same as Salesforce's, formulas apart."""
        with self.lane() as lane:
            self.follow_on(lane, *names)

    def follow_on(self, lane: EventLane, *names: str) -> None:
        def same() -> bool:
            try:
                assert_equal(self, *(names or OBJECTS), formulas=False)
            except AssertionError:
                return False
            return True

        deadline = time.monotonic() + PATIENCE
        while not same():
            lane.step(0.2)
            if time.monotonic() > deadline:
                assert_equal(self, *(names or OBJECTS), formulas=False)

    def position(self) -> dict[str, Any]:
        with self.store.organization("acme") as connection:
            return dict(connection.scalar(sa.text("SELECT position FROM ingest.checkpoints WHERE lane = 'changes'")))

    def some(self, kind: str, number: int = 1) -> Any:
        ids = self.account.read_crm(lambda found: [each.id for each in found.records(kind)][:number])
        return ids if number > 1 else ids[0]

    def row(self, object: str, **wanted: Any) -> dict[str, Any] | None:
        found = [row for row in self.ours(object).values() if all(row[key] == value for key, value in wanted.items())]
        return found[0] if found else None

    def kinds(self, name: str) -> set[str]:
        with self.store.organization("acme") as connection:
            statement = f"SELECT delete_kind FROM raw.salesforce_{name.lower()} WHERE deleted_at IS NOT NULL"
            return set(connection.scalars(sa.text(statement)))


@pytest.fixture
def crm(store: Store, organization: object, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Followed]:
    monkeypatch.setattr(event_lane, "KEEP_IDLE_EVERY", 0.0)
    made = Followed(store, sandbox)
    made.sync(*OBJECTS)
    with made.api:
        yield made


def test_a_change_is_a_row_though_no_sync_reads_it(crm: Followed) -> None:
    with crm.lane() as lane:
        crm.account.crm("create", kind="company", name="Born a moment ago")
        crm.account.crm("update", kind="contact", id=crm.some("contact"), email="new@example.com")
        crm.follow_on(lane)
    assert crm.row("Account", name="Born a moment ago")
    assert crm.row("Contact", email="new@example.com")


def test_deleted_merged_purged_and_restored(crm: Followed) -> None:
    first, second, third, fourth, fifth = crm.some("company", 5)
    with crm.lane() as lane:
        crm.account.crm("delete", kind="company", id=first)
        crm.account.crm("merge", kind="company", winner=second, loser=third)
        crm.account.crm("purge", kind="company", id=fourth)
        crm.account.crm("delete", kind="company", id=fifth)
        crm.follow_on(lane)
        assert crm.kinds("Account") == {"soft", "merged", "hard"}
        crm.account.advance(1)
        crm.account.crm("undelete", kind="company", id=first)
        crm.account.crm("update", kind="company", id=first, name="Back again")
        crm.follow_on(lane)
    assert crm.row("Account", name="Back again")


def test_what_was_told_while_nobody_listened_is_told_later(crm: Followed) -> None:
    with crm.lane():
        pass
    crm.account.crm("update", kind="company", id=crm.some("company"), name="Changed at night")
    crm.account.advance(3600)
    crm.follow("Account")
    assert crm.row("Account", name="Changed at night")


def test_the_position_moves_on_while_all_is_quiet(crm: Followed) -> None:
    """Else a quiet month's replay id is older than the three days that Salesforce keeps."""
    with crm.lane() as lane:
        before = crm.position()
        crm.account.advance(3600)
        crm.work(lane, lambda: crm.position()["since"] != before["since"])


@pytest.mark.parametrize("how", ["gap", "overflow"])
def test_what_cannot_be_told_is_read_again(crm: Followed, how: Any) -> None:
    first, second = crm.some("company", 2)
    with crm.lane() as lane:
        crm.pubsub.disturb("acme", how)
        crm.account.crm("update", kind="company", id=first, name="Too much for an event")
        crm.account.crm("create", kind="contact", email="gap@example.com")
        crm.account.crm("delete", kind="company", id=second)
        crm.follow_on(lane)
        crm.pubsub.calm("acme")
        crm.account.crm("update", kind="company", id=first, name="An event again")
        crm.follow_on(lane)
    assert crm.row("Account", name="An event again")


def test_a_replay_id_that_salesforce_has_forgotten_is_read_around(crm: Followed) -> None:
    with crm.lane():
        pass
    crm.account.crm("update", kind="company", id=crm.some("company"), name="In the gap")
    crm.account.crm("delete", kind="contact", id=crm.some("contact"))
    crm.pubsub.forget("acme")
    crm.follow()
    assert crm.row("Account", name="In the gap")


def test_a_subscription_that_breaks_off_goes_on_where_it_was(crm: Followed) -> None:
    with crm.lane() as lane:
        crm.pubsub.drop("acme")
        with pytest.raises(ProviderUnavailable, match="unavailable"):
            crm.work(lane, lambda: False)
    crm.account.crm("update", kind="company", id=crm.some("company"), name="After the break")
    crm.follow("Account")


def test_a_session_that_ends_is_renewed_in_the_running_stream(crm: Followed) -> None:
    app = {"client_id": "3MVGsandbox_acme", "client_secret": "secret_acme"}
    crm.configure(credentials={"credential_type": "client_credentials", "custom_fields": app})
    with crm.lane() as lane:
        crm.account.advance(3 * 3600)
        crm.account.crm("update", kind="company", id=crm.some("company"), name="With a new session")
        crm.follow_on(lane, "Account")


def test_who_is_told_to_end_asks_nothing_more_and_leaves_the_rest_to_the_next_one(crm: Followed) -> None:
    cancelled = threading.Event()
    with crm.lane():
        pass
    position = crm.position()
    integration = get_integration(crm.store, "acme-crm")
    with EventLane(crm.store, Warehouse(crm.store), integration, cancelled) as lane:
        assert lane.step(0) is None  # it listens
        crm.account.crm("update", kind="company", id=crm.some("company"), name="For the next one")
        cancelled.set()
        with pytest.raises(Stopped):
            crm.work(lane, lambda: False)
    assert crm.position() == position
    crm.follow("Account")
    assert crm.row("Account", name="For the next one")


def test_a_session_that_cannot_be_renewed_is_said(crm: Followed) -> None:
    crm.configure("nobody")
    with (
        pytest.raises(AuthenticationFailed),
        EventLane(crm.store, Warehouse(crm.store), get_integration(crm.store, "acme-crm")) as lane,
    ):
        lane.step(1)


def test_two_readers_of_one_feed_cannot_both_win(crm: Followed) -> None:
    with crm.lane() as late:
        crm.account.crm("update", kind="company", id=crm.some("company"), name="Told twice")
        crm.follow("Account")
        with pytest.raises(LaneTakenOver):
            crm.work(late, lambda: False)


def test_a_field_made_a_moment_ago_comes_with_its_first_change(crm: Followed) -> None:
    with crm.lane() as lane:
        crm.account.crm("update", kind="company", id=crm.some("company"), name="Before")
        crm.follow_on(lane, "Account")
        crm.account.crm("add_field", kind="company", made=Field("health_score", "number", custom=True))
        crm.account.crm("update", kind="company", id=crm.some("company"), health_score=0.75)
        crm.work(lane, lambda: any(0.75 in (row["extra"] or {}).values() for row in crm.ours("Account").values()))


def test_an_object_without_change_events_is_named_and_read_by_syncs(crm: Followed) -> None:
    crm.configure("acme", "Account", "OpportunityContactRole")
    report = sync_integration(crm.store, "acme-crm", sync_id="unfollowed")
    assert report.objects["Account"].error is None
    assert "no change events" in str(report.objects["OpportunityContactRole"].error)
    assert report.status == "succeeded"


def test_an_object_that_may_not_be_read_leaves_the_others_alone(crm: Followed) -> None:
    crm.configure("acme_deny_Task")
    with crm.lane() as lane:
        crm.account.crm("update", kind="task", id=crm.some("task"), subject="Not for us")
        crm.account.crm("update", kind="company", id=crm.some("company"), name="For us")
        crm.follow_on(lane, "Account")


def test_a_record_that_queries_do_not_see_yet_is_not_taken_for_deleted(crm: Followed) -> None:
    """Reads lag behind writes: the event is there before the record."""
    with crm.lane() as lane:
        crm.sandbox.salesforce.limits("acme").lag = 120
        crm.account.crm("create", kind="company", name="Not seen yet")
        position = crm.position()
        crm.work(lane, lambda: crm.position() != position)
        crm.account.advance(600)
    crm.sync("Account")
    assert crm.row("Account", name="Not seen yet")


def test_what_events_should_have_brought_and_a_sync_did_is_counted(
    crm: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "GRACE", -86_400_000)
    first, second, third = crm.some("company", 3)
    with crm.lane() as lane:
        crm.account.crm("update", kind="company", id=first, name="Told")
        crm.follow_on(lane, "Account")
    with crm.store.operator() as connection:  # the simulated clock is not ours
        connection.execute(
            sa.text("UPDATE ingest.arrivals SET first_at = to_timestamp(:now)"), {"now": crm.account.now}
        )
    crm.account.advance(5)
    for company in (second, third):
        crm.account.crm("update", kind="company", id=company, name="Not told")
    crm.account.advance(600)
    crm.sync("Account")
    found = arrivals.of(crm.store, "acme-crm")["Account"]
    assert found == {"changes": Arrivals(brought=1, missed=2)}
    crm.sync("Account")
    assert arrivals.of(crm.store, "acme-crm")["Account"] == found


def test_who_does_not_want_it_any_more_is_not_followed(crm: Followed) -> None:
    crm.configure(sync_mode="incremental")
    crm.sync("Account")
    with crm.store.organization("acme") as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM ingest.checkpoints WHERE lane = 'changes'")) == 0
