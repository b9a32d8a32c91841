"""The fields of an integration's credentials that every database server needs."""

from __future__ import annotations

from collections.abc import Sequence

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration


def custom_fields(integration: IntegrationConfiguration, title: str, tls_modes: Sequence[str]) -> dict[str, str]:
    """In clear; ``tls`` is ``prefer`` if it was left out.

    Raises ``InvalidConfiguration`` naming what is missing of username, host and database, or a ``tls`` that is none of
    these modes.
    """
    credentials = integration.credentials
    given = {name: value.get_secret_value() for name, value in credentials.custom_fields.items()}
    for field, value in (("username", credentials.username), ("custom_fields.host", given.get("host")),
                         ("custom_fields.database", given.get("database"))):  # fmt: skip
        if not value:
            raise InvalidConfiguration(
                f"credentials.{field} is missing.",
                integration_id=integration.integration_id,
                remedy=f"A {title} source needs username, password, and custom_fields host, port and database.",
            )
    given.setdefault("tls", "prefer")
    if given["tls"] not in tls_modes:
        raise refused(integration, "tls", given["tls"], f"It is one of {', '.join(tls_modes)}.")
    return given


def refused(integration: IntegrationConfiguration, field: str, value: str, rule: str) -> InvalidConfiguration:
    """``rule``: what the custom field may be."""
    return InvalidConfiguration(
        f"credentials.custom_fields.{field} cannot be {value!r}.",
        integration_id=integration.integration_id,
        remedy=rule,
    )
