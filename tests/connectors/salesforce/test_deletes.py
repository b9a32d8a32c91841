"""What is deleted, brought back and merged at Salesforce."""

from __future__ import annotations

from datetime import timedelta

from tests.connectors.salesforce.conftest import Reader
from tests.connectors.salesforce.org import Org, refusal
from tests.engine.loopback import Answer, Asked


def test_what_goes_to_the_recycle_bin_is_deleted_softly(org: Org, reader: Reader) -> None:
    key = org.add("Account", Name="Acme")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", key)
    reader.later()
    assert reader.kinds() == {key: "soft"}


def test_what_is_purged_is_found_in_the_log_of_deletions(org: Org, reader: Reader) -> None:
    """No query tells of it any more."""
    key, other = org.add("Account", Name="Acme"), org.add("Account", Name="Stays")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", key, purge=True)
    reader.later()
    assert reader.kinds() == {key: "hard"}
    assert reader.alive().keys() == {other}


def test_a_record_that_went_with_its_parent_is_found_though_no_stamp_moved(org: Org, reader: Reader) -> None:
    key = org.add("Account", Name="Child")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", key)
    org.records["Account"][key] |= {"SystemModstamp": "2026-01-01T00:00:00.000+0000"}
    reader.later()
    assert reader.kinds() == {key: "soft"}


def test_what_is_brought_back_is_there_again(org: Org, reader: Reader) -> None:
    key = org.add("Account", Name="Acme")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", key)
    reader.later()
    org.change("Account", key, IsDeleted=False)
    reader.later()
    assert reader.kinds() == {}
    assert reader.alive().keys() == {key}


def test_a_merged_record_says_that_it_was_merged(org: Org, reader: Reader) -> None:
    winner, loser = org.add("Account", Name="Acme"), org.add("Account", Name="ACME Inc.")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", loser, into=winner)
    org.change("Account", winner, Industry="Energy")
    reader.later()
    assert reader.kinds() == {loser: "merged"}
    assert reader.alive()[winner]["industry"] == "Energy"


def test_the_log_is_asked_for_whole_minutes_that_are_more_than_one_apart(org: Org, reader: Reader) -> None:
    """It ignores seconds, and refuses a window of a minute or less."""
    reader.sync()
    for _ in range(4):
        reader.later(seconds=50)
    spans = [asked.query for asked in org.asked("/deleted/")]
    assert spans
    assert all(span["start"][0].endswith(":00+00:00") and span["end"][0].endswith(":00+00:00") for span in spans)
    assert not [asked for asked in org.asked("/deleted/") if asked.query["start"] == asked.query["end"]]


def test_no_minute_of_the_log_is_left_out_between_syncs(org: Org, reader: Reader) -> None:
    keys = [org.add("Account", Name=str(number)) for number in range(6)]
    reader.sync()
    for key in keys:
        org.passes(seconds=95)
        org.delete("Account", key, purge=True)
        reader.later(seconds=1)
    reader.later()
    assert reader.kinds() == dict.fromkeys(keys, "hard")


def test_more_than_fifteen_days_without_a_sync_compare_all_records(org: Org, reader: Reader) -> None:
    """The log goes back no further."""
    gone, stays = org.add("Account", Name="Gone"), org.add("Account", Name="Stays")
    reader.sync()
    org.passes(minutes=10)
    org.delete("Account", gone, purge=True)
    org.passes(days=16)
    org.log_begins = org.now - timedelta(days=15)
    reader.later()
    assert reader.kinds() == {gone: "inferred"}
    assert reader.alive().keys() == {stays}


def test_a_log_that_was_emptied_early_compares_all_records(org: Org, reader: Reader) -> None:
    """A large one is purged every two hours: ``earliestDateAvailable`` is after where we stand."""
    gone, stays = org.add("Account", Name="Gone"), org.add("Account", Name="Stays")
    reader.sync()
    org.passes(minutes=10)
    del org.records["Account"][gone]
    org.log_begins = org.now
    reader.later()
    assert reader.kinds() == {gone: "inferred"}
    assert reader.alive().keys() == {stays}


def test_more_ids_than_the_log_gives_at_once_come_in_shorter_windows(org: Org, reader: Reader) -> None:
    keys = [org.add("Account", Name=str(number)) for number in range(4)]
    reader.sync()
    for key in keys:
        org.passes(minutes=10)
        org.delete("Account", key, purge=True)

    def too_many(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/deleted/"):
            return None
        start, end = (asked.query[which][0] for which in ("start", "end"))
        found = [at for object, _, at in org.purged if start <= at.isoformat() < end]
        return refusal("EXCEEDED_ID_LIMIT", 400, "exceeded id limit of 600000") if len(found) > 1 else None

    org.overrides = [too_many]
    reader.later()
    assert reader.kinds() == dict.fromkeys(keys, "hard")


def test_more_ids_than_the_log_gives_within_two_minutes_compare_all_records(org: Org, reader: Reader) -> None:
    gone, stays = org.add("Account", Name="Gone"), org.add("Account", Name="Stays")
    reader.sync()
    org.delete("Account", gone, purge=True)

    def too_many(asked: Asked) -> Answer | None:
        return refusal("EXCEEDED_ID_LIMIT") if asked.path.endswith("/deleted/") else None

    org.overrides = [too_many]
    reader.later()
    assert reader.kinds() == {gone: "inferred"}
    assert reader.alive().keys() == {stays}


def test_where_the_log_stops_early_the_next_sync_goes_on_there(org: Org, reader: Reader) -> None:
    key = org.add("Account", Name="Acme")
    reader.sync()
    org.passes(minutes=30)
    org.delete("Account", key, purge=True)
    covered = (org.now - timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    def behind(asked: Asked) -> Answer | None:
        if not asked.path.endswith("/deleted/"):
            return None
        told = org._deleted("Account", asked.query)
        told.body = told.body.replace(
            told.body[told.body.rindex(b"latestDateCovered") :], b'latestDateCovered": "' + covered.encode() + b'"}'
        )
        return told if asked.query["start"][0] < covered else Answer(500)

    org.overrides = [behind]
    reader.later()
    assert reader.position()["deleted_until"][:16] == covered[:16]
    org.overrides = []
    reader.later()
    assert reader.kinds() == {key: "hard"}


def test_an_object_that_says_it_is_logged_and_is_not_is_compared_every_week(org: Org, reader: Reader) -> None:
    gone = org.add("Account", Name="Gone")
    refused = refusal("INVALID_TYPE_FOR_OPERATION", 400, "entity type Account is not replicatable")
    org.overrides = [lambda asked: refused if asked.path.endswith("/deleted/") else None]
    reader.sync()
    del org.records["Account"][gone]
    reader.later()
    assert reader.later(hours=1).objects["Account"].counts.read == 0
    assert len(org.asked("/deleted/")) == 1
    reader.later(days=7)
    assert reader.kinds() == {gone: "inferred"}


def test_an_object_whose_deletions_nothing_tells_is_compared_every_week(org: Org, reader: Reader) -> None:
    org.not_replicateable.add("Account")
    gone = org.add("Account", Name="Gone")
    reader.sync()
    del org.records["Account"][gone]
    reader.later(days=6)
    assert reader.kinds() == {}
    reader.later(days=1)
    assert reader.kinds() == {gone: "inferred"}
    assert not org.asked("/deleted/")
