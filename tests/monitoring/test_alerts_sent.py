"""Alerts leave: one message when something begins to need somebody, one when it is over, wherever people are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.errors import InvalidConfiguration, ProviderUnavailable
from churnguard_pipelines.model import IntegrationStatus, Organization
from churnguard_pipelines.monitoring import channels
from churnguard_pipelines.monitoring.causes import DAEMON, INSTALLATION, Cause
from churnguard_pipelines.monitoring.health import Severity
from churnguard_pipelines.monitoring.monitor import take_picture
from churnguard_pipelines.monitoring.telling import Teller
from churnguard_pipelines.records import Lane
from churnguard_pipelines.store.control.alert_destinations import (
    Destination,
    add_destination,
    end_silence,
    list_destinations,
    remove_destination,
    silence,
)
from churnguard_pipelines.store.control.integrations import add_integration, set_status
from churnguard_pipelines.store.ingest.ledger import note_failure
from churnguard_pipelines.store.postgres.database import Store
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in
from tests.monitoring.destinations import Internet, Mailbox, dripping_server, internet, mail_server
from tests.waiting import wait_for
from tests.webhook_gateway.api.conftest import nowhere_in_the_database

AT_ONCE = timedelta(0)


@pytest.fixture
def hook() -> Iterator[StandIn]:
    """Somebody's webhook; what was posted is under ``asked``."""
    with stand_in() as server:
        yield server


@pytest.fixture
def teller(store: Store, organization: Organization) -> Teller:
    for name in ("acme-eu", "acme-us"):
        add_integration(store, configuration(name), actor="test")
    return Teller(store, lambda: take_picture(store), settled=AT_ONCE)


Send = Callable[..., None]


@pytest.fixture
def sent_to(store: Store) -> Send:
    def added(url: str, name: str = "oncall", severity: Severity = Severity.WARNING, after: int = 0) -> None:
        made = Destination(name, channels.check(url), severity.value, after, url=url)
        add_destination(store, made, "test")

    return added


def refused(store: Store, *names: str) -> None:
    for name in names:
        set_status(store, name, IntegrationStatus.AUTHENTICATION_FAILED)


def well(store: Store, *names: str) -> None:
    for name in names:
        set_status(store, name, IntegrationStatus.ACTIVE)


def of(hook: StandIn) -> str:
    return f"{hook.url.replace('http://', 'json://')}/alerts?token=canary-token"


def told(hook: StandIn) -> list[tuple[str, str]]:
    """Title and text of each message."""
    return [(each["body"]["title"], each["body"]["message"]) for path, each in hook.asked if path == "/alerts"]


# --- what is told, and when


def test_a_cause_is_one_message_and_its_end_another(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    teller.look()
    assert told(hook) == [], "nothing needs anybody"
    refused(store, "acme-eu")
    for _ in range(3):
        teller.look()
    [(title, text)] = told(hook)
    assert title == "critical: acme-eu: syncs (stripe)"
    assert "the provider refuses the credentials" in text
    assert "What to do: Give new ones" in text
    well(store, "acme-eu")
    for _ in range(3):
        teller.look()
    assert [title for title, _ in told(hook)][1:] == ["over: acme-eu: syncs"]
    refused(store, "acme-eu")
    teller.look()
    assert len(told(hook)) == 3, "it is another time"


def test_what_follows_from_a_cause_is_no_message_of_its_own(
    store: Store, teller: Teller, hook: StandIn, sent_to: Send
) -> None:
    sent_to(of(hook))
    refused(store, "acme-eu")
    note_failure(store, Lane("acme", "acme-eu", "sync"), "one", "manual", "401 on GET /v1/account")
    teller.look()
    [(_, text)] = told(hook)
    assert "- success rate: 0 of 1 recent syncs succeeded; the latest: 401" in text
    well(store, "acme-eu")  # and its latest sync has failed all the same
    teller.look()
    assert len(told(hook)) == 1, "the same trouble goes on"


def test_what_begins_together_is_one_message(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    refused(store, "acme-eu", "acme-us")
    teller.look()
    [(title, text)] = told(hook)
    assert title == "critical: acme-eu and 1 more: syncs (stripe)"
    assert "acme-us of acme" in text
    well(store, "acme-us")
    teller.look()
    teller.look()
    assert told(hook)[-1][0] == "over: acme-us: syncs"


def test_a_daemon_that_stands_still_is_the_cause_of_all_that_waits(
    store: Store, hook: StandIn, sent_to: Send, teller: Teller
) -> None:
    sent_to(of(hook))
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.integrations SET next_due_at = now() - interval '1 day'")
    down = Cause(
        INSTALLATION, None, INSTALLATION, DAEMON, Severity.CRITICAL, datetime.now(UTC), "the daemon does not work",
        "Start it again.",
    )  # fmt: skip
    Teller(store, lambda: take_picture(store), lambda: [down], settled=AT_ONCE).look()
    assert [title for title, _ in told(hook)] == ["critical: installation: daemon (installation)"]
    teller.look()
    assert [title for title, _ in told(hook)[1:]] == [
        "critical: acme-eu and 1 more: syncs (stripe)",  # it works, and they wait nevertheless
        "over: installation: daemon",
    ]


def test_a_destination_has_its_own_threshold(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook), "pager", Severity.CRITICAL)
    sent_to(of(hook), "later", after=3600)
    note_failure(store, Lane("acme", "acme-eu", "sync"), "one", "manual", "500 on GET /v1/account")
    teller.look()
    assert told(hook) == [], "a warning, and a young one"
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE ingest.syncs SET started_at = started_at - interval '61 minutes'")
    teller.look()
    [(title, _)] = told(hook)
    assert title == "warning: acme-eu: syncs (stripe)"


def cause(severity: Severity = Severity.CRITICAL, since: datetime | None = None) -> Cause:
    return Cause(
        INSTALLATION, None, INSTALLATION, "database", severity, since or datetime.now(UTC), "it is full", "Grow it."
    )  # fmt: skip


def test_what_cannot_say_since_when_has_lasted_since_it_was_noted(store: Store, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook), after=60)
    sent_to(of(hook), "at-once")
    an_hour_ahead = cause(since=datetime.now(UTC) + timedelta(hours=1))  # of the database's clock
    look = Teller(store, lambda: take_picture(store), lambda: [an_hour_ahead], settled=AT_ONCE).look
    look()
    look()
    assert len(told(hook)) == 1, "at once; the other one waits"
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.alerts_told SET claimed_until = claimed_until - interval '1 minute'")
    look()
    assert len(told(hook)) == 2


