"""The demo: two organizations on simulated providers, synced, turned into MRR, held against the businesses' books."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx
from rich.markup import escape
from rich.table import Table

from churnguard_pipelines.cli.demo_crms import CRMS, crm_integrations, print_crms, sendgrid
from churnguard_pipelines.cli.demo_rules import SURVEY, print_survey, register_survey
from churnguard_pipelines.cli.demo_simulation import given_simulation, own_simulation
from churnguard_pipelines.cli.demo_usage import UsageStreams
from churnguard_pipelines.cli.progress import run_with_progress
from churnguard_pipelines.cli.terminal import err, out
from churnguard_pipelines.model import (
    DataSyncMode,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
    SyncConfiguration,
)

if TYPE_CHECKING:
    from churnguard_pipelines.analytics.movements import Movements
    from churnguard_pipelines.store.postgres.database import Store

ACTOR = "demo"
ORGANIZATIONS = (
    Organization(organization_id="acme", name="Acme Analytics", reporting_currency="usd"),
    Organization(organization_id="globex", name="Globex", reporting_currency="eur"),
)
PRODUCT = "acme-product"
MOVEMENTS = ("starting", "new", "expansion", "contraction", "churn", "reactivation", "ending")
WIDE = 100  # columns of a terminal that the whole table fits


class Demo:
    """The simulated providers, and what the demo does with them. Use as a context manager."""

    def __init__(self, store: Store, *, living: bool, sandbox: str | None = None) -> None:
        """``sandbox``: where simulated providers run already, if it is not for us to start them."""
        self._store = store
        self._living = living
        self._sandbox = sandbox
        self._url, self._product_url = "", ""
        self._usage = UsageStreams(store, [item.organization_id for item in ORGANIZATIONS])
        self._started = ExitStack()

    def __enter__(self) -> Demo:
        with ExitStack() as started:
            with out.status("Simulating 24 months of two SaaS businesses …"):
                started.callback(self._usage.stop)
                self._usage.start()
                simulation = given_simulation(self._sandbox) if self._sandbox else started.enter_context(
                    own_simulation(self._store.settings.home, self._usage.url, living=self._living)
                )  # fmt: skip
            self._url, self._product_url = simulation.url, simulation.product_url
            self._register()
            if self._living:
                self._subscribe()
            self._started = started.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.close()

    def first_sync(self) -> bool:
        """Sync both organizations, compute their MRR, print both beside the simulation's own counts and books.

        Returns whether everything agrees; while the business lives on, counts move and are not compared.
        """
        from churnguard_pipelines.orchestration.processes.children import SyncRequest, compute_mrr_now

        names = [*(item.organization_id for item in ORGANIZATIONS), PRODUCT, *CRMS, SURVEY]
        reports = run_with_progress(self._store, [SyncRequest(name) for name in names])
        for report in reports:
            for name, item in report.objects.items():
                if item.error:
                    err.print(f"[red]✗[/red] {report.integration_id} {name}: {escape(item.error)}")
        with out.status("Reading the streams of product usage …"):
            self._usage.drain(self._url)
        with out.status("Computing MRR movements …"):
            compute_mrr_now(self._store, [item.organization_id for item in ORGANIZATIONS])
        agrees = [
            self._print_rows(),
            self._print_product(),
            print_crms(self._store, living=self._living),
            print_survey(self._store, self._url, living=self._living),
            self._usage.print(self._url, living=self._living),
            *(self._print_mrr(item) for item in ORGANIZATIONS),
        ]
        return all(agrees) and all(report.status == "succeeded" for report in reports)

    def api_key(self) -> str:
        """An operator's key, the same at each start, kept where only its owner reads it."""
        from churnguard_pipelines.store.control.api_keys import authenticate, create_key

        path = self._store.settings.home / "demo-api-key"
        key = path.read_text().strip() if path.exists() else ""
        if authenticate(self._store, key) is None:
            key = create_key(self._store, "demo", actor=ACTOR)
            path.touch(mode=0o600)
            path.write_text(f"{key}\n")
        return key

    def _register(self) -> None:
        from churnguard_pipelines.store.control.integrations import (
            add_integration,
            find_integration,
            replace_integration,
        )
        from churnguard_pipelines.store.control.organizations import add_organization

        stripes: list[IntegrationConfiguration] = []
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
            stripes.append(wanted)
        for wanted in (*stripes, *crm_integrations(self._url)):
            known = find_integration(self._store, wanted.integration_id)
            if known is None:
                add_integration(self._store, wanted, actor=ACTOR)
            elif known.base_url != wanted.base_url:
                replace_integration(self._store, wanted, actor=ACTOR)
        register_survey(self._store, self._url, ACTOR)
        self._usage.register(ACTOR)
        product = self._product_integration()
        known = find_integration(self._store, PRODUCT)
        if known is None or known.credentials != product.credentials:
            replace_integration(self._store, product, actor=ACTOR)

    def _product_integration(self) -> IntegrationConfiguration:
        from psycopg.conninfo import conninfo_to_dict

        where = conninfo_to_dict(self._product_url)
        fields = {"host": str(where["host"]), "port": str(where["port"]), "database": str(where["dbname"])}
        return IntegrationConfiguration.model_validate(
            {
                "integration_id": PRODUCT,
                "organization_id": "acme",
                "integration_name": "Product database (simulated)",
                "integration_type": IntegrationType.DATABASE,
                "provider_name": "postgresql",
                "credentials": IntegrationCredentials.model_validate(
                    {
                        "credential_type": "basic_auth",
                        "username": str(where["user"]),
                        "password": str(where["password"]),
                        "custom_fields": fields,
                    }
                ),
                "sync_config": SyncConfiguration(sync_mode=DataSyncMode.REAL_TIME, sync_frequency=300),
            }
        )

    def _subscribe(self) -> None:
        """Have the simulated providers deliver their events to the webhook gateway."""
        for organization in ORGANIZATIONS:
            name = organization.organization_id
            self._deliver(name, "stripe", f"{self._url}/_webhooks", {"account": name})
        self._deliver("globex", "hubspot", f"{self._url}/_hubspot/globex/webhooks", {})
        self._deliver("acme", "mailchimp", f"{self._url}/_mailchimp/acme/webhooks", {})
        key = sendgrid(self._url)["public_key"]
        self._deliver("acme", "sendgrid", f"{self._url}/_sendgrid/acme/webhooks", {}, secret=key)

    def _deliver(
        self,
        organization_id: str,
        provider: str,
        subscribe_at: str,
        subscription: dict[str, str],
        secret: str | None = None,
    ) -> None:
        from secrets import token_hex

        from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint, list_endpoints

        settings = self._store.settings
        known = [each for each in list_endpoints(self._store, organization_id) if each.provider == provider]
        endpoint = known[0] if known else add_endpoint(
            self._store, organization_id=organization_id, provider=provider,
            secret=secret or f"whsec_{token_hex(32)}", actor=ACTOR,
        )  # fmt: skip
        gateway = settings.gateway_url or f"http://{settings.webhook_host}:{settings.webhook_port}"
        url = f"{gateway.rstrip('/')}/webhooks/{provider}/{organization_id}"
        subscription |= {"url": url, "secret": endpoint.secrets[0][0]}
        httpx.post(subscribe_at, json=subscription, timeout=60).raise_for_status()

    def _print_rows(self) -> bool:
        from churnguard_pipelines.connectors import api_connector
        from churnguard_pipelines.store.raw.warehouse import Warehouse

        names = [item.name for item in api_connector("stripe").objects]
        table = Table("object", box=None, pad_edge=False, title="Rows in the warehouse", title_justify="left")
        for organization in ORGANIZATIONS:
            table.add_column(organization.organization_id, justify="right")
            table.add_column("" if self._living else "at the provider", justify="right")
        warehouse, agrees = Warehouse(self._store), True
        columns: list[list[str]] = []
        for organization in ORGANIZATIONS:
            name = organization.organization_id
            ours = {item: warehouse.count(f"stripe_{item}", name, name) for item in names}
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

    def _print_product(self) -> bool:
        """Each table of the product database, there and here; while people work in it, they may differ by a moment."""
        import psycopg
        from psycopg.sql import SQL, Identifier

        from churnguard_pipelines.store.ingest.catalogue import entries
        from churnguard_pipelines.store.raw.tables import quoted

        table = Table("table", box=None, pad_edge=False, title="\nAcme's product database", title_justify="left")
        for heading in ("in the warehouse", "in the source"):
            table.add_column(heading, justify="right")
        agrees = True
        with psycopg.connect(self._product_url) as source, self._store.organization("acme") as warehouse:
            for name, entry in entries(self._store, PRODUCT).items():
                (theirs,) = source.execute(SQL("SELECT count(*) FROM {}").format(Identifier(name))).fetchone() or (0,)
                here = f"SELECT count(*) FROM {quoted(entry.raw_table)} WHERE deleted_at IS NULL"
                ours = warehouse.exec_driver_sql(here).scalar_one()
                agrees &= ours == theirs or self._living
                sign = "" if self._living else " [green]=[/green]" if ours == theirs else " [red]≠[/red]"
                table.add_row(name, f"{ours:,}", f"{theirs:,}{sign}")
        out.print(table)
        return agrees

    def _print_mrr(self, organization: Organization) -> bool:
        from churnguard_pipelines.analytics.money import format_money
        from churnguard_pipelines.analytics.mrr import read_movements

        name, currency = organization.organization_id, organization.reporting_currency
        ours = {row.month: _values(row) for row in read_movements(self._store, name)}
        in_books = self._books(f"{name}/mrr")
        theirs = _summed(in_books)
        by_currency = {
            (row.month, row.currency): _values(row) for row in read_movements(self._store, name, by_currency=True)
        }
        agreeing = {month for month, values in ours.items() if theirs.get(month) == values}
        agrees = agreeing == set(ours) | set(theirs) and all(
            by_currency[date.fromisoformat(row["month"]), row["currency"]] == [row[each] for each in MOVEMENTS]
            for row in in_books
        )
        title = f"\n{organization.name}: MRR movements in {currency.upper()}"
        table = Table("month", box=None, pad_edge=False, title=title, title_justify="left")
        shown = MOVEMENTS if out.width >= WIDE else MOVEMENTS[1:]  # a month starts as the one before ended
        for column in shown:
            table.add_column(column, justify="right", no_wrap=True)
        if not self._living:
            table.add_column("books")
        for month, values in ours.items():
            mark = "[green]=[/green]" if month in agreeing else "[red]≠[/red]"
            cells = [format_money(value, currency) for value in values[-len(shown) :]]
            table.add_row(f"{month:%Y-%m}", *cells, *([] if self._living else [mark]))
        out.print(table)
        if not self._living:
            currencies = ", ".join(sorted({row["currency"].upper() for row in in_books}))
            out.print(
                f"[green]✓[/green] Agrees with the business's own books, every month, in {currencies}"
                if agrees
                else "[red]✗[/red] Differs from the business's own books"
            )
        return self._living or agrees

    def _books(self, path: str) -> Any:
        return httpx.get(f"{self._url}/_books/{path}", timeout=60).raise_for_status().json()


def _values(row: Movements) -> list[int]:
    return [getattr(row, name) for name in MOVEMENTS]


def _summed(books: Sequence[dict[str, Any]]) -> dict[date, list[int]]:
    """The books have a row per month and currency; their reporting currency's figures, per month."""
    months: dict[date, list[int]] = {}
    for row in books:
        figures = [row["reporting"][name] for name in MOVEMENTS]
        month = date.fromisoformat(row["month"])
        months[month] = [mine + more for mine, more in zip(months.get(month, [0] * 7), figures, strict=True)]
    return months
