"""The demo: two organizations on simulated providers, synced, turned into MRR, held against the businesses' books."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import httpx

from churnguard_pipelines.cli.demo.comparison import (
    Compared,
    compared_mrr,
    compared_stripe,
    compared_tables,
    print_details,
    print_summary,
)
from churnguard_pipelines.cli.demo.crms import CRMS, compared_crms, crm_integrations, sendgrid
from churnguard_pipelines.cli.demo.rules import SURVEY, compared_survey, register_survey
from churnguard_pipelines.cli.demo.simulation import given_simulation, own_simulation
from churnguard_pipelines.cli.demo.usage import UsageStreams
from churnguard_pipelines.cli.progress import run_with_progress
from churnguard_pipelines.cli.sync import print_causes
from churnguard_pipelines.cli.terminal import out
from churnguard_pipelines.model import (
    DataSyncMode,
    IntegrationConfiguration,
    IntegrationCredentials,
    IntegrationType,
    Organization,
    SyncConfiguration,
)

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store

ACTOR = "demo"
ORGANIZATIONS = (
    Organization(organization_id="acme", name="Acme Analytics", reporting_currency="usd"),
    Organization(organization_id="globex", name="Globex", reporting_currency="eur"),
)
PRODUCT = "acme-product"
KEY_FILE = "demo-api-key"


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

        Returns whether everything agrees; while the business lives on, counts move and need not.
        """
        from churnguard_pipelines.orchestration.processes.children import SyncRequest, compute_mrr_now

        began = time.monotonic()
        names = [*(item.organization_id for item in ORGANIZATIONS), PRODUCT, *CRMS, SURVEY]
        reports = run_with_progress(self._store, [SyncRequest(name) for name in names], transient=self._living)
        for report in reports:
            print_causes(report)
        with out.status("Reading the streams of product usage …"):
            self._usage.drain(self._url)
        with out.status("Computing MRR movements …"):
            compute_mrr_now(self._store, [item.organization_id for item in ORGANIZATIONS])
        with out.status("Comparing with the sources …"):
            sources = list(self._compared())
            mrr = [
                compared_mrr(self._store, each, self._books(f"{each.organization_id}/mrr")) for each in ORGANIZATIONS
            ]
        if self._living:
            print_summary(sources, mrr, time.monotonic() - began)
        else:
            print_details(sources, mrr)
        agrees = self._living or all([each.agrees for each in sources] + [each.agrees for each in mrr])
        return agrees and all(report.status == "succeeded" for report in reports)

    def _compared(self) -> Iterator[Compared]:
        for organization in ORGANIZATIONS:
            name = organization.organization_id
            yield compared_stripe(self._store, name, self._books(f"{name}/counts"))
        yield compared_tables(self._store, "acme", PRODUCT, self._product_url)
        yield from compared_crms(self._store)
        yield compared_survey(self._store, self._url)
        yield from self._usage.compared(self._url)

    def api_key(self) -> str:
        """An operator's key, the same at each start, kept where only its owner reads it."""
        from churnguard_pipelines.store.control.api_keys import authenticate, create_key

        path = self._store.settings.home / KEY_FILE
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

    def _books(self, path: str) -> Any:
        return httpx.get(f"{self._url}/_books/{path}", timeout=60).raise_for_status().json()
