"""The house rules that can be checked: imports point downward and in no circle, Dagster stays in its place, rooms and
files stay small."""

from __future__ import annotations

import ast
import importlib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "churnguard_pipelines"
PACKAGES = ("churnguard_pipelines", "webhook_gateway")
OURS = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_FILES, MOST_LINES = 25, 400

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
    ("exposure",),
    ("settings",),
    (
        *("model", "records", "mirrors", "mirror_types", "errors", "foreign_text", "wrong_fields", "ports", "registry"),
        *("telemetry", "destinations", "record_paths", "rule_options", "stream_options", "interpreter"),
    ),
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


def test_the_simulated_business_knows_no_provider() -> None:
    for path in (PACKAGE / "sandbox" / "business").glob("*.py"):
        outside = [name for name in imports(path) if name.startswith("churnguard_pipelines.")]
        assert all(name.startswith("churnguard_pipelines.sandbox.business") for name in outside), path


def test_only_the_orchestration_imports_dagster() -> None:
    for path in MODULES:
        if layer(path) not in ("orchestration", "definitions"):
            dagster = [name for name in imports(path) if name.split(".")[0].startswith("dagster")]
            assert not dagster, f"{path} imports {dagster}"


def test_only_the_command_line_imports_the_gateway_which_does_not_know_it() -> None:
    for path in (ROOT / "webhook_gateway").rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith("churnguard_pipelines.cli")], path
    for path in (*(each for each in MODULES if layer(each) != "cli"), PACKAGE / "__init__.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "webhook_gateway"], path


def test_no_modules_import_each_other() -> None:
    """Neither when they are loaded nor later, inside a function: that would only hide the circle."""
    graph = {_name(path): set(_modules(path)) for path in OURS}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_programs_that_tests_hold_as_text_import_what_is_there() -> None:
    """No type checker looks into them."""
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
                for module, name in _imported(node.value):
                    there = hasattr(importlib.import_module(module), name) or find_spec(f"{module}.{name}")
                    assert there, f"{path}: {module} has no {name}"


@pytest.mark.parametrize("path", [ROOT / package for package in (*PACKAGES, "tests")], ids=lambda path: path.name)
def test_no_folder_has_more_files_than_one_looks_through(path: Path) -> None:
    files = Counter(file.parent for file in path.rglob("*") if file.is_file() and file.parent.name != "__pycache__")
    assert not {str(folder): number for folder, number in files.items() if number > MOST_FILES}


@pytest.mark.parametrize("path", [ROOT / package for package in (*PACKAGES, "tests")], ids=lambda path: path.name)
def test_no_file_is_longer_than_one_reads_at_once(path: Path) -> None:
    lines = {str(file): len(file.read_text().splitlines()) for file in path.rglob("*.py")}
    assert not {file: number for file, number in lines.items() if number > MOST_LINES}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _modules(path: Path) -> Iterator[str]:
    """The modules of ours that this one imports: what is imported of a package may be one, too."""
    ours = {_name(each) for each in OURS}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ours)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if (found := name if name in ours else node.module or "") in ours:
                    yield found


def _imported(text: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what a program imports of ours; nothing if the text is no program."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            yield from ((node.module or "", alias.name) for alias in node.names)
