"""No text but ours becomes SQL: what a source, a request or a setting says is a parameter, a quoted name or an
enumerated type, never a part of a statement's text.

Every call that makes a statement of text is looked at. Its text is written there, made of constants of the module and
of names that are quoted; or else it stands below with the reason why it is ours all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = ("sandbox", "migrations")  # simulated providers; scripts that take nothing from anywhere
MAKES_SQL = {"SQL", "text", "exec_driver_sql", "execute", "executemany", "copy", "stream"}
ALWAYS_TEXT = {"SQL", "text", "exec_driver_sql"}
QUOTES = {"as_string", "quoted", "taking", "taking_own"}
"""Calls whose result is part of a statement by design: names quoted by psycopg, and locks' texts."""

OURS = {
    "churnguard_pipelines/mirror_types.py sql": "str() of an enumerated base and two checked integers",
    "churnguard_pipelines/analytics/evidence.py _rows": "a file of the package",
    "churnguard_pipelines/monitoring/monitor.py <module>": "constants of the module",
    "churnguard_pipelines/store/ingest/breakers.py _read": "one of two that stand in the module",
    "churnguard_pipelines/store/ingest/due.py <module>": "constants of the module, and what its parameters are called",
    "churnguard_pipelines/store/ingest/due.py has_synced": "a constant of the module",
    "churnguard_pipelines/store/ingest/inbox.py replay": "its conditions stand there, their values are parameters",
    "churnguard_pipelines/store/ingest/ledger.py <module>": "names of our own counts",
    "churnguard_pipelines/store/ingest/materializations.py <module>": "names of our own counts",
    "churnguard_pipelines/store/postgres/locks.py <module>": "the name of one of our locks",
    "churnguard_pipelines/store/raw/mirror_tables.py _create": "made by row_security.protect of quoted names",
    "churnguard_pipelines/store/raw/mirror_writer.py sql": "each template stands there",
    "churnguard_pipelines/store/raw/mirror_writer.py plain": "each template stands there",
    "churnguard_pipelines/store/raw/tables.py _creation": "an enumerated ColumnType of a declaration",
    "churnguard_pipelines/store/raw/tables.py create_or_widen": "row_security.protect, and an enumerated ColumnType",
    "churnguard_pipelines/syncing/repair.py _select": "quoted names of a declaration",
    "churnguard_pipelines/syncing/database.py _ask": "count(*), or max() of a quoted name",
}


HOLES = """
import sqlalchemy as sa
from sqlalchemy import text
from psycopg.sql import SQL

def by_a_type(column): SQL("ALTER {} TYPE {}").format(column.name, SQL(column.type))
def by_a_name(connection, name): connection.exec_driver_sql(f"SELECT {name}")
def by_a_name_of_the_driver(cursor, name): cursor.execute(f"SELECT {name}")
def by_adding(name): sa.text("SELECT " + name)
def by_another_text(name): text("SELECT {}".format(name))
def by_a_detour(connection, name):
    statement = "SELECT 1 AS "
    statement += name
    connection.exec_driver_sql(statement)
"""


def test_the_text_of_every_statement_is_ours() -> None:
    assert found_in_the_product() - OURS.keys() == set(), "quote the name, pass a parameter, enumerate what can be"


def test_what_is_excused_is_still_there() -> None:
    assert OURS.keys() - found_in_the_product() == set()


def test_holes_are_found() -> None:
    assert len(set(foreign_texts(HOLES))) == HOLES.count("def ")


def found_in_the_product() -> set[str]:
    found: set[str] = set()
    for package in ("churnguard_pipelines", "webhook_gateway"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT)
            if not set(name.parts) & set(LEFT_OUT):
                found |= {f"{name} {function}" for function in foreign_texts(path.read_text())}
    return found


def foreign_texts(source: str) -> Iterator[str]:
    """The functions with statements that are not of our own text."""
    tree = ast.parse(source)
    imported = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "sqlalchemy")
    texts = {"sa.text"} | {alias.name for node in imported for alias in node.names if alias.name == "text"}
    return _in(tree, "<module>", {}, texts)


def _in(node: ast.AST, function: str, assigned: dict[str, list[ast.expr]], texts: set[str]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _in(child, child.name, assigned | _assignments(child), texts)
            continue
        if (
            isinstance(child, ast.Call)
            and child.args
            and _makes_sql(child, texts)
            and not _is_ours(child.args[0], assigned)
        ):
            yield function
        yield from _in(child, function, assigned, texts)


def _assignments(function: ast.AST) -> dict[str, list[ast.expr]]:
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            values.setdefault(node.target.id, []).append(node.value)
    return values


def _makes_sql(call: ast.Call, texts: set[str]) -> bool:
    name = _name(call)
    if name == "text":
        return ast.unparse(call.func) in texts
    composed = any(isinstance(each, ast.JoinedStr | ast.BinOp) for each in ast.walk(call.args[0]))
    return name in ALWAYS_TEXT or (name in MAKES_SQL and composed)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_ours(node: ast.AST, assigned: dict[str, list[ast.expr]]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name) if name.isupper():
            return True
        case ast.Attribute(attr=name) if name.isupper():
            return True
        case ast.Name(id=name) if name in assigned:
            rest = {other: values for other, values in assigned.items() if other != name}
            return all(_is_ours(value, rest) for value in assigned[name])
        case ast.IfExp(body=body, orelse=orelse):
            return _is_ours(body, assigned) and _is_ours(orelse, assigned)
        case ast.JoinedStr(values=values):
            return all(_is_ours(value, assigned) for value in values)
        case ast.FormattedValue(value=value):
            return _is_ours(value, assigned)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _is_ours(left, assigned) and _is_ours(right, assigned)
        case ast.Call(func=ast.Name(id="int")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr="replace" | "join")):
            return _is_ours(value, assigned) and all(_is_ours(each, assigned) for each in node.args)
        case ast.Call():
            return _name(node) in QUOTES
        case ast.GeneratorExp(elt=element):
            return _is_ours(element, assigned)
    return False
