"""The house rules that can be checked: imports point downward, and Dagster stays in its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "churnguard_pipelines"

# From the top down; a module may import its own layer and those below.
LAYERS = (
    ("definitions", "cli", "api"),
    ("orchestration",),
    ("analytics",),
    ("monitoring",),
    ("sandbox",),
    ("syncing",),
    ("connectors",),
    ("streams",),
    ("engine",),
    ("store",),
    ("settings",),
    ("model", "records", "mirrors", "mirror_types", "errors", "foreign_text", "ports", "registry", "destinations"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "churnguard_pipelines":
                yield from (f"churnguard_pipelines.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "churnguard_pipelines" and len(parts) > 1:
            assert RANK[layer(path)] <= RANK[parts[1]], f"{path.name} must not import {name}"


def test_the_sandbox_knows_nothing_of_what_it_tests() -> None:
    for path in (PACKAGE / "sandbox").rglob("*.py"):
        for name in imports(path):
            assert not name.startswith("churnguard_pipelines.") or name.startswith("churnguard_pipelines.sandbox"), (
                f"{path.name} imports {name}: the simulated providers must be able to disagree with the connectors"
            )


def test_only_the_orchestration_imports_dagster() -> None:
    for path in MODULES:
        if layer(path) not in ("orchestration", "definitions"):
            dagster = [name for name in imports(path) if name.split(".")[0].startswith("dagster")]
            assert not dagster, f"{path} imports {dagster}"


def test_nothing_below_the_gateway_imports_it() -> None:
    for path in (*MODULES, PACKAGE / "__init__.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "webhook_gateway"], path
