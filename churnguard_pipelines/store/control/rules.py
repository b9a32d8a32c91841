"""Ingestion rules. Each is an integration of its id as well, which has its state, its schedule and its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import HttpUrl
from sqlalchemy import Connection, Row
from sqlalchemy.dialects.postgresql import insert

from churnguard_pipelines.destinations import destinations
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import (
    APIIngestionRule,
    CredentialType,
    DataSyncMode,
    IntegrationCredentials,
    IntegrationStatus,
    IntegrationType,
    RuleIntegration,
    SyncConfiguration,
)
from churnguard_pipelines.store.control.configurations import Configurations
from churnguard_pipelines.store.control.forgetting import forget
from churnguard_pipelines.store.control.integrations import row_of
from churnguard_pipelines.store.control.masking import Document, Path, looks_secret
from churnguard_pipelines.store.control.ownership import Kind, of_integration
from churnguard_pipelines.store.control.tables import ingestion_rules, integrations
from churnguard_pipelines.store.ingest.tables import breakers
from churnguard_pipelines.store.postgres.database import Store

PROVIDER, RECORDS = "rest", "records"
"""Of the integrations that rules are, and the object that each reads."""

_LONGEST_HOST = 1000
"""With user and port; a URL that is hardly anything else would become too long by the slash at its end."""
_AFTER_CORRECTION = (
    IntegrationStatus.ERROR,
    IntegrationStatus.AUTHENTICATION_FAILED,
    IntegrationStatus.RATE_LIMITED,
)


def integration_of(rule: APIIngestionRule) -> RuleIntegration:
    """What syncs the rule. Its base URL is the endpoint's origin: rules with one key of one host share a quota."""
    scheme, host, *_ = urlsplit(str(rule.endpoint_url))
    return RuleIntegration(
        integration_id=rule.rule_id,
        organization_id=rule.organization_id,
        integration_name=rule.name,
        integration_type=IntegrationType.CUSTOM,
        provider_name=PROVIDER,
        credentials=rule.authentication or IntegrationCredentials(credential_type=CredentialType.API_KEY),
        sync_config=SyncConfiguration(
            sync_mode=DataSyncMode.INCREMENTAL,
            sync_frequency=rule.sync_frequency,
            field_mappings={RECORDS: rule.field_mappings} if rule.field_mappings else {},
            data_filters=rule.filters,
            requests_per_minute=rule.requests_per_minute,
            retry_attempts=rule.retry_attempts,
        ),
        base_url=HttpUrl(f"{scheme}://{host.rpartition('@')[2]}/") if len(host) <= _LONGEST_HOST else None,
        configured_by=rule.configured_by,
        rule=rule,
    )


class Rules(Configurations[APIIngestionRule]):
    _more_kinds = (Kind.INTEGRATION,)

    def _locked(self, connection: Connection, id_: str) -> Row[Any]:
        # Whoever takes the rule away as the integration that it is locks that first.
        own = integrations.c.integration_id == id_
        connection.execute(sa.select(integrations.c.integration_id).where(own).with_for_update(key_share=True))
        return super()._locked(connection, id_)

    def _adding(self, connection: Connection, store: Store, configuration: APIIngestionRule, actor: str) -> None:
        # Until tokens are bought with them, the credentials are the rule's, and stored there only.
        row = row_of(store, integration_of(configuration), actor) | {"credentials_sealed": ""}
        statement = insert(integrations).values(row).on_conflict_do_nothing().returning(integrations.c.integration_id)
        if connection.scalar(statement) is None and not self._is_there(connection, configuration.rule_id):
            raise InvalidConfiguration(
                f"there is an integration {configuration.rule_id!r} already.", remedy="Choose another rule_id."
            )

    def _changed(
        self, connection: Connection, store: Store, configuration: APIIngestionRule, changes: Mapping[str, Any]
    ) -> None:
        own = integrations.c.integration_id == configuration.rule_id
        row = row_of(store, integration_of(configuration), "")
        values: dict[str, Any] = {name: row[name] for name in ("config", "configured_by")}
        values |= {"next_due_at": sa.func.clock_timestamp(), "failed_syncs": 0}
        if "authentication" in changes:
            values["credentials_sealed"] = ""
        connection.execute(sa.update(integrations).where(own).values(values))
        mended = {"status": IntegrationStatus.ACTIVE.value, "status_reason": None}
        in_trouble = integrations.c.status.in_([status.value for status in _AFTER_CORRECTION])
        connection.execute(sa.update(integrations).where(own, in_trouble).values(mended))
        connection.execute(sa.delete(breakers).where(of_integration(breakers, configuration.rule_id)))

    def _removed(self, connection: Connection, id_: str, organization_id: str) -> None:
        forget(connection, organization_id, id_)

    def _is_there(self, connection: Connection, id_: str) -> bool:
        return connection.scalar(sa.select(self._key).where(self._key == id_)) is not None


def _secret(path: Path, value: Any) -> bool:
    match path:
        case ("headers", _):
            return True  # any may carry a token
        case ("authentication", first, *_):
            return first != "credential_type" and not isinstance(value, dict)
        case ("endpoint_url",) | ("parent", "endpoint_url"):
            return looks_secret("endpoint_url", value)
        case ("parameters" | "body", *_, name) if len(path) > 1:
            return not isinstance(value, dict) and looks_secret(name, value)
    return False


def _destinations(document: Document) -> set[tuple[str, ...]]:
    """Of the endpoint its host: all its paths are one party's."""
    scheme, host = urlsplit(document["endpoint_url"])[:2]
    return {("endpoint", scheme, host), *destinations(document["authentication"])}


RULES = Rules(APIIngestionRule, ingestion_rules, Kind.INGESTION_RULE, _secret, _destinations, "endpoint_url")
