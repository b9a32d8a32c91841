"""What keeps a stream from getting on is said as long as it does, and ends what a person has to decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from churnguard_pipelines.store.control.streams import STREAMS
from churnguard_pipelines.store.ingest import stream_progress
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing import session as frame
from churnguard_pipelines.syncing.streams import managing, troubles, watermarks
from churnguard_pipelines.syncing.streams.kind import CustomStreams
from tests.conftest import settings_for
from tests.syncing.streams.conftest import Configure, Following, Rows, at_work, state_of
from tests.syncing.streams.logs import Log, LogSource, released
from tests.waiting import wait_for


@pytest.mark.parametrize("error", ["AuthenticationFailed", "SourceChanged", "InvalidConfiguration"])
@pytest.mark.parametrize("while_at_work", [True, False], ids=["at work", "at rest"])
def test_what_needs_somebody_fails_the_stream_with_reason_and_remedy(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, error: str, while_at_work: bool
) -> None:
    configure()
    log.append({"n": 1})
    if not while_at_work:
        log.fail(error)
    with following():
        if while_at_work:
            wait_for(lambda: len(rows()) == 1)
            log.fail(error)
        wait_for(lambda: state_of(store) == ("failed", "the log said so."))
        assert STREAMS.states(store, ["orders"])["orders"].remedy == "Ask the log."
        wait_for(lambda: not at_work(store))
        log.fail(None)
        log.append({"n": 2})
        managing.resume(store, "orders", actor="test")
        wait_for(lambda: len(rows()) == 2)


@pytest.mark.parametrize("error", ["AuthenticationFailed", "InvalidConfiguration"])
def test_a_source_that_refuses_for_a_moment_fails_no_stream(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, monkeypatch: pytest.MonkeyPatch,
    error: str,
) -> None:  # fmt: skip
    """As one does that is being restarted."""
    monkeypatch.setattr(troubles, "SURE_AFTER", 600.0)
    configure()
    with following():
        log.append({"n": 1})
        wait_for(lambda: len(rows()) == 1)
        log.fail(error)
        wait_for(lambda: state_of(store) == ("active", "the log said so."))
        log.fail(None)
        log.append({"n": 2})
        wait_for(lambda: len(rows()) == 2 and state_of(store) == ("active", None))


def test_a_source_that_is_away_is_tried_again_and_that_is_said(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store
) -> None:
    configure()
    log.append({"n": 1})
    with following():
        wait_for(lambda: len(rows()) == 1)
        log.fail("ProviderUnavailable")
        wait_for(lambda: state_of(store) == ("active", "the log said so."))
        log.append({"n": 2})
        log.fail(None)
        wait_for(lambda: len(rows()) == 2)
        wait_for(lambda: state_of(store) == ("active", None))


def test_a_source_that_is_back_is_read_at_once_however_long_it_was_away(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame, "FIRST_PAUSE", 3600.0)
    configure()
    log.append({"n": 1})
    with following():
        wait_for(lambda: len(rows()) == 1)
        log.fail("ProviderUnavailable")
        wait_for(lambda: state_of(store) == ("active", "the log said so.") and not at_work(store))
        log.append({"n": 2})
        log.fail(None)
        wait_for(lambda: len(rows()) == 2)
        wait_for(lambda: state_of(store) == ("active", None))


def test_why_a_stream_does_not_get_on_is_said_again_after_it_was_resumed(
    configure: Configure, following: Following, log: Log, store: Store
) -> None:
    """Nothing has changed for who tries it: it is still the same trouble."""
    configure()
    log.append({"n": 1})
    log.fail("ProviderUnavailable")
    with following():
        wait_for(lambda: state_of(store) == ("active", "the log said so."))
        managing.resume(store, "orders", actor="ann")
        wait_for(lambda: state_of(store) == ("active", "the log said so."))
        log.fail(None)
        wait_for(lambda: state_of(store) == ("active", None))


def test_a_process_that_begins_does_not_take_back_what_another_says(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has asked nobody yet."""
    configure()
    log.fail("ProviderUnavailable")
    known = CustomStreams(store)
    wait_for(lambda: not known.waiting() and state_of(store)[1] == "the log said so.")
    monkeypatch.setattr(watermarks.Watermarks, "look", lambda looking, streams: {})
    CustomStreams(store).waiting()
    assert state_of(store) == ("active", "the log said so.")


