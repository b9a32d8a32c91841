"""Alert rules and dashboards, as files: they are valid, go off when they should, and each alert has its runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.machine import CACHE, ROOT, lack
from tests.deploy.observability.files import DASHBOARDS, RULES, expressions, rules, targets

CASES = Path(__file__).with_name("rules_test.yaml")
INTERVAL = re.compile(r"\$__rate_interval")
"""Grafana's, not Prometheus'."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or str(CACHE / "promtool")
    return found if Path(found).exists() else lack("promtool is missing: .ci/deploy_tools.sh brings it")


def succeeds(*command: str | Path) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_rules_are_prometheus_(promtool: str) -> None:
    succeeds(promtool, "check", "rules", "--lint-fatal", RULES)


def test_each_alert_goes_off_when_it_should_and_not_where_all_is_well(promtool: str) -> None:
    tested = {
        case["alertname"]
        for each in yaml.safe_load(CASES.read_text())["tests"]
        for case in each["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules()}
    succeeds(promtool, "test", "rules", CASES)


def test_each_alert_has_a_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    alerts = [rule["alert"] for rule in rules()]
    assert len(set(alerts)) == len(alerts)
    assert set(alerts) == {heading for heading in headings if heading.startswith("Churnguard")}
    for rule in rules():
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_what_the_dashboards_ask_can_be_asked(promtool: str, tmp_path: Path) -> None:
    asked = [
        {"record": f"asked:{number}", "expr": INTERVAL.sub("5m", expression)}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "asked.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    succeeds(promtool, "check", "rules", file)


def test_dashboards_are_such_as_grafana_imports() -> None:
    """Whatever its data source is called; none takes another one's place."""
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards) == 3
    for board in boards:
        assert board["schemaVersion"] >= 36
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        [variable] = board["templating"]["list"]
        assert (variable["type"], variable["name"]) == ("datasource", "datasource")
        for each in (*board["panels"], *targets(board)):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            assert panel["title"]
