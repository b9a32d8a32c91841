"""Live progress of syncs: each runs as a Dagster run in a child process, the ledger tells how far it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from churnguard_pipelines.cli.terminal import out

if TYPE_CHECKING:
    from churnguard_pipelines.orchestration.processes.children import SyncRequest
    from churnguard_pipelines.store.ingest.ledger import SyncReport
    from churnguard_pipelines.store.postgres.database import Store

POLL_SECONDS = 0.3


def run_with_progress(store: Store, requests: Sequence[SyncRequest], *, transient: bool = False) -> list[SyncReport]:
    """Run the syncs side by side and show a bar for each; returns their reports in the same order. ``transient``: the
    bars go when all have ended."""
    from churnguard_pipelines.orchestration.processes.children import started

    processes = [started(store, request) for request in requests]
    try:
        with _bars(transient) as progress:
            tasks = [progress.add_task(request.integration_id, **_idle()) for request in requests]
            while True:
                running = any(process.running for process in processes)
                for process, task in zip(processes, tasks, strict=True):
                    _update(progress, task, process.progress())
                if not running:
                    break
                time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            process.stop()
    return [process.report() for process in processes]


def _bars(transient: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[rows]:>8} rows {task.fields[rate]:>6}/s{task.fields[quota]}  {task.fields[doing]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=out,
        refresh_per_second=4,
        transient=transient,
    )


def _idle() -> dict[str, Any]:
    return {"total": None, "rows": "0", "rate": "–", "quota": "", "doing": "starting"}


def _update(progress: Progress, task: TaskID, report: SyncReport | None) -> None:
    if report is None:
        return
    rows = sum(item.counts.read for item in report.objects.values())
    elapsed = progress.tasks[task].elapsed or 0
    finished = [name for name, item in report.objects.items() if item.status in ("succeeded", "failed", "cancelled")]
    active = [name for name, item in report.objects.items() if item.status == "running"]
    expected = sum(item.expected or 0 for item in report.objects.values())
    progress.update(
        task,
        completed=rows if expected else len(finished),
        total=max(expected, rows) if expected else len(report.objects) or None,
        rows=f"{rows:,}",
        rate=f"{rows / elapsed:,.0f}" if elapsed > 1 else "–",
        quota=f"  quota left {report.quota_left:,.0f}" if report.quota_left is not None else "",
        doing=(", ".join(active) or report.status) + f" {len(finished)}/{len(report.objects)}",
    )
