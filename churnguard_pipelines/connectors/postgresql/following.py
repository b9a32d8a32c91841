"""Decides whether a PostgreSQL table can be published: it must never make the application's own writes fail, and the
change log must name the rows by the key that we know them by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import Identifier

GENERATED_ARE_PUBLISHED = 180_000
"""The first version that can publish stored generated columns, and the first that lets an UPDATE fail whose replica
identity has one that is not published."""


@dataclass(frozen=True, slots=True)
class Key:
    """A unique index over columns that are not null, as a row of the catalogue."""

    index: str
    primary: bool
    identity: bool
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table that holds rows: a partition, or the table itself. ``identity``: its ``relreplident``. ``file``: its
    number. ``joined``: by which changes of the catalogue it became a partition. ``readable``: by itself."""

    schema: str
    name: str
    oid: int
    kind: str
    unlogged: bool
    identity: str
    file: int
    joined: str
    readable: bool

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.schema, self.name)


def chosen_key(
    identity: str, keys: Sequence[Key], leaves: Sequence[Leaf], keys_of: Mapping[int, Sequence[Key]]
) -> Key | None:
    """The key that every leaf logs; if there is none, the one that a reader takes."""
    usable = [key for key in keys if key.identity or key.primary or identity != "i"]
    logged = [key for key in usable if all(_logs(leaf, keys_of.get(leaf.oid, ()), key) for leaf in leaves)]
    return next(iter([*logged, *usable]), None)


def unfollowable(
    quoted: str,
    key: Key | None,
    leaves: Sequence[Leaf],
    keys_of: Mapping[int, Sequence[Key]],
    unpublished: Sequence[str],
    version: int,
) -> str | None:
    """Why not, and the statement that would change it. ``unpublished``: the generated columns that no log carries."""
    return next(_obstacles(quoted, key, leaves, keys_of, unpublished, version), None)


def _obstacles(
    quoted: str,
    key: Key | None,
    leaves: Sequence[Leaf],
    keys_of: Mapping[int, Sequence[Key]],
    unpublished: Sequence[str],
    version: int,
) -> Iterator[str]:
    for leaf in leaves:
        name = leaf.identifier.as_string(None)
        if leaf.kind == "f":
            yield f"{_subject(name, quoted)} is a foreign table: another server keeps its changes."
        if leaf.unlogged:
            yield f"{_subject(name, quoted)} is unlogged. `ALTER TABLE {name} SET LOGGED` would change that."
    if key is None:
        yield f"it has no key. `ALTER TABLE {quoted} ADD PRIMARY KEY (…)` would change that."
        return
    if generated := [column for column in key.columns if column in unpublished]:
        yield f"its key has the generated column {generated[0]}, which the change log does not carry."
    for leaf in leaves:
        name, subject = leaf.identifier.as_string(None), _subject(leaf.identifier.as_string(None), quoted)
        if leaf.identity == "f" and unpublished and version >= GENERATED_ARE_PUBLISHED:
            yield (
                f"{subject} has the replica identity FULL and a generated column, {unpublished[0]}, that cannot be "
                f"published: its updates would fail. {_remedy(name, keys_of.get(leaf.oid, ()))}"
            )
        if not _logs(leaf, keys_of.get(leaf.oid, ()), key):
            told = {"n": "NOTHING", "d": "that of a primary key, which it does not have"}.get(leaf.identity)
            if leaf.identity == "d" and any(each.primary for each in keys_of.get(leaf.oid, ())):
                told = "that of another key"
            yield (
                f"the replica identity of {subject} is {told or 'an index that is gone or lacks key columns'}. "
                f"{_remedy(name, keys_of.get(leaf.oid, ()))}"
            )


def _logs(leaf: Leaf, keys: Sequence[Key], key: Key) -> bool:
    """Whether what is logged of a row's former state tells its key."""
    if leaf.identity == "f":
        return True
    names = next((each for each in keys if (each.identity if leaf.identity == "i" else each.primary)), None)
    return leaf.identity != "n" and names is not None and set(key.columns) <= set(names.columns)


def _subject(name: str, quoted: str) -> str:
    return "it" if name == quoted else f"its partition {name}"


def _remedy(name: str, keys: Sequence[Key]) -> str:
    if any(key.primary for key in keys):
        return f"`ALTER TABLE {name} REPLICA IDENTITY DEFAULT` would change that."
    if keys:
        index = Identifier(keys[0].index).as_string(None)
        return f"`ALTER TABLE {name} REPLICA IDENTITY USING INDEX {index}` would change that."
    return f"`ALTER TABLE {name} ADD PRIMARY KEY (…)` would change that."
