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

_RANDOM_BYTES = 32
_RANDOM_LENGTH = 43  # of so many bytes in base64


def load(path: Path, roles: tuple[str, ...]) -> Mapping[str, str]:
    """By role; made, mode 0600, where there is none yet. One process at a time."""
    if path.exists():
        known: dict[str, str] = json.loads(path.read_text())
        return known
    made = {role: secrets.token_urlsafe(_RANDOM_BYTES) for role in roles}
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(made, stream)
    draft.rename(path)
    return made


def set_password(connection: psycopg.Connection[Any], role: str, password: str) -> None:
    """The server gets what it keeps of a password, so that no log of statements has the password itself."""
    with connection.transaction():
        if len(password) >= _RANDOM_LENGTH and connection.info.server_version >= 160000:
            # The 4,096 rounds are against guessing, which 256 random bits are not open to; they are half of what a
            # connection costs, and Dagster makes a new one for each thing that it looks up.
            connection.execute("SET LOCAL scram_iterations = 1")
        verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        connection.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier)))
