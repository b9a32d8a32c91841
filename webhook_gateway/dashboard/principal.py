"""Who is asking, and what they may."""

from __future__ import annotations

from dataclasses import dataclass

from churnguard_pipelines.model import ConfiguredBy
from churnguard_pipelines.store.control.api_keys import ApiKey, Role

SCOPE = "churnguard.principal"
"""Where the authentication leaves it in the ASGI scope."""


@dataclass(frozen=True, slots=True)
class Principal:
    """``organization_id``: the only one they see; None for operators, who see all. ``id``: for the audit log."""

    id: str
    name: str
    organization_id: str | None
    may_write: bool

    @property
    def is_operator(self) -> bool:
        return self.organization_id is None

    @property
    def configures_as(self) -> ConfiguredBy:
        return "operator" if self.is_operator else "organization"


def of_key(key: ApiKey) -> Principal:
    return Principal(key.key_id, key.name, key.organization_id, key.role is Role.ADMIN)
