"""How every benchmark is run: a warm-up, then rounds that alternate between ours and the reference; medians."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from tests.statements import look_at

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``ours`` and ``reference`` in ``unit``; ``ratio`` = ours / reference, more is better."""

    area: str
    name: str
    unit: str
    ours: float
    reference: float | None
    reference_is: str | None
    ratio: float | None
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_mib: float | None = None


def without_the_tests_own_cost() -> None:
    """What tests look at in every statement is a twentieth of a quiet sync."""
    sa.event.remove(sa.Engine, "before_cursor_execute", look_at)


def compare(
    area: str,
    name: str,
    unit: str,
    amount: int,
    ours: Callable[[], float],
    reference: Callable[[], float],
    reference_is: str,
) -> Row:
    """``ours`` and ``reference`` do ``amount`` units of work and return the seconds it took."""
    ours(), reference()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        seconds[0].append(ours())
        seconds[1].append(reference())
    our_rate, reference_rate = (amount / statistics.median(side) for side in seconds)
    return Row(area, name, unit, our_rate, reference_rate, reference_is, our_rate / reference_rate)


def report(rows: list[Row], target: Path) -> None:
    """Print the table and write it as JSON."""
    table = Table("area", "name", "unit", box=None, pad_edge=False)
    for column in ("ours", "reference", "ratio", "p50 ms", "p99 ms", "peak MiB"):
        table.add_column(column, justify="right")
    table.add_column("reference is")
    for row in rows:
        table.add_row(
            row.area,
            row.name,
            row.unit,
            _figure(row.ours),
            "–" if row.reference is None else _figure(row.reference),
            "–" if row.ratio is None else f"{row.ratio:.2f}",
            "–" if row.p50_ms is None else f"{row.p50_ms:,.1f}",
            "–" if row.p99_ms is None else f"{row.p99_ms:,.1f}",
            "–" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
            row.reference_is or "–",
        )
    Console(width=160).print(table)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def peak_mib() -> float:
    """Of this process; a child's ``ru_maxrss`` has what its parent had in it."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


@contextmanager
def program(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Ends with the block."""
    started = subprocess.Popen(command, env=environment)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
