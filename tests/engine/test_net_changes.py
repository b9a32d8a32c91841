"""However often rows change, move their keys and leave values unsaid, their net change gives the source's rows."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from churnguard_pipelines.engine.net_changes import collapse
from churnguard_pipelines.mirror_types import Base, MirrorType
from churnguard_pipelines.mirrors import UNCHANGED, Change, Mirror, MirrorColumn, Values

COLUMNS = tuple(MirrorColumn(name, MirrorType(Base.TEXT), name) for name in ("id", "plan", "body"))
MIRROR = Mirror("raw_users", "users", COLUMNS, ("id",))
KEYS = st.integers(0, 5)
ACTIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.text(max_size=3)),
    st.tuples(st.just("update"), KEYS, st.text(max_size=3)),  # leaves the large value alone
    st.tuples(st.just("move"), KEYS, KEYS),  # that, too
    st.tuples(st.just("delete"), KEYS, st.none()),
    st.tuples(st.just("truncate"), st.just(0), st.none()),
)

Rows = dict[Values, tuple[Any, ...]]


def told(rows: Rows, version: int, action: str, key: int, value: Any) -> Change | None:
    """What the change log says of this action on the source's rows, which it changes."""
    here = (key,)
    if action == "truncate":
        rows.clear()
        return Change("users", "truncate", version)
    if action == "put":
        rows[here] = (key, value, f"large {version}")
        return Change("users", "upsert", version, rows[here])
    if here not in rows:
        return None
    if action == "delete":
        del rows[here]
        return Change("users", "delete", version, key=here)
    _, plan, body = rows[here]
    if action == "update":
        rows[here] = (key, value, body)
        return Change("users", "upsert", version, (key, value, UNCHANGED))
    if (value,) in rows:
        return None
    del rows[here]
    rows[value,] = (value, plan, body)
    return Change("users", "upsert", version, (value, plan, UNCHANGED), key=here)


def stored(before: Rows, changes: list[Change], source: Rows) -> Rows:
    """What the warehouse makes of them: it keeps what is unchanged, and asks the source for what it cannot know."""
    after = dict(before)
    net = collapse(changes, MIRROR)
    if net.truncated is not None:
        after.clear()
    for key in net.gone:
        after.pop(key, None)
    after.update((row[:1], row) for _, row in net.whole)
    for _, row in net.partial:
        kept = after[row[:1]]
        after[row[:1]] = tuple(old if new is UNCHANGED else new for new, old in zip(row, kept, strict=True))
    after.update((key, source[key]) for key in net.orphaned)
    return after


@given(st.lists(ACTIONS, max_size=30), st.lists(ACTIONS, max_size=30))
def test_the_net_change_gives_the_sources_rows(earlier: list[Any], later: list[Any]) -> None:
    source: Rows = {}
    for version, action in enumerate(earlier):
        told(source, version, *action)
    before = dict(source)
    changes = [change for version, action in enumerate(later, 100) if (change := told(source, version, *action))]
    assert stored(before, changes, source) == source
