"""A schema registry in the test's process, as Confluent's REST API has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.engine.loopback import Answer, Api, Asked, as_json, serve


@dataclass
class SchemaRegistry:
    """``late``: how often it says of a schema that it is not there, before it is. ``credentials``: the only ones that
    it takes."""

    api: Api
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    late: int = 0
    credentials: tuple[str, str] | None = None

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def asked(self) -> list[str]:
        return [each.path for each in self.api.asked]

    def add(self, subject: str, schema: str, kind: str = "AVRO", references: Sequence[tuple[str, str]] = ()) -> int:
        """Its id. ``references``: names and the subjects that they mean, the newest version of each."""
        number = len(self.schemas) + 1
        listed = [{"name": name, "subject": of, "version": len(self.subjects[of])} for name, of in references]
        self.schemas[number] = {"schema": schema, "schemaType": kind, "references": listed}
        self.subjects.setdefault(subject, []).append(number)
        return number

    def answer(self, asked: Asked) -> Answer:
        if self.credentials and asked.headers.get("authorization") != _basic(*self.credentials):
            return as_json({"error_code": 40101, "message": "Unauthorized canary"}, 401)
        match unquote(asked.path).strip("/").split("/"):
            case ["subjects"]:
                return as_json([*self.subjects])
            case ["schemas", "ids", number]:
                if int(number) not in self.schemas or self._is_late():
                    return as_json({"error_code": 40403, "message": "Schema not found"}, 404)
                return as_json(self.schemas[int(number)])
            case ["subjects", *subject, "versions", version]:
                versions = self.subjects.get("/".join(subject))
                if not versions:
                    return as_json({"error_code": 40401, "message": "Subject not found"}, 404)
                found = versions[-1] if version == "latest" else versions[int(version) - 1]
                return as_json({"subject": "/".join(subject), "id": found, **self.schemas[found]})
        return Answer(404, b"<html>not here</html>", {"Content-Type": "text/html"})

    def _is_late(self) -> bool:
        self.late -= 1
        return self.late >= 0


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


@contextmanager
def running() -> Iterator[SchemaRegistry]:
    with serve() as api:
        registry = SchemaRegistry(api)
        api.answers = [registry.answer]
        yield registry


def enveloped(schema_id: int, message: bytes) -> bytes:
    """https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format"""
    return b"\0" + schema_id.to_bytes(4) + message
