"""SendGrid's published OpenAPI descriptions as judges of requests and of the simulated API's answers."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from typing import Any

import pytest

from tests.sandbox.stripe.contracts import CONTRACTS

Node = dict[str, Any]


@cache
def described() -> dict[str, Node]:
    """By name of the file."""
    folder = CONTRACTS / "sendgrid"
    found = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("tsg_*_v3.json"))}
    if not found:
        message = f"{folder} is empty; CHURNGUARD_CONTRACTS points at the folder of the providers' own descriptions"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


def operation_of(method: str, path: str) -> tuple[Node, Node]:
    """The description that has the path, and its operation with all parameters in full. AssertionError: none has."""
    fitting = [
        (template.count("{"), template, description)
        for description in described().values()
        for template, methods in description["paths"].items()
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path) and method.lower() in methods
    ]
    assert fitting, f"SendGrid has no {method} {path}"
    _, template, description = min(fitting, key=lambda each: each[0])
    methods = description["paths"][template]
    operation = methods[method.lower()]
    parameters = [*operation.get("parameters", []), *methods.get("parameters", [])]
    return description, operation | {"parameters": [resolved(description, each) for each in parameters]}


def resolved(description: Node, node: Any) -> Any:
    """Without references, and with OpenAPI 3.0's `nullable` in JSON Schema's words."""
    if isinstance(node, list):
        return [resolved(description, each) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found: Any = description
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/")]
        return resolved(description, found)
    made = {name: resolved(description, value) for name, value in node.items()}
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made


def schema_of(path: str, status: str = "200", method: str = "GET") -> Node:
    """Of an answer."""
    description, operation = operation_of(method, path)
    answer = resolved(description, operation["responses"][status])
    schema: Node = answer["content"]["application/json"]["schema"]
    return schema
