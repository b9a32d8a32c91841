"""Stripe's published OpenAPI description as a judge of the simulated API's answers."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parents[3]
CONTRACTS = Path(os.environ.get("CHURNGUARD_CONTRACTS", ROOT.parent / "shared" / "contracts"))


@cache
def _description() -> dict[str, Any]:
    path = CONTRACTS / "stripe" / "openapi.json"
    if not path.exists():
        message = f"{path} is missing; CHURNGUARD_CONTRACTS points at the folder of the providers' own descriptions"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    description: dict[str, Any] = json.loads(path.read_text())
    return description


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0's `nullable` in JSON Schema's words; an object with listed properties has no others."""
    if isinstance(node, list):
        return [_as_json_schema(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    made = {name: _as_json_schema(value) for name, value in node.items()}
    if made.get("type") == "object" and "properties" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made


@cache
def _schemas() -> dict[str, Any]:
    return {name: _as_json_schema(schema) for name, schema in _description()["components"]["schemas"].items()}


@cache
def judge(schema: str) -> jsonschema.Draft202012Validator:
    """A validator of one of Stripe's object types, with no field allowed that Stripe does not publish."""
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": {"schemas": _schemas()}}
    )


def list_parameters(path: str) -> set[str]:
    """The names of the parameters that Stripe's list at `path` takes."""
    return {parameter["name"] for parameter in _description()["paths"][path]["get"]["parameters"]}
