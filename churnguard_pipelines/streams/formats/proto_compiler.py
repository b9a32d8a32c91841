"""Compiles .proto files with Google's own compiler, in a process of its own: it is written for its user's files, these
are a stranger's. The process has little time, memory and room, and sees nothing but the files.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.foreign_text import on_one_line

MAIN = "message.proto"
CPU_SECONDS, SECONDS = 10, 120
MOST_MEMORY, MOST_WRITTEN = 1 << 30, 16 << 20

_NAME = re.compile(r"(?!.{201})(?!/)(?:(?:^|/)(?!\.)[A-Za-z0-9_.-]+)+")
"""Of a file as an import names it: below the folder, whatever it says."""
_COMPILED, _SAID = "compiled", "said"
_PROGRAM = f"""
import resource, sys
from importlib.resources import files
for what, most in ((resource.RLIMIT_CPU, {CPU_SECONDS}), (resource.RLIMIT_AS, {MOST_MEMORY}),
                   (resource.RLIMIT_FSIZE, {MOST_WRITTEN}), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(what, (most, most))
from grpc_tools import protoc
known = files("grpc_tools") / "_proto"
options = ["-I.", f"-I{{known}}", "--include_imports", "--descriptor_set_out={_COMPILED}"]
sys.exit(protoc.main(["protoc", *options, "{MAIN}"]))
"""


def compiled(text: str, references: Mapping[str, str]) -> bytes:
    """A ``FileDescriptorSet``, each file after those that it imports. ``references``: files by the name that an import
    has for them. Raises ``Malformed`` in the compiler's words."""
    return _compiled(text, tuple(references.items()))


@lru_cache(maxsize=64)  # every partition's decoder asks for the same
def _compiled(text: str, references: tuple[tuple[str, str], ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="churnguard-proto-") as name:
        folder = Path(name)
        for file, content in (*references, (MAIN, text)):
            if not _NAME.fullmatch(file):
                raise Malformed(f"it imports a file of an impossible name, “{on_one_line(file, 100)}”")
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        with (folder / _SAID).open("wb") as said:
            ended = _run(folder, said.fileno())
        if ended != 0:
            raise Malformed(f"it cannot be compiled: {_words((folder / _SAID).read_bytes()[:4000])}")
        return (folder / _COMPILED).read_bytes()


def _words(said: bytes) -> str:
    """What is said of a file: ``message.proto:1:18: …``."""
    lines = [line for line in said.decode(errors="replace").splitlines() if ".proto:" in line and line[0] != "W"]
    return on_one_line(" ".join(lines), 400) or "it takes too much"


def _run(folder: Path, said: int) -> int | None:
    try:
        return subprocess.run(  # noqa: S603 - the program and its arguments are ours
            [sys.executable, "-I", "-c", _PROGRAM],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            timeout=SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return None
