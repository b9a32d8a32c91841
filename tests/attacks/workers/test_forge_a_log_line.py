"""Texts that would begin a line of the log, hide one, or fill it: names, paths, providers' words, exceptions."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from churnguard_pipelines.foreign_text import MOST_LINES, MOST_SHOWN, LineFormatter, on_one_line

FORGED = "2026-11-25 12:00:00,000 INFO webhook_gateway.dashboard.edge: cg_admin POST /dashboard/graphql 200 1 ms"
ENDS = ("\n", "\r\n", "\r", "\x1b[2K\x1b[1A", "\x85", "\u2028", "\u202e", "\x0b", "\x00")
TEXTS = [*(f"x{end}{FORGED}" for end in ENDS), "x\ud800", "x" * 1_000_000]

PROGRAM = """
import logging, sys
from pathlib import Path
from tests.conftest import settings_for
from churnguard_pipelines.settings import start_logging
start_logging(settings_for(Path(sys.argv[1])))
text = Path(sys.argv[2]).read_text("utf-8", "surrogatepass")
log = logging.getLogger("churnguard_pipelines.test")
log.warning("%s: %s", "name", text)
try:
    raise ValueError(text)
except ValueError:
    log.exception("it broke")
logging.getLogger("uvicorn.error").warning(text)
"""


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[1:6]))
def test_one_message_is_one_line(tmp_path: Path, text: str) -> None:
    """In a process as ours are started, whoever logs."""
    with (tmp_path / "text").open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
        file.write(text)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path, tmp_path / "text"], capture_output=True, check=True
    )
    lines = ended.stderr.decode("utf-8").splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [lines[0], lines[1], lines[-1]]
    assert not any(line.startswith("2026-11-25 12:00:00,000") for line in lines)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < MOST_SHOWN + 200
    assert b"Traceback" in ended.stderr


def test_what_is_printable_stays_as_it_is() -> None:
    assert on_one_line("Zoë's `table` | 顧客 ☂") == "Zoë's `table` | 顧客 ☂"
    assert on_one_line("ab", most=1) == "a… (2 characters)"


def test_a_record_that_others_format_too_is_not_changed_for_them() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "%s", ("a\nb",), None)
    assert LineFormatter("%(message)s").format(record) == r"a\nb"
    assert record.getMessage() == "a\nb"


def test_an_exception_of_a_hundred_thousand_lines_does_not_fill_the_log() -> None:
    try:
        raise ValueError("x\n" * 100_000)
    except ValueError as error:
        said = LineFormatter().formatException((ValueError, error, error.__traceback__))
    assert "Traceback" in said
    assert said.count("\n") < MOST_LINES
