"""Every regular expression of the product, how it is used, and texts that make a pattern that backtracks slow.

Found by reading the source: what is compiled into a name of a module, and what is written in the call itself.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from re import _parser as parser  # isort: skip

ROOT = Path(__file__).parents[3]
PACKAGES = ("churnguard_pipelines", "webhook_gateway")
ANCHORED = {"match", "fullmatch"}
USES = ANCHORED | {"search", "findall", "finditer", "sub", "subn", "split"}


class Used(NamedTuple):
    """``scans``: whether a match is looked for at every place of a text, or at its beginning only."""

    where: str
    pattern: re.Pattern[Any]
    scans: bool


def all_patterns() -> list[Used]:
    found: list[Used] = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if re.search(r"\bre\b|_re\b|Pattern", text) and "migrations" not in path.parts:
                found += _of_module(path, ast.parse(text))
    return found


def _of_module(path: Path, tree: ast.Module) -> Iterator[Used]:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    uses: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in USES:
            uses.setdefault(node.value.id, set()).add(node.attr)
        if isinstance(node, ast.Call) and isinstance(function := node.func, ast.Attribute) and function.attr in USES:
            if ast.unparse(function.value) != "re":
                continue
            pattern = re.compile(_text(node.args[0], vars(module)), _flags(node, function.attr))
            yield Used(f"{name}:{node.lineno}", pattern, function.attr not in ANCHORED)
    for constant, value in vars(module).items():
        if isinstance(value, re.Pattern):
            yield Used(f"{name}.{constant}", value, not uses.get(constant, {"search"}) <= ANCHORED)


def _text(node: ast.expr, names: dict[str, Any]) -> str:
    """What is put in where the program runs is a name of ours."""
    if isinstance(node, ast.Name):
        return str(names[node.id])
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr), f"a pattern that is neither written out nor a constant: {ast.unparse(node)}"
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)


def _flags(node: ast.Call, function: str) -> int:
    named = [word.value for word in node.keywords if word.arg == "flags"]
    given = named + node.args[3 if function == "sub" else 2 :]
    names = (each.attr for flags in given for each in ast.walk(flags) if isinstance(each, ast.Attribute))
    return sum({getattr(re, name) for name in names})


def pumped(pattern: re.Pattern[Any], size: int) -> Iterator[Any]:
    """Texts of about this size out of what the pattern itself is made of: its words, a sign of each of its classes, and
    pairs of them, over and over, after each of its words, and with an end that does not fit."""
    units = _units(pattern)
    repeated = [*units, *(one + other for one in units for other in units if one != other)]
    for unit in repeated:
        body = unit * (size // len(unit))
        yield from _typed(pattern, body, body + "\x01")
    for first in units:
        for unit in units:
            yield from _typed(pattern, first + unit * (size // len(unit)) + "\x01")


def _typed(pattern: re.Pattern[Any], *texts: str) -> Iterator[Any]:
    return iter(texts) if isinstance(pattern.pattern, str) else (text.encode("latin-1", "replace") for text in texts)


def _units(pattern: re.Pattern[Any]) -> list[str]:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    found: dict[str, None] = {}
    _collect(parser.parse(text, pattern.flags & ~re.UNICODE), found)
    words = [f"{word} " for word in found if len(word) > 2]
    return [*words, *found][:24]


def _collect(parsed: Any, found: dict[str, None]) -> None:
    word = ""
    for operation, argument in parsed:
        kind = str(operation)
        if kind == "LITERAL":
            word += chr(argument)
            continue
        if word:
            found[word] = None
            word = ""
        if kind == "IN":
            for sign in _signs(argument):
                found[sign] = None
        elif kind == "NOT_LITERAL":
            found["a" if chr(argument) != "a" else "b"] = None
        elif kind == "ANY":
            found["a"] = None
        else:
            for part in argument if isinstance(argument, tuple) else (argument,):
                _collect_part(part, found)
    if word:
        found[word] = None
        found[word[0]] = None


def _collect_part(part: Any, found: dict[str, None]) -> None:
    if isinstance(part, parser.SubPattern):
        _collect(part, found)
    elif isinstance(part, list):
        for each in part:
            _collect_part(each, found)


def _signs(members: list[Any]) -> Iterator[str]:
    excluded = {chr(argument) for kind, argument in members if str(kind) == "LITERAL"}
    if str(members[0][0]) == "NEGATE":
        yield next(sign for sign in "a 0?x\t\x02" if sign not in excluded)
        yield from sorted(excluded)
        return
    for kind, argument in members:
        if str(kind) == "LITERAL":
            yield chr(argument)
        elif str(kind) == "RANGE":
            yield chr(argument[0])
        elif str(kind) == "CATEGORY":
            yield {"CATEGORY_DIGIT": "0", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}.get(str(argument), "-")