def test_a_source_that_hangs_does_not_slow_the_others(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermarks, "ANSWERS_WITHIN", 0.2)
    for number in range(12):
        configure(f"deaf-{number}", organization_id="deaf", hangs=True, checks=False)
    configure()
    configure("mine", checks=True)
    with following():
        log.append({"n": 1})
        wait_for(lambda: len(rows()) == len(rows(stream_id="mine")) == 1)
        wait_for(lambda: "has not answered" in str(state_of(store, "deaf-0")[1]))
        wait_for(lambda: all(state_of(store, f"deaf-{number}")[1] for number in range(12)))
        log.append({"n": 2})
        wait_for(lambda: len(rows()) == len(rows(stream_id="mine")) == 2)
        released.set()


def test_a_source_that_hangs_is_said_to_until_it_answers(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told to stop, and says so: that is no news of it."""
    monkeypatch.setattr(watermarks, "ANSWERS_WITHIN", 0.2)
    configure()
    log.append({"n": 1})
    kind, told = CustomStreams(store), list[str | None]()
    wait_for(kind.waiting)
    log.hang()

    def looked() -> bool:
        kind.waiting()
        told.append(state_of(store)[1])
        return log.stops > 2

    wait_for(looked)
    assert set(told) == {None, "its source has not answered for 0 s."}
    assert told.index("its source has not answered for 0 s.") == told.count(None), "it is said all the time"
    log.answer()
    wait_for(lambda: kind.waiting() and state_of(store) == ("active", None))


@pytest.mark.parametrize(("error", "state"), [("ProviderUnavailable", "active"), ("AuthenticationFailed", "failed")])
def test_why_a_source_tries_again_by_itself_is_told(
    configure: Configure, following: Following, log: Log, rows: Rows, store: Store, error: str, state: str
) -> None:
    config = {"source": "log", "folder": str(log.folder), "pushes": True, "tries_again": True}
    configure(connection_config=config)
    log.append({"n": 1})
    with following():
        wait_for(lambda: len(rows()) == 1)
        log.fail(error)
        wait_for(lambda: state_of(store) == (state, "the log said so."))
        log.fail(None)
        if state == "failed":
            managing.resume(store, "orders", actor="ann")
        wait_for(lambda: state_of(store) == ("active", None))
        log.append({"n": 2})
        wait_for(lambda: len(rows()) == 2)


def test_topics_that_name_nothing_yet_are_no_reason_to_be_silent(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    kind = CustomStreams(store)
    with monkeypatch.context() as empty:
        empty.setattr(LogSource, "watermarks", lambda source, stored: {})
        wait_for(lambda: not kind.waiting() and "nothing yet that its topics name" in str(state_of(store)[1]))
    wait_for(lambda: not kind.waiting() and state_of(store) == ("active", None))


def test_a_source_that_is_away_is_not_said_to_have_been_looked_at(
    configure: Configure, log: Log, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermarks, "KEEP_EVERY", 0.0)
    configure()
    kind = CustomStreams(store)
    wait_for(lambda: not kind.waiting() and stream_progress.lags(store, "orders"))
    log.fail("ProviderUnavailable")
    wait_for(lambda: not kind.waiting() and state_of(store)[1] is not None)
    (before,) = stream_progress.lags(store, "orders")
    kind.waiting()
    assert stream_progress.lags(store, "orders") == [before]
    log.fail(None)
    wait_for(lambda: not kind.waiting() and stream_progress.lags(store, "orders") != [before])


def test_a_process_without_the_key_says_so_and_fails_no_stream(
    configure: Configure, store: Store, tmp_path: Path
) -> None:
    configure(connection_config={"source": "log", "folder": str(tmp_path), "password": "canary"}, checks=False)
    other = Store.open(settings_for(tmp_path / "other", store.database_url))
    try:
        assert CustomStreams(other).waiting() == []
    finally:
        other.close()
    state, reason = state_of(store)
    assert state == "active"
    assert "key" in str(reason)
