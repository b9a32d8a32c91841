"""The journal that survives a restart: how the history was made, and the commands since, to be replayed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

GENERATION = 1  # of the simulation: another one would tell another history from the same seed


@dataclass(frozen=True)
class Origin:
    """All that the history follows from. `anchor`: the instant at which it ends and life begins."""

    seed: int
    anchor: int
    scale: float
    generation: int = GENERATION


def remember(folder: Path, default: Origin, given: dict[str, Any]) -> Origin:
    """The folder's origin, written on first use. ValueError where `given` contradicts it."""
    path = folder / "origin.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_bytes(orjson.dumps(asdict(default)))
        draft.replace(path)
        return default
    kept = Origin(**orjson.loads(path.read_bytes()))
    for name, value in {**given, "generation": GENERATION}.items():
        if getattr(kept, name) != value:
            raise ValueError(
                f"{folder} holds a simulated business with {name} {getattr(kept, name)}, not {value}: "
                "use another folder, or remove this one to begin anew"
            )
    return kept


class Journal:
    """An append-only file of JSON lines. A line cut off by a kill never happened."""

    def __init__(self, path: Path) -> None:
        kept = path.read_bytes() if path.exists() else b""
        self._entries = [orjson.loads(line) for line in kept[: kept.rfind(b"\n") + 1].splitlines()]
        self._file = path.open("ab")
        self._file.truncate(kept.rfind(b"\n") + 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """What was written before this journal was opened."""
        return iter(self._entries)

    def write(self, entry: dict[str, Any]) -> None:
        self._file.write(orjson.dumps(entry) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
