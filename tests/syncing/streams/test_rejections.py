"""When a stream has rejected too much: never by a share that it may reject."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.syncing.streams.rejections import LEAST_LOOKED_AT, LOOKED_AT, LastMessages

BATCHES = st.lists(st.integers(0, 1500).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size))))


@given(batches=BATCHES, thousandths=st.integers(0, 1000))
def test_the_share_is_of_the_last_messages_and_exact_at_its_limit(
    batches: list[tuple[int, int]], thousandths: int
) -> None:
    last = LastMessages()
    for place, batch in enumerate(batches, start=1):
        last.add(*batch)
        newest = batches[:place]
        while sum(messages for messages, _ in newest[1:]) >= LOOKED_AT:
            newest = newest[1:]
        messages, rejected = (sum(each) for each in zip(*newest, strict=True))
        assert (last.messages, last.rejected) == (messages, rejected)
        share = Fraction(rejected, max(messages, LEAST_LOOKED_AT))
        assert last.exceed(thousandths / 1000) == (share > Fraction(thousandths, 1000))


@given(rejected=st.integers(0, 1000))
def test_as_many_as_may_be_rejected_are_no_reason_to_pause(rejected: int) -> None:
    last = LastMessages()
    last.add(1000, rejected)
    assert not last.exceed(rejected / 1000)
