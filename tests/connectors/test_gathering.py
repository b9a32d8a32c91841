"""What a change log's reader hands over: whole transactions while there are any, and a long one in parts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.connectors.sdk.gathering import Gathering
from churnguard_pipelines.mirrors import Change


def change(number: int) -> Change:
    return Change("users", "delete", number, key=(number,))


def test_what_has_come_of_the_next_transaction_waits_for_its_rest() -> None:
    gathering = Gathering()
    gathering.changes += [change(1), change(2)]
    gathering.transaction_ended()
    gathering.changes.append(change(3))
    assert gathering.take() == ([change(1), change(2)], True)
    gathering.changes.append(change(4))
    gathering.transaction_ended()
    assert gathering.take() == ([change(3), change(4)], True)


def test_a_transaction_that_is_alone_goes_in_parts_until_it_has_ended() -> None:
    gathering = Gathering()
    gathering.changes.append(change(1))
    assert gathering.take() == ([change(1)], False)
    gathering.changes.append(change(2))
    gathering.transaction_ended()
    gathering.changes.append(change(3))
    assert gathering.take() == ([change(2)], True)


@given(st.lists(st.sampled_from(("change", "end", "take"))))
def test_every_change_is_handed_over_once_in_order_and_whole_means_whole(steps: list[str]) -> None:
    gathering, ends, come, taken = Gathering(), {0}, 0, 0
    for step in [*steps, "take", "take"]:
        if step == "change":
            gathering.changes.append(change(come))
            come += 1
        elif step == "end":
            gathering.transaction_ended()
            ends.add(come)
        else:
            changes, whole = gathering.take()
            assert [each.version for each in changes] == list(range(taken, taken + len(changes)))
            taken += len(changes)
            assert taken in ends or not whole
    assert taken == come
