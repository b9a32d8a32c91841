"""The rules and dashboards, and what they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.deploy.machine import ROOT

FOLDER = ROOT / "deploy" / "observability"
RULES = FOLDER / "rules.yaml"
DASHBOARDS = sorted((FOLDER / "dashboards").glob("*.json"))
_METRIC = re.compile(r"\b(?:churnguard|process|python)_\w+")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def targets(dashboard: Any) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield from panel["targets"]


def expressions() -> list[str]:
    """All that Prometheus is asked."""
    of_panels = [each["expr"] for path in DASHBOARDS for each in targets(json.loads(path.read_text()))]
    return [*(rule["expr"] for rule in rules()), *of_panels]


def metrics_asked_for() -> set[str]:
    return {name for expression in expressions() for name in _METRIC.findall(expression)}
