"""Connectors of other packages: one file and an entry point, and everything that reads the registry knows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHOW = """
import json
from churnguard_pipelines.connectors import connector, providers
from churnguard_pipelines.definitions import definitions
from churnguard_pipelines.errors import InvalidConfiguration
try:
    title = connector("toy").title
except InvalidConfiguration as error:
    title = str(error)
repository = definitions.get_repository_def()
print(json.dumps({
    "providers": providers(), "title": title, "stripe": connector("stripe").__module__,
    "assets": sorted(key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()),
    "jobs": sorted(job.name for job in repository.get_all_jobs()),
}))
"""


def shown(folder: Path, *points: str) -> Any:
    """What a process sees in which a package with these entry points is installed."""
    installed = folder / "our_connectors-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: our-connectors\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("\n".join(("[churnguard.connectors]", *points)))
    path = os.pathsep.join(map(str, (folder, ROOT)))
    ended = subprocess.run(
        [sys.executable, "-c", SHOW], env=os.environ | {"PYTHONPATH": path}, cwd=folder, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    return json.loads(ended.stdout.splitlines()[-1])


def test_one_file_of_another_package_is_a_provider(tmp_path: Path) -> None:
    seen = shown(tmp_path, "toy = tests.connectors.toy:Toy")
    assert "toy" in seen["providers"]
    assert seen["title"] == "Toy CRM"
    assert {"toy/contacts", "toy/deals"} <= set(seen["assets"])
    assert {"toy_sync", "toy_history"} <= set(seen["jobs"])


@pytest.mark.parametrize(
    "value", ["tests.connectors.toy:Account", "tests.connectors.toy:TYPES"], ids=["class", "value"]
)
def test_an_entry_point_of_something_else_says_what_is_wrong(tmp_path: Path, value: str) -> None:
    folder = tmp_path / "installed"
    folder.mkdir()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        shown(folder, f"toy = {value}")
    assert f"the entry point toy = {value} names no Connector of this provider" in failed.value.stderr


def test_a_provider_of_ours_is_not_replaced(tmp_path: Path) -> None:
    seen = shown(tmp_path, "stripe = tests.connectors.toy:Toy")
    assert seen["stripe"] == "churnguard_pipelines.connectors.stripe"
