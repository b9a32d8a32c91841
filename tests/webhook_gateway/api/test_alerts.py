"""`/api/alerts`: an operator says where alerts go; nobody else, and nobody is shown it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from typer.testing import CliRunner, Result

from churnguard_pipelines.cli import alerts
from churnguard_pipelines.store.control.alert_destinations import list_silences
from churnguard_pipelines.store.control.api_keys import Role, create_key
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.standin import stand_in
from tests.webhook_gateway.api.conftest import Call, key_of, nowhere_in_the_database

DESTINATIONS, SILENCES = "/alerts/destinations", "/alerts/silences"
SECRET = "canary-token"


def oncall(url: str = f"json://127.0.0.1:9/hook?token={SECRET}") -> dict[str, object]:
    return {"destination_id": "oncall", "url": url, "least_severity": "critical", "after_seconds": 300}


def test_a_destination_is_added_shown_without_its_secret_and_removed(call: Call, store: Store) -> None:
    made = call("POST", DESTINATIONS, json=oncall())
    assert made.status_code == 201
    assert made.json()["shown"] == "json://127.0.0.1"
    listed = call("GET", DESTINATIONS)
    assert SECRET not in listed.text + made.text
    assert [(each["least_severity"], each["after_seconds"]) for each in listed.json()] == [("critical", 300)]
    nowhere_in_the_database(store, SECRET)
    assert call("POST", DESTINATIONS, json=oncall()).status_code == 422, "it is there already"
    assert call("DELETE", f"{DESTINATIONS}/oncall").status_code == 204
    assert call("DELETE", f"{DESTINATIONS}/oncall").status_code == 404


def test_what_is_no_destination_is_refused_without_repeating_it(call: Call) -> None:
    answer = call("POST", DESTINATIONS, json=oncall(f"exec://{SECRET}"))
    assert answer.status_code == 422
    assert SECRET not in answer.text


def test_a_test_message_is_sent_on_demand(call: Call) -> None:
    with stand_in() as hook:
        call("POST", DESTINATIONS, json=oncall(hook.url.replace("http", "json") + "/hook"))
        assert call("POST", f"{DESTINATIONS}/oncall/test").status_code == 204
        hook.says["/hook"] = [(500, {})]
        refused = call("POST", f"{DESTINATIONS}/oncall/test")
    assert [each["body"]["title"] for path, each in hook.asked] == ["Test", "Test"]
    assert refused.status_code == 422
    assert "did not take the message" in refused.text


def test_a_silence_begins_and_ends(call: Call) -> None:
    made = call("POST", SILENCES, json={"subject": "acme", "seconds": 3600, "reason": "planned"}).json()
    assert call("GET", SILENCES).json() == [made]
    assert call("DELETE", f"{SILENCES}/{made['silence_id']}").status_code == 204
    assert call("GET", SILENCES).json() == []


def test_a_silence_of_one_kind_is_one_of_its_trouble(call: Call, churnguard: object, store: Store) -> None:
    """Pages show kinds; what is told is the trouble that they are signs of."""
    call("POST", SILENCES, json={"subject": "acme", "trouble": "freshness", "seconds": 3600, "reason": "planned"})
    assert callable(churnguard)
    churnguard("silence", "acme", "--kind", "credentials")
    churnguard("silence", "acme", "--kind", "quota")
    assert sorted(str(each.trouble) for each in list_silences(store)) == ["quota", "syncs", "syncs"]


def test_it_is_for_operators(call: Call, store: Store) -> None:
    tenant, viewer = key_of(store, "acme"), create_key(store, "vic", actor="test", role=Role.VIEWER)
    for path in (DESTINATIONS, SILENCES):
        assert call("GET", path, key=tenant).status_code == 403
        assert call("GET", path, key=viewer).status_code == 200
    assert call("POST", DESTINATIONS, key=tenant, json=oncall()).status_code == 403
    assert call("POST", DESTINATIONS, key=viewer, json=oncall()).status_code == 403


# --- the same by the command line


@pytest.fixture
def churnguard(store: Store, monkeypatch: pytest.MonkeyPatch) -> object:
    key = store.settings.encryption_key
    assert key is not None
    monkeypatch.setenv("CHURNGUARD_HOME", str(store.settings.home))
    monkeypatch.setenv("CHURNGUARD_DATABASE_URL", store.database_url)
    monkeypatch.setenv("INTEGRATION_ENCRYPTION_KEY", key.get_secret_value())

    def run(*arguments: str, given: str = "") -> Result:
        return CliRunner().invoke(alerts.app, list(arguments), input=given, catch_exceptions=False)

    return run


def test_the_command_line_says_where_alerts_go(store: Store, churnguard: object) -> None:
    assert callable(churnguard)
    with stand_in() as hook:
        url = hook.url.replace("http", "json") + f"/hook?token={SECRET}"
        added = churnguard("add", "oncall", "-", "--after", "5", given=url)
        assert "Alerts go to oncall" in added.output
        listed = churnguard("destinations").output
        assert re.search(r"oncall +json://127\.0\.0\.1 +warning +5 min", listed)
        assert SECRET not in added.output + listed
        assert "took the message" in churnguard("test", "oncall").output
    assert [path for path, _ in hook.asked] == ["/hook", "/hook"], "once when it was added"
    silenced = churnguard("silence", "acme", "--hours", "2", "--reason", "planned").output
    [silence] = list_silences(store)
    assert silence.until - store.now() > timedelta(minutes=119)
    assert f"unsilence {silence.silence_id}" in silenced
    assert "planned" in churnguard("silences").output
    churnguard("unsilence", str(silence.silence_id))
    assert list_silences(store) == []
    assert "Nothing needs anybody" in churnguard("list").output
    assert "Nothing more is sent" in churnguard("remove", "oncall").output
