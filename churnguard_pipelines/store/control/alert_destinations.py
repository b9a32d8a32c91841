"""Where alerts are sent: an operator's, sealed like secrets; and what is not to be sent for a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.errors import InvalidConfiguration, NotFound, SecretsUnreadable
from churnguard_pipelines.store.control import audit
from churnguard_pipelines.store.control.tables import alert_destinations as table
from churnguard_pipelines.store.control.tables import alert_silences as silences
from churnguard_pipelines.store.postgres.database import Store

_NOW = sa.func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class Destination:
    """``shown``: what may be shown of its URL; ``least_severity``: ``warning`` or ``critical``; ``after_seconds``: how
    long something has to last before it is told; ``problem``: why the latest message was not taken; ``added``: when,
    once it is."""

    destination_id: str
    shown: str
    least_severity: str
    after_seconds: int
    problem: str | None = None
    url: str = field(default="", repr=False)
    added: datetime | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """``subject``: an integration's or a stream's id, ``trouble``: a kind; None for any."""

    silence_id: int
    subject: str | None
    trouble: str | None
    until: datetime
    reason: str

    def covers(self, subject: str, trouble: str) -> bool:
        return self.subject in (None, subject) and self.trouble in (None, trouble)


def add_destination(store: Store, destination: Destination, actor: str) -> None:
    """Raises ``InvalidConfiguration`` if there is one of this id."""
    values = {
        "destination_id": destination.destination_id,
        "url_sealed": store.vault.seal(destination.url),
        "shown": destination.shown,
        "least_severity": destination.least_severity,
        "after_seconds": destination.after_seconds,
        "created_by": actor,
    }
    statement = insert(table).values(values).on_conflict_do_nothing().returning(table.c.destination_id)
    with store.operator() as connection:
        if connection.scalar(statement) is None:
            raise InvalidConfiguration(
                f"there is a destination {destination.destination_id!r} already.",
                remedy="Remove it, or choose another id.",
            )
        audit.record(connection, actor, "alerts.destination.add", destination.destination_id)


def list_destinations(store: Store) -> list[Destination]:
    """With their URLs opened; one that the key does not open has the reason in ``problem``, and none."""
    with store.operator() as connection:
        rows = connection.execute(sa.select(table).order_by(table.c.destination_id)).all()
    found = []
    for row in rows:
        url, problem = "", row.problem
        try:
            url = store.vault.open(row.url_sealed)
        except SecretsUnreadable as error:
            problem = error.message
        limits = row.least_severity, row.after_seconds
        found.append(Destination(row.destination_id, row.shown, *limits, problem, url, row.created_at))
    return found


def get_destination(store: Store, destination_id: str) -> Destination:
    """Raises ``NotFound``, or ``SecretsUnreadable`` if the key does not open its URL."""
    found = next((each for each in list_destinations(store) if each.destination_id == destination_id), None)
    if found is None:
        raise _unknown(destination_id)
    if not found.url:
        raise SecretsUnreadable(found.problem or "its URL cannot be opened.")
    return found


def remove_destination(store: Store, destination_id: str, actor: str) -> None:
    """Raises ``NotFound``."""
    with store.operator() as connection:
        if not connection.execute(sa.delete(table).where(table.c.destination_id == destination_id)).rowcount:
            raise _unknown(destination_id)
        audit.record(connection, actor, "alerts.destination.remove", destination_id)


def note_problem(store: Store, destination_id: str, problem: str | None) -> None:
    statement = sa.update(table).where(table.c.destination_id == destination_id)
    with store.operator() as connection:
        connection.execute(statement.where(table.c.problem.is_distinct_from(problem)).values(problem=problem))


def silence(store: Store, subject: str | None, trouble: str | None, length: timedelta, reason: str, actor: str) -> int:
    """Nothing of it is sent for so long; returns the silence's number."""
    values = {"subject": subject, "trouble": trouble, "until": _NOW + length, "reason": reason, "created_by": actor}
    with store.operator() as connection:
        number: int = connection.execute(
            sa.insert(silences).values(values).returning(silences.c.silence_id)
        ).scalar_one()
        audit.record(
            connection, actor, "alerts.silence", subject or "everything", {"trouble": trouble, "reason": reason}
        )
    return number


def list_silences(store: Store) -> list[Silence]:
    """Those that hold now, the first to end first."""
    columns = (silences.c.silence_id, silences.c.subject, silences.c.trouble, silences.c.until, silences.c.reason)
    statement = sa.select(*columns).where(silences.c.until > _NOW).order_by(silences.c.until)
    with store.operator() as connection:
        return [Silence(*row) for row in connection.execute(statement)]


def end_silence(store: Store, silence_id: int, actor: str) -> None:
    """Raises ``NotFound``."""
    ended = sa.update(silences).where(silences.c.silence_id == silence_id, silences.c.until > _NOW).values(until=_NOW)
    with store.operator() as connection:
        if not connection.execute(ended).rowcount:
            raise NotFound(f"there is no silence {silence_id}.", remedy="`churnguard alerts silences` lists them.")
        audit.record(connection, actor, "alerts.silence.end", str(silence_id))


def _unknown(destination_id: str) -> NotFound:
    return NotFound(
        f"there is no destination {destination_id!r}.", remedy="`churnguard alerts destinations` lists them."
    )
