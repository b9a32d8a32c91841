"""Makes text that others wrote safe where people or their tools read lines: logs, Dagster's pages, the audit log."""

from __future__ import annotations

import logging

MOST_SHOWN = 4_000
"""Characters of one message."""
MOST_LINES = 300
"""Of one exception. Its own words come last, and may be a stranger's."""


def on_one_line(text: str, most: int = MOST_SHOWN) -> str:
    """What is no printable character becomes its escape: nothing begins a line, moves a cursor or hides what stands
    beside it. No longer than ``most`` characters and a word on how many there were."""
    shown = text[:most]
    if not shown.isprintable():
        shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in shown)
    return shown if len(text) <= most else f"{shown}… ({len(text):,} characters)"


def as_code(text: str, most: int = MOST_SHOWN) -> str:
    """For Markdown, also within a table: a code span, in which nothing is markup, a link or an image. Its own signs and
    a table's are replaced by their likes; empty for an empty text."""
    shown = on_one_line(text, most).replace("`", "ˋ").replace("|", "¦")
    return f"`{shown}`" if shown.strip() else ""


class LineFormatter(logging.Formatter):
    """One message is one line, whoever's words are in it; of an exception every line is indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  its base's name
        record.message = on_one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802  its base's name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join(f"    {on_one_line(line)}" for line in lines[:MOST_LINES])
