"""Rows of the change log are read as they were sent, or refused."""

from __future__ import annotations

import pytest

from churnguard_pipelines.connectors.postgresql import messages
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.mirrors import UNCHANGED

RELATION = b"\0\0\x40\0"


def row(*values: str | bytes | None) -> bytes:
    """Text, null, or the kind of a value that is not there."""
    written = [
        value if isinstance(value, bytes) else b"n" if value is None
        else b"t" + len(value.encode()).to_bytes(4, "big") + value.encode()
        for value in values
    ]  # fmt: skip
    return len(values).to_bytes(2, "big") + b"".join(written)


@pytest.mark.parametrize("name", ["Zoë", "Zoe"], ids=["unicode", "ascii"])
@pytest.mark.parametrize("long", ["x" * 300, ""], ids=["long", "empty"])
def test_an_update_tells_its_rows(name: str, long: str) -> None:
    new = b"N" + row("2", name, long, b"u")
    assert messages.rows(b"U" + RELATION + new, 4) == (None, False, ("2", name, long, UNCHANGED))
    key = b"K" + row("1", None, None, None)
    assert messages.rows(b"U" + RELATION + key + new, 4) == (
        ("1", None, None, None), False, ("2", name, long, UNCHANGED),
    )  # fmt: skip
    whole = b"O" + row("1", name, long, "y")
    assert messages.rows(b"U" + RELATION + whole + new, 4)[:2] == (("1", name, long, "y"), True)
    assert messages.rows(b"D" + RELATION + whole, 4) == (("1", name, long, "y"), True, None)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"I" + RELATION + b"K" + row("1", "a"), id="an insert of an old row"),
        pytest.param(b"D" + RELATION + b"N" + row("1", "a"), id="a deletion of a new row"),
        pytest.param(b"I" + RELATION + b"N" + row("1"), id="fewer values than columns"),
        pytest.param(b"I" + RELATION + b"N" + row("1", b"x"), id="a value of no kind"),
        pytest.param(b"I" + RELATION + b"N" + row("1", "abc")[:-1], id="a value that is cut"),
        pytest.param(b"I" + RELATION + b"N" + row("1", b"t\xff\xff\xff\xf0"), id="a size below zero"),
        pytest.param(b"U" + RELATION + b"K" + row("1", None), id="an update without its new row"),
    ],
)
def test_what_is_no_row_is_refused(message: bytes) -> None:
    with pytest.raises(Malformed):
        messages.rows(message, 2)
