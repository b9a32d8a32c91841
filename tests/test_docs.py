"""The documents name files and folders that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("churnguard_pipelines", "webhook_gateway")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_SHOWN = re.compile(r"!\[[^\]]+\]\(([^)]+)\)")
_NAMED = re.compile(r"`([\w.]+(?:/[\w.]+)*/?)`")


def named_files(text: str) -> set[str]:
    """What stands alone in backquotes and is a path to a folder, or to a source file."""
    return {name for name in _NAMED.findall(text) if name.endswith("/") or name.endswith((".py", ".sql"))}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_file_that_a_document_names_is_there(document: Path) -> None:
    homes = (ROOT, ROOT / "churnguard_pipelines")
    missing = [name for name in named_files(document.read_text()) if not any((home / name).exists() for home in homes)]
    assert not missing


def test_every_picture_is_one_that_a_command_takes_anew() -> None:
    [recipe] = re.findall(r"^pictures:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    files = [ROOT / name for name in re.findall(r"\S+\.py", recipe)]
    taken = {f"{name}.png" for file in files for name in re.findall(r'picture\("([\w-]+)"\)', file.read_text())}
    shown = {Path(name).name for document in DOCUMENTS for name in _SHOWN.findall(document.read_text())}
    assert taken == shown == {path.name for path in (ROOT / "docs" / "images").iterdir()}


def test_the_document_of_the_house_names_every_room() -> None:
    rooms = {path.parent.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).glob("*/__init__.py")}
    named = named_files((ROOT / "docs" / "architecture.md").read_text())
    below = [str(room).removeprefix("churnguard_pipelines/") for room in rooms]
    assert not [room for room in below if not any(name.startswith(f"{room}/") for name in named)]
