"""What a format is: bytes in, documents out, a batch at a time, as it is the hot path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from churnguard_pipelines.engine import values
from churnguard_pipelines.engine.values import TypeMismatch
from churnguard_pipelines.store.ingest.rejected import deeper_than

DEEPEST = 250
"""Levels of objects and lists in a document. orjson writes no more than 254."""
MOST_VALUES = 1_000_000
"""In a document: a byte of a message can become a hundred of memory."""


class Decoded(NamedTuple):
    """What a message says. ``document``: any value that JSON knows, and ``Decimal`` for a number beyond a double;
    ``text``: the same as JSON that PostgreSQL's ``jsonb`` takes as it stands: a message that came as JSON is stored as
    it came, each number with all its digits. ``schema_id``: the registry's."""

    document: Any
    text: str
    schema_id: int | None = None


class Undecodable(NamedTuple):
    """Why a message is rejected, in words for a person. ``schema_id``: of the registry, if it named one."""

    reason: str
    schema_id: int | None = None


class Decoder(ABC):
    """One stream's format. One thread at a time."""

    @abstractmethod
    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        """As many as came, in their order. What one message is wrong in is told of that one; ``ProviderUnavailable`` is
        raised where a schema is not there yet or its registry does not answer: the whole batch is tried again."""

    @abstractmethod
    def check(self) -> None:
        """What can be told before a message came: schemas that cannot be read, mappings of fields that a schema does
        not have. Raises ``InvalidConfiguration``, and what the registry's client does."""


def written(document: Any, schema_id: int | None = None) -> Decoded | Undecodable:
    """Of a document that did not come as JSON."""
    try:
        if deeper_than(DEEPEST, document):
            return Undecodable(f"nested deeper than {DEEPEST} levels", schema_id)
        return Decoded(document, values.json_text(document), schema_id)
    except TypeMismatch as mismatch:
        return Undecodable(str(mismatch), schema_id)
