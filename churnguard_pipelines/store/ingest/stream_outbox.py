"""What people have for a stream's server, which only the session that is connected to it can tell it.

At least once: it stays here until it has left us, so that a session that dies in between has it sent again. Bounded in
number, in size and in age: what nobody could send for so long is not what the server should hear now.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from churnguard_pipelines.errors import TooBusy
from churnguard_pipelines.store.ingest.tables import stream_outbox
from churnguard_pipelines.store.postgres.database import Store

MOST = 1000
MOST_BYTES = 16 * 2**20
"""Messages of a stream that wait, and what they take together as they are kept."""
AGE = timedelta(hours=1)
AT_ONCE = 100

_columns = stream_outbox.c
_too_old = _columns.created_at < sa.func.clock_timestamp() - AGE


def put(store: Store, organization_id: str, stream_id: str, message: str) -> None:
    """Raises ``TooBusy`` where too many wait."""
    own = _columns.organization_id == organization_id, _columns.integration_id == stream_id
    with store.organization(organization_id) as connection:
        connection.execute(sa.delete(stream_outbox).where(*own, _too_old))
        size = sa.func.coalesce(sa.func.sum(sa.func.octet_length(_columns.message)), 0)
        waiting, taken = connection.execute(sa.select(sa.func.count(), size).where(*own)).one()
        sealed = store.vault.seal(message)  # it may be what signs in
        if waiting >= MOST or taken + len(sealed) > MOST_BYTES:
            raise TooBusy(
                f"{waiting:,} messages of {taken / 2**20:.1f} MiB wait to be sent already.",
                integration_id=stream_id,
                remedy="`churnguard streams show` says whether the stream is connected; send again when it is.",
            )
        values = {"organization_id": organization_id, "integration_id": stream_id, "message": sealed}
        connection.execute(sa.insert(stream_outbox).values(values))


def waiting(store: Store, organization_id: str, stream_id: str) -> Sequence[tuple[int, str]]:
    """Some with their numbers, in the order in which they came; none that is too old.
    Raises ``SecretsUnreadable``."""
    own = _columns.organization_id == organization_id, _columns.integration_id == stream_id
    statement = sa.select(_columns.id, _columns.message).where(*own, ~_too_old).order_by(_columns.id).limit(AT_ONCE)
    with store.organization(organization_id) as connection:
        return [(row.id, store.vault.open(row.message)) for row in connection.execute(statement)]


def sent(store: Store, organization_id: str, number: int) -> None:
    with store.organization(organization_id) as connection:
        connection.execute(sa.delete(stream_outbox).where(_columns.id == number))


def forget(connection: Connection, organization_id: str, stream_id: str) -> None:
    own = _columns.organization_id == organization_id, _columns.integration_id == stream_id
    connection.execute(sa.delete(stream_outbox).where(*own))
