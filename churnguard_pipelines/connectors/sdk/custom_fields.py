"""Checks the custom fields of credentials: an unknown one is refused, because it would be overlooked."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from churnguard_pipelines.engine.tokens import OF_TOKEN
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration


def refuse_unknown(integration: IntegrationConfiguration, known: Collection[str]) -> None:
    """Raises ``InvalidConfiguration`` with the name that was meant, as far as it can be guessed."""
    for name in sorted(integration.credentials.custom_fields.keys() - known - OF_TOKEN):
        near = get_close_matches(name, known, 1)
        listed = f"It takes {', '.join(known)}." if known else "It takes none."
        raise InvalidConfiguration(
            f"credentials.custom_fields.{name[:60]!r} is unknown to {integration.provider_name}.",
            integration_id=integration.integration_id,
            remedy=f"Is `{near[0]}` meant? {listed}" if near else listed,
        )
