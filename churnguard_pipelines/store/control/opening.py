"""Opens stored integrations: their credentials, and the ingestion rule that one may be."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Row

from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration, SecretsUnreadable
from churnguard_pipelines.model import (
    APIIngestionRule,
    CredentialType,
    IntegrationConfiguration,
    IntegrationCredentials,
    RuleIntegration,
)
from churnguard_pipelines.store.control.configurations import unsealed
from churnguard_pipelines.store.control.tables import ingestion_rules, integrations
from churnguard_pipelines.store.secrets import Vault

_log = logging.getLogger(__name__)

STORED = sa.select(
    integrations, ingestion_rules.c.config.label("rule"), ingestion_rules.c.secrets_sealed.label("rule_sealed")
).select_from(sa.outerjoin(integrations, ingestion_rules))
"""Each with the ingestion rule that it is, if it is one."""


def opened_or_error(vault: Vault, row: Row[Any]) -> IntegrationConfiguration | ChurnGuardError:
    try:
        return opened(vault, row)
    except SecretsUnreadable as error:
        return error
    except ValueError as error:  # pydantic's, whose own words would repeat what is wrong, maybe a secret
        _log.error("%s: its stored configuration is not valid (%s)", row.integration_id, type(error).__name__)
        return InvalidConfiguration(
            "its stored configuration is not valid.",
            integration_id=row.integration_id,
            remedy="Configure it anew: `churnguard integrations add FILE.yaml --replace`.",
        )


def opened(vault: Vault, row: Row[Any]) -> IntegrationConfiguration:
    """One of :data:`STORED`. Raises ``SecretsUnreadable``."""
    try:
        rule = _rule(vault, row) if row.rule is not None else None
        credentials = (
            IntegrationCredentials.model_validate_json(vault.open(row.credentials_sealed))
            if row.credentials_sealed or rule is None
            else rule.authentication or IntegrationCredentials(credential_type=CredentialType.API_KEY)
        )
    except SecretsUnreadable as error:
        raise SecretsUnreadable(error.message, integration_id=row.integration_id, remedy=error.remedy) from None
    fields = dict(
        row.config,
        integration_id=row.integration_id,
        organization_id=row.organization_id,
        provider_name=row.provider,
        status=row.status,
        created_at=row.created_at,
        created_by=row.created_by,
        configured_by=row.configured_by,
        credentials=credentials,
    )
    return IntegrationConfiguration(**fields) if rule is None else RuleIntegration(**fields, rule=rule)


def _rule(vault: Vault, row: Row[Any]) -> APIIngestionRule:
    own = {"organization_id": row.organization_id, "configured_by": row.configured_by}
    masked = {"rule_id": row.integration_id, **own, **row.rule}
    return APIIngestionRule.model_validate(unsealed(vault, masked, row.rule_sealed))
