"""A stretch of an object's records, read by REST or, where they are many, by a job of Bulk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.connectors.salesforce.bulk import THRESHOLD, BulkReader, JobGone, NotInBulk
from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.connectors.salesforce.rest import RestReader, Row


@dataclass(frozen=True, slots=True)
class Stretch:
    """How far it is read. ``until``: the moment by Salesforce's clock up to which it holds all changes; ``after``: the
    id after which it goes on by REST; ``job``, ``locator``: where it goes on by Bulk; ``rest``: Bulk refuses it.

    ``absent_since``: of a whole read again, our clock at its begin.
    """

    until: str
    after: str | None = None
    job: str | None = None
    locator: str | None = None
    rest: bool = False
    absent_since: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}


Step = tuple[list[Row], Stretch | None]
"""Records, and what is left of the stretch once they are stored; None at its end."""


class StretchReader:
    def __init__(self, rest: RestReader, bulk: BulkReader) -> None:
        self._rest = rest
        self._bulk = bulk

    def read(
        self, about: Description, conditions: Sequence[str], stretch: Stretch, *, deleted: bool = False
    ) -> Iterator[Step]:
        """Each part as it comes. ``deleted``: with what is in the recycle bin."""
        left: Stretch | None = stretch
        while left is not None:
            way = self._by_job if left.job is not None else self._by_rest
            for step in way(about, conditions, left, deleted):
                left = step[1]
                yield step

    def _by_rest(self, about: Description, conditions: Sequence[str], left: Stretch, deleted: bool) -> Iterator[Step]:
        """Hands over to a job as soon as the first page says how many there are."""
        for page in self._rest.pages(about, conditions, left.after, deleted=deleted):
            if (page.total or 0) > THRESHOLD and about.in_bulk and not left.rest:
                try:
                    yield [], replace(left, job=self._job(about, conditions, left.after, deleted))
                    return
                except NotInBulk:
                    left = replace(left, rest=True)
            yield page.rows, replace(left, after=page.after) if page.after is not None else None

    def _by_job(self, about: Description, conditions: Sequence[str], left: Stretch, deleted: bool) -> Iterator[Step]:
        assert left.job is not None
        try:
            for part in self._bulk.parts(about, left.job, left.locator):
                if part.whole and part.locator is None:
                    self._bulk.end(left.job)
                    yield part.rows, None
                else:
                    left = replace(left, locator=part.locator) if part.whole else left
                    yield part.rows, left
        except JobGone:
            yield [], replace(left, job=None, locator=None)
        except NotInBulk:
            yield [], replace(left, job=None, locator=None, rest=True)

    def _job(self, about: Description, conditions: Sequence[str], after: str | None, deleted: bool) -> str:
        from_there = [*conditions, f"Id > {soql.quoted(after)}"] if after is not None else conditions
        return self._bulk.begin(soql.select(list(about.by_name), about.name, from_there), deleted=deleted)
