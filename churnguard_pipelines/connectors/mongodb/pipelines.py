"""Parses the aggregation stages that a configuration puts between a collection and its mirror, as read filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bson import json_util

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration

STAGES = ("$match", "$project", "$addFields", "$set", "$unset")
"""Each makes at most one document of one, which is what lets changes go through them too."""

Pipelines = Mapping[str, list[dict[str, Any]]]


def pipelines(integration: IntegrationConfiguration, given: str | None) -> Pipelines:
    """By collection, from Extended JSON. Raises ``InvalidConfiguration`` naming what is wrong."""
    if given is None:
        return {}
    try:
        parsed = json_util.loads(given)
    except (ValueError, TypeError):
        raise _refused(integration, "is not JSON") from None
    if not isinstance(parsed, dict):
        raise _refused(integration, "is not a JSON object")
    for collection, stages in parsed.items():
        if not isinstance(stages, list):
            raise _refused(integration, f"has no list of stages for {collection}")
        for stage in stages:
            if not isinstance(stage, dict) or len(stage) != 1:
                raise _refused(integration, f"has something that is no stage for {collection}")
            if (problem := _problem(*next(iter(stage.items())))) is not None:
                raise _refused(integration, f"has for {collection} {problem}")
    return parsed


def _problem(name: str, content: Any) -> str | None:
    if name not in STAGES:
        return f"the stage {name}, which may not stand there"
    if name == "$unset":
        fields = dict.fromkeys([content] if isinstance(content, str) else content, False)
    elif isinstance(content, dict):
        fields = content
    else:
        return f"a {name} without an object"
    if name == "$match":
        return None
    changed = [field for field, value in fields.items() if field.split(".")[0] == "_id" and value not in (1, True)]
    if changed or (name in ("$addFields", "$set") and "_id" in fields):
        return f"a {name} that alters _id, the key"
    return None


def _refused(integration: IntegrationConfiguration, what: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"credentials.custom_fields.pipelines {what}.",
        integration_id=integration.integration_id,
        remedy=f'It looks like {{"users": [{{"$match": {{"active": true}}}}]}}; the stages are {", ".join(STAGES)}.',
    )
