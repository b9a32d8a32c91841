"""Whether the lock files let in anything that was not chosen: every package has one exact version and the hashes of its
files, none comes from an address, both files agree, and what pyproject.toml asks for is what is locked.

No advisories are looked up: their databases need the network, and the last that came as a package (safety-db) is of
2021. `pip-audit --require-hashes -r requirements.lock` asks one, for whoever has the network.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+)(?: ; [^\\]+?)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def main() -> int:
    wrong: list[str] = []
    runtime, development = (locked(ROOT / name, wrong) for name in ("requirements.lock", "requirements-dev.lock"))
    wrong += [
        f"{name} is {sorted(versions)} in requirements.lock, not so in requirements-dev.lock"
        for name, versions in runtime.items()
        if not versions <= development.get(name, set())
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["build"], *extras["local"], *extras["otel"], *extras["demo"]]
    for requirements, lock in ((asked, runtime), (extras["dev"], development)):
        for requirement in requirements:
            name, _, version = re.sub(r"\[.*?\]", "", requirement).partition("==")
            if version not in lock.get(normalized(name), set()):
                wrong.append(f"pyproject.toml asks for {requirement}, which is not locked; run `make lock`")
    sys.stderr.writelines(f"{each}\n" for each in wrong)
    return 1 if wrong else 0


def locked(path: Path, wrong: list[str]) -> dict[str, set[str]]:
    """Versions by name: several where they depend on the platform. ``wrong`` takes what does not belong there."""
    found: dict[str, set[str]] = {}
    for entry in path.read_text().replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+(?=--)", entry.strip())
        match = REQUIREMENT.fullmatch(requirement)
        if match is None or not hashes or not all(HASH.fullmatch(each) for each in hashes):
            wrong.append(f"{path.name}: no exact version with the hashes of its files: {entry[:80]!r}")
        else:
            found.setdefault(normalized(match["name"]), set()).add(match["version"])
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