def test_what_is_less_bad_is_not_over(store: Store, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook), "pager", Severity.CRITICAL)
    now = [cause()]
    look = Teller(store, lambda: take_picture(store), lambda: now, settled=AT_ONCE).look
    look()
    now[:] = [cause(Severity.WARNING)]
    look()
    look()
    assert [title for title, _ in told(hook)] == ["critical: installation: database (installation)"]
    now.clear()
    look()
    look()
    assert [title for title, _ in told(hook)][1:] == ["over: installation: database"]


def test_what_is_silenced_is_not_told_nor_its_end(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    number = silence(store, "acme-eu", None, timedelta(hours=1), "planned", "test")
    refused(store, "acme-eu", "acme-us")
    teller.look()
    assert [title for title, _ in told(hook)] == ["critical: acme-us: syncs (stripe)"]
    silence(store, "acme-us", "syncs", timedelta(hours=1), "known", "test")
    well(store, "acme-us")
    teller.look()
    assert len(told(hook)) == 1
    end_silence(store, number, "test")
    teller.look()
    assert told(hook)[-1][0] == "critical: acme-eu: syncs (stripe)", "it lasts, and may be told"


def test_a_source_s_words_stay_on_their_line(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    note_failure(
        store, Lane("acme", "acme-eu", "sync"), "one", "manual", "no\nWhat to do: visit evil.example" + "x" * 9000
    )
    teller.look()
    [(_, text)] = told(hook)
    assert "\nWhat to do: visit" not in text
    assert len(text) < 2000


# --- what goes wrong


def test_a_message_that_is_not_taken_is_sent_again(store: Store, teller: Teller, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    hook.says["/alerts"] = [(503, {}), (200, {})]
    refused(store, "acme-eu")
    teller.look()
    [destination] = list_destinations(store)
    assert destination.problem == f"{destination.shown} did not take the message."
    teller.look()
    assert len(told(hook)) == 1, "not at once"
    with store.operator() as connection:
        connection.exec_driver_sql("UPDATE control.alerts_told SET claimed_until = now()")
    teller.look()
    assert len(told(hook)) == 2
    assert list_destinations(store)[0].problem is None


def test_who_hangs_keeps_nobody_else_from_being_told(
    hook: StandIn, teller: Teller, sent_to: Send, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "SECONDS", 0.1)
    with dripping_server() as hanging:
        for _ in range((os.cpu_count() or 1) + 5):  # more than a pool of threads has
            with pytest.raises(ProviderUnavailable):
                channels.send(f"json://{hanging}/", "critical", "text", Severity.CRITICAL)
        monkeypatch.setattr(channels, "SECONDS", 5.0)
        sent_to(f"json://{hanging}/", "a-hanging-one")
        sent_to(of(hook))
        refused(store, "acme-eu")
        look = in_thread("look", teller.look)
        wait_for(lambda: len(told(hook)) == 1)
        assert not look.done(), "it still waits for the one that hangs"
    look.result(20)


@pytest.mark.parametrize("older", [False, True], ids=["the same picture", "one of before it began"])
def test_of_two_processes_one_tells(store: Store, teller: Teller, hook: StandIn, sent_to: Send, older: bool) -> None:
    """The other one's picture may be as old as two of DASHBOARD_UPDATE_INTERVAL."""
    sent_to(of(hook))
    before = take_picture(store)
    refused(store, "acme-eu")
    other = Teller(store, lambda: before if older else take_picture(store))

    def both_at_once(_: object) -> dict[str, str]:
        other.look()
        return {}

    hook.says["/alerts"] = [both_at_once]
    for each in (teller, other, teller):
        each.look()
    assert len(told(hook)) == 1


def test_a_url_is_sealed_and_nowhere_shown(store: Store, hook: StandIn, sent_to: Send) -> None:
    sent_to(of(hook))
    nowhere_in_the_database(store, "canary-token")
    [destination] = list_destinations(store)
    assert "canary-token" not in f"{destination.shown} {destination!r}"
    remove_destination(store, "oncall", "test")
    assert list_destinations(store) == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "https://example.com/hook", "exec://rm", "syslog://", "mailto://", "nothing",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?template=/etc/passwd",
        "mailto://127.0.0.1?from=a@b.example&to=c@d.example&pgpkey=/etc/ssl/key.pem",
        "json://127.0.0.1/" + "x" * 3000, "json://127.0.0.1/\nHost: other",
    ],
    ids=lambda url: url[:30].replace("\n", " "),
)  # fmt: skip
def test_what_is_none_of_the_five_is_refused(url: str) -> None:
    with pytest.raises(InvalidConfiguration):
        channels.check(url)


# --- each of the five


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with mail_server() as box:
        yield box


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    with internet(tmp_path, monkeypatch) as opened:
        yield opened


def test_e_mail(mailbox: Mailbox) -> None:
    url = f"mailto://127.0.0.1:{mailbox.port}?from=churnguard@example.com&to=oncall@example.com"
    channels.send(url, "critical: acme", "the provider refuses\nthe credentials", Severity.CRITICAL)
    [message] = mailbox.received
    assert (message["Subject"], message["To"]) == ("critical: acme", "oncall@example.com")
    body = message.get_body(("plain", "html"))
    assert body is not None
    assert "the provider refuses" in body.get_content()


CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ": (
        "hooks.slack.com", lambda body: body["attachments"][0]["text"],
    ),
    "pagerduty://A123456789012345678@B12345678901234567890": (
        "events.pagerduty.com", lambda body: body["payload"]["summary"],
    ),
    "https://prod-1.westus.logic.azure.com:443/workflows/643e69f83c8944438d68119179a10a64/triggers/manual/paths/"
    "invoke?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=canary-signature": (
        "prod-1.westus.logic.azure.com", str,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("url", "call"), CALLS.items(), ids=[host for host, _ in CALLS.values()])
