"""What the demo has beside Stripe, of the same businesses: Acme's Salesforce, Mailchimp, SendGrid, Globex' HubSpot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx

from churnguard_pipelines.cli.demo.comparison import Compared
from churnguard_pipelines.model import IntegrationConfiguration

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store

SALESFORCE, HUBSPOT, MAILCHIMP, SENDGRID = "acme-salesforce", "globex-hubspot", "acme-mailchimp", "acme-sendgrid"
CRMS = (SALESFORCE, HUBSPOT, MAILCHIMP, SENDGRID)


def crm_integrations(url: str) -> list[IntegrationConfiguration]:
    """With the simulated providers at this address: an app that somebody at Acme let in, and Globex' private app."""
    app = {"client_id": "3MVGsandbox_acme", "client_secret": "secret_acme"}
    token = httpx.get(f"{url}/_hubspot/globex", timeout=60).raise_for_status().json()["private_app_token"]
    key = httpx.get(f"{url}/_mailchimp/acme", timeout=60).raise_for_status().json()["api_key"]
    return [
        _integration(
            SALESFORCE, "Salesforce", url,
            {"credential_type": "oauth2", "refresh_token": "5Aepsandbox_acme", "custom_fields": app},
        ),
        _integration(HUBSPOT, "HubSpot", url, {"credential_type": "bearer", "access_token": token}),
        _integration(
            MAILCHIMP, "Mailchimp", url, {"credential_type": "api_key", "api_key": key}, kind="email_marketing"
        ),
        _integration(
            SENDGRID, "SendGrid", url, {"credential_type": "api_key", "api_key": sendgrid(url)["api_key"]},
            kind="email_marketing", exclude=["messages"],  # six calls a minute: the demo would be waiting for them
        ),
    ]  # fmt: skip


def sendgrid(url: str) -> dict[str, Any]:
    """The key of Acme's account, and the public key of its event webhook."""
    told: dict[str, Any] = httpx.get(f"{url}/_sendgrid/acme", timeout=60).raise_for_status().json()
    return told


def _integration(
    name: str, title: str, url: str, credentials: dict[str, Any], *, kind: str = "crm", **sync: Any
) -> IntegrationConfiguration:
    organization_id, _, provider = name.partition("-")
    return IntegrationConfiguration.model_validate(
        {
            "integration_id": name,
            "organization_id": organization_id,
            "integration_name": f"{title} (simulated)",
            "integration_type": kind,
            "provider_name": provider,
            "base_url": url,
            "credentials": credentials,
            "sync_config": {"sync_frequency": 60, "requests_per_minute": 60_000, "concurrent_requests": 4, **sync},
        }
    )


def compared_crms(store: Store) -> Iterator[Compared]:
    from churnguard_pipelines.connectors.sdk import EARLIEST
    from churnguard_pipelines.records import Window
    from churnguard_pipelines.store.control.integrations import get_integration
    from churnguard_pipelines.store.raw.warehouse import Warehouse
    from churnguard_pipelines.syncing.sync import opened

    warehouse, everything = Warehouse(store), Window(EARLIEST, store.now())
    for name in CRMS:
        integration = get_integration(store, name)
        with opened(store, integration) as use:
            rows = [
                (
                    item.name,
                    warehouse.count(use.connector.table_of(item).name, integration.organization_id, name),
                    use.connector.count(item, everything),
                )
                for item in use.connector.objects
            ]
        yield Compared(use.connector.title, integration.organization_id, rows)
