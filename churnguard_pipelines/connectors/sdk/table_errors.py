"""Turns what a database or a driver refuses for one table into an error about that table, so that the others go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from psycopg import errors

from churnguard_pipelines.errors import (
    ChurnGuardError,
    InvalidConfiguration,
    NotFound,
    PermissionMissing,
    ProviderMisbehaved,
    RequestRefused,
    SchemaConflict,
    TableInUse,
)
from churnguard_pipelines.mirrors import Change, SourceTable

TABLE_ERRORS = (
    InvalidConfiguration, NotFound, PermissionMissing, ProviderMisbehaved, RequestRefused, SchemaConflict, TableInUse,
)  # fmt: skip
"""Errors that, raised while one table is worked on, say something about that table."""

_OF_ALL = ("08", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that tell of the server, of other transactions, or of the moment."""
_INDEXING = ("_bt_check_third_page", "index_form_tuple", "index_form_tuple_context")
"""Where PostgreSQL finds a key too long; the same SQLSTATE tells of rows that are too wide."""
_MOST_KEYS = 30

_log = logging.getLogger(__name__)


@contextmanager
def table_errors(table: SourceTable, integration_id: str) -> Iterator[None]:
    """What goes wrong in here because of this table leaves as one of ``TABLE_ERRORS``.

    What would go wrong with any other table as well leaves as it is: a lost connection, a full disk, a deadlock.
    """
    try:
        yield
    except ChurnGuardError:
        raise
    except Exception as error:
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        if _concerns_all(cause):
            raise
        if isinstance(cause, psycopg.Error):
            raise _refused(table, cause, integration_id) from error
        _log.exception("%s: %s", integration_id, table.object)
        raise SchemaConflict(
            f"{table.object} cannot be mirrored: it holds what is not understood ({type(error).__name__}).",
            integration_id=integration_id,
            remedy="The log has the details.",
        ) from error


def unreadable(object: str, version: int, error: Exception) -> Change:
    """In place of a change whose values cannot be understood: the table is followed no more, the others go on."""
    _log.warning("a change of %s cannot be read", object, exc_info=error)
    return Change(object, "stopped", version, reason=f"a change of it cannot be read ({type(error).__name__}).")


def _concerns_all(error: BaseException | None) -> bool:
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError | MemoryError | sa.exc.SQLAlchemyError)
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_OF_ALL)


def _refused(table: SourceTable, error: psycopg.Error, integration_id: str) -> SchemaConflict:
    name, text = table.object, str(error).split("\n", 1)[0]
    remedy = f"Leave it out: `exclude: [{name}]` in sync_config."
    if isinstance(error, errors.TooManyColumns) and len(table.key) > _MOST_KEYS:
        what = f"the key of {name} has {len(table.key)} columns: PostgreSQL's indexes have 32 at most, two of ours"
    elif isinstance(error, errors.TooManyColumns):
        what = f"{name} has {len(table.columns):,} columns: a table in PostgreSQL has 1,600 at most, ours among them"
    elif isinstance(error, errors.ProgramLimitExceeded) and error.diag.source_function in _INDEXING:
        what = f"a key of {name} is longer than PostgreSQL's indexes hold: 2,704 bytes, two ids of ours among them"
    elif isinstance(error, errors.ProgramLimitExceeded):
        what = f"{name} is too large for PostgreSQL, which keeps 8,160 bytes of a row in one place: {text}"
    elif isinstance(error, errors.CardinalityViolation):
        what, remedy = f"two rows of {name} have one key", "Make its key unique in the source."
    elif isinstance(error, errors.NotNullViolation):
        what, remedy = f"a row of {name} lacks a value of its key", "Make its key NOT NULL in the source."
    elif isinstance(error, psycopg.DataError):
        what = f"a value of {name} does not fit its column: {text}"
        remedy = "The table may have been altered while it was read; the next sync looks again."
    else:
        what, remedy = f"{name} cannot be mirrored: {text}", "The next sync tries again."
    return SchemaConflict(f"{what}.", integration_id=integration_id, remedy=remedy)
