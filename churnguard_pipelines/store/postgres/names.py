"""Names in the warehouse for what others have named: readable, as long as PostgreSQL allows, no two alike."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from itertools import count

LONGEST_NAME = 63
"""Bytes, as PostgreSQL is built everywhere."""


def readable(*parts: str, longest: int = LONGEST_NAME, unique: str | None = None) -> str:
    """``acme_crm_invoice_c``: lower-case letters, digits and underscores.

    Cut to ``longest`` with a digest so that no two are cut to the same. What reads alike is told apart by ``unique``,
    with which it gets a digest in any case.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", "_".join(parts).lower()).strip("_")
    if unique is None and len(plain) <= longest:
        return plain
    digest = hashlib.sha256(" ".join((*parts, unique or "")).encode()).hexdigest()[:8]
    return f"{plain[: longest - 9]}_{digest}"


def free(name: str, taken: Collection[str], prefix: str = "source_") -> str:
    """As it is, else with ``source_`` in front, else numbered: many long names begin alike."""
    for wanted in (_cut(name, ""), f"{prefix}{name}", f"{prefix}{prefix}{name}"):
        if wanted not in taken and len(wanted.encode()) <= LONGEST_NAME:
            return wanted
    return next(wanted for number in count(2) if (wanted := _cut(name, f"_{number}")) not in taken)


def _cut(name: str, ending: str) -> str:
    shown = name.replace("\0", "\u2400").encode()
    return shown[: LONGEST_NAME - len(ending)].decode(errors="ignore") + ending
