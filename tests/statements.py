"""Whether a statement asks for rows by their integration alone: then a former owner's rows of the id are among them."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

_BY_INTEGRATION = re.compile(r'(?:([\w".]+)\.)?"?integration_id"?\s*(?:=|IN\b)\s*')
_BY_ORGANIZATION = re.compile(r'"?organization_id"?\s*(?:=|IN\b)')
_SAYS_WHOSE_IT_IS = ("control.integrations", "integrations", "integration")
"""The table of the ids themselves, as the statements call it."""

forgetful: list[str] = []
"""Those that have been executed."""


def forgets_the_organization(statement: str) -> bool:
    conditions = [found for found in _BY_INTEGRATION.finditer(statement) if found[1] not in _SAYS_WHOSE_IT_IS]
    return len(conditions) > len(_BY_ORGANIZATION.findall(statement))


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def _look_at(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
    if forgets_the_organization(statement):
        forgetful.append(statement)
