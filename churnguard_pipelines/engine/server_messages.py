"""Messages of foreign servers. They are shown to whoever may choose freely where we connect, and otherwise only logged
for the operator.

An organization that has us ask a server must not have us read out the answer to it: errors, reports and alerts about
its integrations then hold our own words only.
"""

from __future__ import annotations

import logging

from churnguard_pipelines.foreign_text import on_one_line
from churnguard_pipelines.model import IntegrationConfiguration

LONGEST = 300
"""Characters of somebody else's words."""

_log = logging.getLogger(__name__)


def quoted(integration: IntegrationConfiguration, words: str) -> str:
    """``: words`` to go on with in a message, or nothing where an organization says whom we ask."""
    return repeated(integration.integration_id, words, shown=integration.configured_by == "operator")


def repeated(integration_id: str | None, words: str, *, shown: bool) -> str:
    """The same where the caller knows whether it may be ``shown``."""
    line = on_one_line(" ".join(words.split()), LONGEST)
    if shown:
        return f": {line}" if line else ""
    _log.warning("%s: heard from the server: %r", integration_id, line)
    return ""
