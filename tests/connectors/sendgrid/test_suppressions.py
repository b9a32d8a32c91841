"""Lists of suppressed addresses: 500 rows an answer, pages that shift, seconds with more, and removals that leave no
trace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from churnguard_pipelines.connectors.sendgrid.spans import Rows, Span, read_spans
from churnguard_pipelines.errors import ProviderUnavailable
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.records import Window
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.sendgrid.conftest import NOW, Row, errors_of, live, position, rows, sync
from tests.connectors.standin import Query, StandIn

BOUNCES = "/v3/suppression/bounces"
DAY = 86_400


class Bounces:
    """A list behind the stand-in; ``taken``: offsets at which, once, the first row is taken away."""

    def __init__(self, provider: StandIn) -> None:
        self.rows: dict[str, int] = {}
        self.taken: list[int] = []
        self.asked: list[Query] = []
        provider.says[BOUNCES] = [self._answer]

    def put(self, email: str, at: int) -> None:
        self.rows[email] = at

    def _answer(self, query: Query) -> list[Row]:
        self.asked.append(query)
        begin, end, offset, limit = (int(query[n][0]) for n in ("start_time", "end_time", "offset", "limit"))
        assert limit <= 500
        found = sorted(
            ((-at, email) for email, at in self.rows.items() if begin <= at <= end),
        )
        if offset in self.taken:
            self.taken.remove(offset)
            del self.rows[found[0][1]]
            found = found[1:]
        return [{"created": -at, "email": email, "reason": "550"} for at, email in found[offset : offset + limit]]


@pytest.fixture
def bounces(sendgrid: StandIn) -> Bounces:
    return Bounces(sendgrid)


def test_more_rows_than_an_answer_has_all_come(store: Store, bounces: Bounces) -> None:
    """In about as many calls as there are full answers, and without an offset."""
    for number in range(4000):
        bounces.put(f"{number}@example.com", NOW - 400 * DAY + number * 8000)
    assert errors_of(sync(store, "bounces")) == {}
    assert live(store, "bounces").keys() == bounces.rows.keys()
    assert {query["offset"][0] for query in bounces.asked} == {"0"}
    assert len(bounces.asked) < 4 * (4000 / 500)  # spans overlap as they are halved


def test_a_second_with_more_rows_than_an_answer_has_is_read_by_pages(store: Store, bounces: Bounces) -> None:
    for number in range(1200):
        bounces.put(f"{number}@example.com", NOW - DAY)
    bounces.put("other@example.com", NOW - DAY - 1)
    sync(store, "bounces")
    assert live(store, "bounces").keys() == bounces.rows.keys()


def test_a_row_that_is_taken_away_between_two_pages_hides_no_other(store: Store, bounces: Bounces) -> None:
    for number in range(1200):
        bounces.put(f"{number:04}@example.com", NOW - DAY)
    bounces.taken = [499]
    assert errors_of(sync(store, "bounces")) == {}
    assert live(store, "bounces").keys() >= bounces.rows.keys()


def test_rows_that_come_in_bursts_take_few_calls(bounces: Bounces) -> None:
    """A mailing bounces within minutes, then there is nothing for weeks."""
    times = [week * 7 * DAY + second for week in range(20) for second in range(0, 600, 2)]
    calls = 0

    def fetch(span: Span) -> Rows:
        nonlocal calls
        calls += 1
        found = [at for at in times if span.start <= at <= span.end]
        return Rows(found[:500], len(found) < 500 or span.seconds == 1, 0)

    found = [at for rows, _ in read_spans(fetch, [Span(0, 150 * DAY)], 500, 1) for at in rows.rows]
    assert sorted(found) == times
    assert calls < 150


def test_an_address_that_is_taken_off_the_list_is_gone_after_a_day(
    store: Store, bounces: Bounces, sendgrid: StandIn
) -> None:
    bounces.put("stays@example.com", NOW - 90 * DAY)
    bounces.put("leaves@example.com", NOW - 90 * DAY)
    sync(store, "bounces")
    del bounces.rows["leaves@example.com"]
    sendgrid.now = NOW + 3600
    sync(store, "bounces")
    assert "leaves@example.com" in live(store, "bounces")
    sendgrid.now = NOW + DAY + 1
    sync(store, "bounces")
    assert live(store, "bounces").keys() == {"stays@example.com"}
    assert rows(store, "bounces")["leaves@example.com"]["delete_kind"] == "inferred"


def test_an_address_that_comes_back_is_there_again(store: Store, bounces: Bounces, sendgrid: StandIn) -> None:
    bounces.put("ada@example.com", NOW - 90 * DAY)
    sync(store, "bounces")
    bounces.rows.clear()
    sendgrid.now = NOW + 2 * DAY
    sync(store, "bounces")
    assert live(store, "bounces") == {}
    bounces.put("ada@example.com", NOW + 2 * DAY)
    sendgrid.now = NOW + 2 * DAY + 60
    sync(store, "bounces")
    assert live(store, "bounces")["ada@example.com"]["created"] == datetime.fromtimestamp(NOW + 2 * DAY, UTC)


def test_a_later_sync_asks_for_what_is_new_and_an_hour_before(
    store: Store, bounces: Bounces, sendgrid: StandIn
) -> None:
    """Some appear in the list later than they are dated; the second that is running is left to the next sync."""
    sync(store, "bounces")
    bounces.asked.clear()
    bounces.put("late@example.com", NOW - 1800)
    sendgrid.now = NOW + 600
    sync(store, "bounces")
    (query,) = bounces.asked
    assert NOW - 3605 <= int(query["start_time"][0]) <= NOW - 3600
    assert NOW + 595 <= int(query["end_time"][0]) < NOW + 600
    assert live(store, "bounces").keys() == {"late@example.com"}


def test_a_whole_read_that_ended_early_goes_on_where_it_was(store: Store, bounces: Bounces, sendgrid: StandIn) -> None:
    for number in range(3000):
        bounces.put(f"{number}@example.com", NOW - 300 * DAY + number * 8000)
    answer, calls = sendgrid.says[BOUNCES][0], 0

    def breaks(query: Query) -> Any:
        nonlocal calls
        calls += 1
        return (403, {"errors": [{"message": "access forbidden"}]}) if calls == 6 else answer(query)

    sendgrid.says[BOUNCES] = [breaks]
    assert errors_of(sync(store, "bounces")).keys() == {"bounces"}
    stored = position(store, "bounces")["under_way"]
    assert stored["open"]
    before = len(live(store, "bounces"))
    bounces.asked.clear()
    assert errors_of(sync(store, "bounces")) == {}
    assert live(store, "bounces").keys() == bounces.rows.keys()
    assert before > 0
    anew, *since = sorted(int(query["end_time"][0]) for query in bounces.asked)[::-1]
    assert anew >= NOW - 5  # what came meanwhile
    assert max(since) <= max(end for _, end in stored["open"])


def test_a_read_that_is_taken_up_goes_on_to_the_present(store: Store, bounces: Bounces, sendgrid: StandIn) -> None:
    """A sync that ends well has what there was when it began, however old the read is that it ends."""
    bounces.put("old@example.com", NOW - DAY)
    sync(store, "bounces")
    _breaks_off(store, bounces, sendgrid, NOW + 600)
    bounces.put("new@example.com", NOW + 2 * 3600)
    sendgrid.now = NOW + 3 * 3600
    assert errors_of(sync(store, "bounces")) == {}
    assert live(store, "bounces").keys() >= {"old@example.com", "new@example.com"}


def test_a_full_sync_is_full_though_a_read_of_what_is_new_was_under_way(
    store: Store, bounces: Bounces, sendgrid: StandIn
) -> None:
    bounces.put("leaves@example.com", NOW - 90 * DAY)
    sync(store, "bounces")
    del bounces.rows["leaves@example.com"]
    _breaks_off(store, bounces, sendgrid, NOW + 600)
    assert errors_of(sync(store, "bounces", mode=DataSyncMode.FULL)) == {}
    assert "leaves@example.com" not in live(store, "bounces")


def _breaks_off(store: Store, bounces: Bounces, sendgrid: StandIn, now: int) -> None:
    """A sync of what is new ends in its midst."""
    for number in range(1200):
        bounces.put(f"{number}@example.com", now - 60 - number % 300)
    answer = sendgrid.says[BOUNCES][0]
    sendgrid.now = now
    sendgrid.says[BOUNCES] = [*[answer] * 4, (403, {"errors": [{"message": "access forbidden"}]})]
    assert errors_of(sync(store, "bounces")).keys() == {"bounces"}
    assert position(store, "bounces")["under_way"]["open"]
    sendgrid.says[BOUNCES] = [answer]


def test_an_address_that_bounces_again_while_all_are_read_is_not_gone(
    store: Store, bounces: Bounces, sendgrid: StandIn
) -> None:
    """It has left the time at which it was, for the second that runs."""
    bounces.put("again@example.com", NOW - DAY)
    sync(store, "bounces")
    sendgrid.now = NOW + 60
    answer = sendgrid.says[BOUNCES][0]

    def bounces_again(query: Query) -> Any:
        bounces.put("again@example.com", NOW + 60)
        return answer(query)

    sendgrid.says[BOUNCES] = [bounces_again]
    assert errors_of(sync(store, "bounces", mode=DataSyncMode.FULL)) == {}
    assert live(store, "bounces").keys() == {"again@example.com"}


def test_a_list_that_does_not_heed_what_is_asked_is_an_error_and_no_endless_loop(
    store: Store, sendgrid: StandIn
) -> None:
    """The same full page, whatever the time and the offset."""
    sendgrid.says[BOUNCES] = [[{"created": NOW - 5, "email": f"{number}@example.com"} for number in range(500)]]
    errors = errors_of(sync(store, "bounces", "blocks"))
    assert errors.keys() == {"bounces"}
    assert "changes while it is read" in errors["bounces"]


def test_a_window_reads_only_what_was_put_there_in_it(store: Store, bounces: Bounces) -> None:
    bounces.put("old@example.com", NOW - 90 * DAY)
    bounces.put("in@example.com", NOW - 60 * DAY)
    start, end = (datetime.fromtimestamp(NOW - days * DAY, UTC) for days in (70, 50))
    sync(store, "bounces", window=Window(start, end))
    assert live(store, "bounces").keys() == {"in@example.com"}


def test_everything_is_read_again_when_that_is_asked_for(store: Store, bounces: Bounces, sendgrid: StandIn) -> None:
    bounces.put("ada@example.com", NOW - DAY)
    sync(store, "bounces")
    bounces.rows.clear()
    sendgrid.now = NOW + 5
    sync(store, "bounces", mode=DataSyncMode.FULL)
    assert live(store, "bounces") == {}


def test_an_error_of_a_span_ends_the_reading() -> None:
    def fetch(span: Span) -> Rows:
        raise ProviderUnavailable("no")

    with pytest.raises(ProviderUnavailable):
        list(read_spans(fetch, [Span(0, 10)], 500, 4))
