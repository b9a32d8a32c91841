"""How long the engine waits before it asks again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.engine.retry import RetryPolicy, parse_retry_after

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Fri, 01 May 2026 12:00:30 GMT", 30.0),
        ("Friday, 01-May-26 12:01:00 GMT", 60.0),  # RFC 850, which servers may still send
        ("Fri May  1 12:00:05 2026", 5.0),  # asctime, the same
        ("Fri, 01 May 2026 11:00:00 GMT", 0.0),  # already over
        ("Fri, 01 May 2026 14:00:00 +0200", 0.0),
        ("-3", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, NOW.timestamp()) == seconds


@given(st.integers(0, 4_102_444_800).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)))
def test_every_http_date_gives_the_time_until_then_and_never_less_than_none(moment: datetime) -> None:
    expected = max((moment - NOW).total_seconds(), 0.0)
    assert parse_retry_after(format_datetime(moment, usegmt=True), NOW.timestamp()) == expected


@given(st.text())
def test_nonsense_in_retry_after_is_no_word_rather_than_an_error(header: str) -> None:
    seconds = parse_retry_after(header, NOW.timestamp())
    assert seconds is None or seconds >= 0


@given(st.integers(1, 200), st.floats(0.01, 10), st.floats(0.01, 600))
def test_a_wait_is_within_its_full_jitter_range(retry: int, base: float, cap: float) -> None:
    wait = RetryPolicy(attempts=200, backoff_base=base, cap=cap).wait(retry)
    assert wait is not None
    assert 0 <= wait <= min(cap, base * 2.0 ** (retry - 1))


def test_the_range_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=5, backoff_base=0.5, cap=3.0, uniform=lambda _low, high: high)
    assert [policy.wait(retry) for retry in range(1, 7)] == [0.5, 1.0, 2.0, 3.0, 3.0, None]


def test_the_provider_s_own_word_replaces_the_backoff() -> None:
    policy = RetryPolicy(attempts=3, retry_after_cap=300)
    assert policy.wait(1, retry_after=42.0) == 42.0
    assert policy.wait(1, retry_after=300.0) == 300.0
    assert policy.wait(1, retry_after=301.0) is None, "a longer pause is not waited out inside a run"
    assert policy.wait(4, retry_after=1.0) is None


def test_without_attempts_there_is_no_retry() -> None:
    assert RetryPolicy(attempts=0).wait(1) is None