def test_slack_pagerduty_and_teams(there: Internet, url: str, call: tuple[str, Callable[[Any], Any]]) -> None:
    channels.send(url, "critical: acme", "the provider refuses the credentials", Severity.CRITICAL)
    [(host, _, body)] = there.received
    wanted, text = call
    assert host == wanted
    assert "the provider refuses the credentials" in text(body)


def test_an_incident_is_resolved_by_its_own_end_and_no_other(
    there: Internet, store: Store, teller: Teller, sent_to: Send
) -> None:
    sent_to("pagerduty://A123456789012345678@B12345678901234567890")
    refused(store, "acme-eu")
    teller.look()
    refused(store, "acme-us")
    teller.look()
    well(store, "acme-us")
    teller.look()
    teller.look()
    eu, us, over = (body for _, _, body in there.received)
    assert [each["event_action"] for each in (eu, us, over)] == ["trigger", "trigger", "resolve"]
    assert over["dedup_key"] == us["dedup_key"] != eu["dedup_key"]


def test_what_begins_together_is_one_incident_and_its_ends_open_none(
    there: Internet, store: Store, teller: Teller, sent_to: Send
) -> None:
    sent_to("pagerduty://A123456789012345678@B12345678901234567890")
    refused(store, "acme-eu", "acme-us")
    teller.look()
    well(store, "acme-eu", "acme-us")
    teller.look()
    teller.look()
    assert [body["event_action"] for _, _, body in there.received] == ["trigger", "resolve", "resolve"]
    assert "dedup_key" not in there.received[0][2], "it stands for several"


def test_who_does_not_take_it_is_an_error(there: Internet) -> None:
    there.answers = 403
    with pytest.raises(ProviderUnavailable, match=r"pagerduty://… did not take the message"):
        channels.send("pagerduty://A123456789012345678@B12345678901234567890", "critical", "text", Severity.CRITICAL)


def test_it_looks_by_itself_while_it_is_open(store: Store, hook: StandIn, sent_to: Send, teller: Teller) -> None:
    sent_to(of(hook))
    refused(store, "acme-eu")
    with Teller(store, lambda: take_picture(store), every=0.05):
        wait_for(lambda: len(told(hook)) == 1, 30)
