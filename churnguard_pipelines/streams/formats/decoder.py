"""What a format is: bytes in, documents out, a batch at a time, as it is the hot path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple


class Decoded(NamedTuple):
    """What a message says. ``document``: any value that JSON knows; ``text``: the same as JSON text that PostgreSQL's
    ``jsonb`` takes as it stands, where the message came as such; None if it has to be written first."""

    document: Any
    text: str | None = None
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
        not have. Raises ``InvalidConfiguration``."""
