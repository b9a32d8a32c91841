"""Writes docs/reference.md: every setting, and every field of the files, as the models have them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel

from churnguard_pipelines import model
from churnguard_pipelines.rule_options import ChildTable, Incremental, Pagination, Parent
from churnguard_pipelines.settings import Settings
from churnguard_pipelines.stream_options import FormatOptions

PATH = Path(__file__).parent.parent / "docs" / "reference.md"
HEAD = """# Reference: settings and files

Made from the models by `make reference`; a test holds the two equal.

## Environment

In the environment, or in `.env` in the folder in which a command is given; the environment wins. A value that cannot be
stops the start and is named, a name that is nearly one of these is warned of.

"""
FILES = """
## Files

`churnguard integrations add FILE.yaml`, `rules add`, `streams add`. `${NAME}` stands for an environment variable,
wherever a text may: secrets belong there. A field that is not listed is refused, with the one that was meant.
`organization` has the fields of the first table but `organization_id`, and may be left out once it is there.
"""
MODELS: dict[str, type[BaseModel]] = {
    "organization": model.Organization,
    "An integration": model.IntegrationConfiguration,
    "credentials": model.IntegrationCredentials,
    "sync_config": model.SyncConfiguration,
    "data_filters, filters": model.DataFilter,
    "A rule": model.APIIngestionRule,
    "pagination": Pagination,
    "incremental": Incremental,
    "parent": Parent,
    "children": ChildTable,
    "A stream": model.StreamConfiguration,
    "format_options": FormatOptions,
}
NOT_WRITTEN = {"created_at", "created_by", "configured_by", "last_sync_timestamp"}
"""Fields that the product fills in itself."""


def render() -> str:
    parts = [HEAD, *_table(Settings, "variable"), FILES]
    for title, kind in MODELS.items():
        parts += [f"\n### {title}\n\n", _about(kind), *_table(kind, "field")]
    return "".join(parts)


def _table(kind: type[BaseModel], heading: str) -> Iterator[str]:
    schema = kind.model_json_schema()
    told = _told(kind)
    yield f"| {heading} | what | default | |\n|---|---|---|---|\n"
    for name, field in kind.model_fields.items():
        if name in NOT_WRITTEN:
            continue
        alias = field.validation_alias
        shown = str(alias.choices[0]) if isinstance(alias, AliasChoices) else name
        described = schema["properties"][shown]
        yield f"| `{shown}` | {_what(described, schema)} | {_default(described, field)} | {told.get(name, '')} |\n"


def _default(described: dict[str, Any], field: Any) -> str:
    value = described.get("default")
    if value is None or value == [] or value == {}:
        return "must be given" if field.is_required() else ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _what(described: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in described:
        name = described["$ref"].rsplit("/", 1)[1]
        section = next((title for title, kind in MODELS.items() if kind.__name__ == name), None)
        return f"see *{section}*" if section else _what(schema["$defs"][name], schema)
    if "anyOf" in described:
        kinds = [_what(each, schema) for each in described["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in described or "const" in described:
        return ", ".join(f"`{each}`" for each in described.get("enum", [described.get("const")]))
    kind = described.get("type", "")
    if kind == "array":
        several = _what(described["items"], schema)
        return "list, comma-separated" if several == "mapping" else f"list of {several}"
    if kind == "object":
        values = described.get("additionalProperties")
        return f"mapping to {_what(values, schema)}" if isinstance(values, dict) else "mapping"
    if described.get("format") == "password":
        return "secret text"
    names = {"uri": "URL", "date-time": "date and time", "path": "path", "date": "date"}
    said = names.get(
        described.get("format", ""), {"string": "text", "boolean": "true or false"}.get(kind, kind or "any")
    )
    return f"{said}{_bounds(described)}"


def _bounds(described: dict[str, Any]) -> str:
    least = described.get("minimum", described.get("exclusiveMinimum"))
    most = described.get("maximum")
    if least is None and most is None:
        return ""
    return f", {least} to {most}" if most is not None else f", {least} or more"


def _about(kind: type[BaseModel]) -> str:
    """The class's own description, for whoever writes a file."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", inspect.cleandoc(kind.__doc__ or ""))
    return f"{text.replace('``', '`')}\n\n" if text else ""


def _told(kind: type[BaseModel]) -> dict[str, str]:
    """What stands below each field in the source, or beside it."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not issubclass(each, BaseModel) or each.__module__.startswith("pydantic"):
            continue
        source = inspect.cleandoc("\n" + inspect.getsource(each))
        [body] = ast.parse(source).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, [*body.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = " ".join(str(after.value.value).replace("``", "`").split())
    return found
