"""Whether a statement asks for rows by their integration alone: then a former owner's rows of the id are among them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

_BY_INTEGRATION = re.compile(r'(?:([\w".]+)\.)?"?integration_id"?\s*(?:=|IN\b)\s*')
_BY_ORGANIZATION = re.compile(r'"?organization_id"?\s*(?:=|IN\b)')
_SAYS_WHOSE_IT_IS = ("control.integrations", "integrations", "integration")
"""The table of the ids themselves, as the statements call it."""

_ROOT = str(Path(__file__).parent.parent)
_TESTS = f"{_ROOT}/tests/"

forgetful: list[str] = []
"""Those that the product has executed."""


def forgets_the_organization(statement: str) -> bool:
    conditions = [found for found in _BY_INTEGRATION.finditer(statement) if found[1] not in _SAYS_WHOSE_IT_IS]
    return len(conditions) > len(_BY_ORGANIZATION.findall(statement))


@sa.event.listens_for(sa.Engine, "before_cursor_execute")
def look_at(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
    if forgets_the_organization(statement) and not _is_a_test_s_own():
        forgetful.append(statement)


def _is_a_test_s_own() -> bool:
    """Whether what executes the statement now is a line of a test, which may look at all there is."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        file = frame.f_code.co_filename
        if file.startswith(_ROOT) and "/.venv/" not in file and file != __file__:
            return file.startswith(_TESTS)
    return False
