"""The passwords of a private PostgreSQL's logins: made by us, kept in a file that only we read.

Its socket would let in every process of the system user that we run as, and so whatever a tenant has us connect to.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal


def load(path: Path, roles: tuple[str, ...]) -> Mapping[str, str]:
    """By role; made, mode 0600, where there is none yet. One process at a time."""
    if path.exists():
        known: dict[str, str] = json.loads(path.read_text())
        return known
    made = {role: secrets.token_urlsafe(32) for role in roles}
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(made, stream)
    draft.rename(path)
    return made


def set_password(connection: psycopg.Connection[Any], role: str, password: str) -> None:
    """The server gets what it keeps of a password, so that no log of statements has the password itself."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier)))
