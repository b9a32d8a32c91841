"""The demo: two organizations on a simulated Stripe, synced, turned into MRR, held against the simulation's books."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
from rich.table import Table

from churnguard_pipelines.cli.progress import run_with_progress
from churnguard_pipelines.cli.terminal import err, out
from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import (
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
    SyncConfiguration,
)

if TYPE_CHECKING:
    from churnguard_pipelines.store.database import Store

ACTOR = "demo"
ORGANIZATIONS = (
    Organization(organization_id="acme", name="Acme Analytics", reporting_currency="usd"),
    Organization(organization_id="globex", name="Globex", reporting_currency="eur"),
)
MOVEMENTS = ("starting", "new", "expansion", "contraction", "churn", "reactivation", "ending")
START_TIMEOUT_SECONDS = 120


class Demo:
    """The simulated providers as a child process, and what the demo does with them. Use as a context manager."""

    def __init__(self, store: Store, *, living: bool) -> None:
        self._store = store
        self._folder = store.settings.home / "sandbox"
        self._living = living
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Demo:
        with out.status("Simulating 24 months of two SaaS businesses …"):
            self._start_sandbox()
        self._register()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)

    def first_sync(self) -> bool:
        """Sync both organizations, compute their MRR, print both beside the simulation's own counts and books.

        Returns whether everything agrees; while the business lives on, counts move and are not compared.
        """
        from churnguard_pipelines.orchestration.process import SyncRequest, compute_mrr_now

        reports = run_with_progress(self._store, [SyncRequest(item.organization_id) for item in ORGANIZATIONS])
        for report in reports:
            for name, item in report.objects.items():
                if item.error:
                    err.print(f"[red]✗[/red] {report.integration_id} {name}: {item.error}")
        with out.status("Computing MRR movements …"):
            compute_mrr_now(self._store, [item.organization_id for item in ORGANIZATIONS])
        agrees = [self._print_rows(), *(self._print_mrr(item) for item in ORGANIZATIONS)]
        return all(agrees) and all(report.status == "succeeded" for report in reports)

    def _start_sandbox(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._store.settings.home / "logs" / "sandbox.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        port = self._port()
        command = [
            sys.executable,
            "-m",
            "churnguard_pipelines.sandbox",
            "--port",
            str(port),
            "--state",
            str(self._folder),
        ]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command if self._living else [*command, "--freeze"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self._url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                if httpx.get(f"{self._url}/_books/acme/counts", timeout=5).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise ChurnGuardError("the simulated providers did not start.", remedy=f"See {log}.")

    def _port(self) -> int:
        """The port of the last start if it is still free: integrations keep pointing at it."""
        remembered = self._folder / "port.json"
        wanted = json.loads(remembered.read_text()) if remembered.exists() else 0
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        remembered.write_text(json.dumps(port))
        return port

    def _register(self) -> None:
        from churnguard_pipelines.store.integrations import add_integration, find_integration, replace_integration
        from churnguard_pipelines.store.organizations import add_organization

        for organization in ORGANIZATIONS:
            add_organization(self._store, organization, actor=ACTOR)
            name = organization.organization_id
            wanted = IntegrationConfiguration.model_validate(
                {
                    "integration_id": name,
                    "organization_id": name,
                    "integration_name": "Stripe (simulated)",
                    "integration_type": IntegrationType.PAYMENT,
                    "provider_name": "stripe",
                    "base_url": self._url,
                    "credentials": IntegrationCredentials.model_validate(
                        {"credential_type": "api_key", "api_key": f"rk_sandbox_{name}"}
                    ),
                    "sync_config": SyncConfiguration(
                        sync_frequency=60, requests_per_minute=60_000, concurrent_requests=4
                    ),
                }
            )
            known = find_integration(self._store, name)
            if known is None:
                add_integration(self._store, wanted, actor=ACTOR)
            elif known.base_url != wanted.base_url:
                replace_integration(self._store, wanted, actor=ACTOR)

    def _print_rows(self) -> bool:
        from churnguard_pipelines.connectors import connector
        from churnguard_pipelines.store.warehouse import Warehouse

        names = [item.name for item in connector("stripe").objects]
        table = Table("object", box=None, pad_edge=False, title="Rows in the warehouse", title_justify="left")
        for organization in ORGANIZATIONS:
            table.add_column(organization.organization_id, justify="right")
            table.add_column("" if self._living else "at the provider", justify="right")
        warehouse, agrees = Warehouse(self._store), True
        columns: list[list[str]] = []
        for organization in ORGANIZATIONS:
            name = organization.organization_id
            ours = {item: warehouse.count("stripe", item, name, name) for item in names}
            theirs = self._books(f"{name}/counts")
            theirs["invoice_items"] = theirs.pop("invoiceitems")  # Stripe's own spelling
            columns.append([f"{ours[item]:,}" for item in names])
            if self._living:
                columns.append(["" for _ in names])
            else:
                equal = [ours[item] == theirs[item] for item in names]
                agrees &= all(equal)
                columns.append(
                    [
                        f"{theirs[item]:,} {'[green]=[/green]' if same else '[red]≠[/red]'}"
                        for item, same in zip(names, equal, strict=True)
                    ]
                )
        for row in zip(names, *columns, strict=True):
            table.add_row(*row)
        out.print(table)
        return agrees

    def _print_mrr(self, organization: Organization) -> bool:
        from churnguard_pipelines.analytics.money import format_money
        from churnguard_pipelines.analytics.mrr import read_movements

        currency = organization.reporting_currency
        ours = read_movements(self._store, organization.organization_id)
        theirs = {
            date.fromisoformat(row["month"]): row
            for row in self._books(f"{organization.organization_id}/mrr")["reporting"]
        }
        table = Table(
            "month",
            box=None,
            pad_edge=False,
            title=f"\n{organization.name}: MRR movements in {currency.upper()}",
            title_justify="left",
        )
        for name in MOVEMENTS:
            table.add_column(name, justify="right")
        if not self._living:
            table.add_column("books", justify="right")
        differing = 0
        for row in ours:
            values = [getattr(row, name) for name in MOVEMENTS]
            same = row.month in theirs and values == [theirs[row.month][name] for name in MOVEMENTS]
            differing += not same
            cells = [format_money(value, currency) for value in values]
            table.add_row(
                f"{row.month:%Y-%m}",
                *cells,
                *([] if self._living else ["[green]=[/green]" if same else "[red]≠[/red]"]),
            )
        out.print(table)
        return self._living or (differing == 0 and {row.month for row in ours} == set(theirs))

    def _books(self, path: str) -> Any:
        return httpx.get(f"{self._url}/_books/{path}", timeout=60).raise_for_status().json()
