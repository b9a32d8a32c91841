"""Declares an object's columns in a line per type."""

from __future__ import annotations

from churnguard_pipelines.records import Column, ColumnType


def columns(within: str = "", **kinds: str) -> tuple[Column, ...]:
    """``TEXT="a b=c"`` -> text columns ``a``, and ``b`` whose value is found as ``c``, in the order given; all inside
    of ``within``."""
    return tuple(
        Column(name, ColumnType[kind], f"{within}{path or name}" if within or path else None)
        for kind, names in kinds.items()
        for name, _, path in (item.partition("=") for item in names.split())
    )
