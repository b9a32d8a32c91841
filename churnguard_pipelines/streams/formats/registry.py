"""Asks a schema registry: Confluent's REST API, which Karapace, Redpanda and Apicurio speak, too. Its answers are a
stranger's: bounded in time, bytes and number, and only from where the address guard lets us go.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.auth import Basic
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.stream_options import LONGEST_SCHEMA, SchemaRegistry

SECONDS = 10.0
"""That an answer may take."""
MOST_BYTES = 4 << 20
"""Of an answer."""
MOST_REFERENCES = 100
"""Schemas that one needs, whatever those need included."""
MOST_SUBJECTS = 20
"""Asked for when a stream is checked."""
_URL = "Correct connection_config.schema_registry.url."
_CREDENTIALS = "Correct username and password in connection_config.schema_registry."
_LATER = "It is asked again."


@dataclass(frozen=True, slots=True)
class Source:
    """A schema as its author wrote it. ``kind``: AVRO, JSON or PROTOBUF; ``references``: other schemas by the name that
    it has for them, each after those that it needs itself."""

    kind: str
    text: str
    references: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Everything raises ``AuthenticationFailed`` or ``PermissionMissing``; ``ProviderUnavailable`` where it does not
    answer, or does not have a schema yet; ``ProviderMisbehaved`` and ``RequestRefused`` where it is no registry; and
    ``Malformed`` for a schema beyond all bounds."""

    def __init__(self, options: SchemaRegistry, guard: AddressGuard) -> None:
        parts = urlsplit(options.url)
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        username = options.username or unquote(parts.username or "")
        password = options.password.get_secret_value() if options.password else unquote(parts.password or "")
        self._auth = Basic(username, password) if username or password else None
        self._guard = guard

    def schema(self, schema_id: int) -> Source:
        with self._asking() as ask:
            told = ask.get(f"/schemas/ids/{schema_id}")
            if told is None:
                raise self._missing(f"schema {schema_id}")
            return self._source(ask, told)

    def newest(self, topics: Sequence[str]) -> dict[str, Source]:
        """Of the values of each topic that has one yet, by its subject. Patterns of topics are not looked for."""
        subjects = [f"{topic}-value" for topic in topics if "*" not in topic][:MOST_SUBJECTS]
        found: dict[str, Source] = {}
        with self._asking() as ask:
            if not subjects:  # is it one, at least?
                ask.get("/subjects?subjectPrefix=none")
            for subject in subjects:
                told = ask.get(f"/subjects/{quote(subject, safe='')}/versions/latest")
                if told is not None:
                    found[subject] = self._source(ask, told)
        return found

    def _source(self, ask: _Asking, told: Any) -> Source:
        references: dict[str, str] = {}
        self._follow(ask, told, references, set())
        return Source(ask.text(told, "schemaType", "AVRO"), _schema_of(ask, told), references)

    def _follow(self, ask: _Asking, told: Any, references: dict[str, str], asked: set[str]) -> None:
        listed = [(ask.text(each, "name"), each) for each in ask.listed(told, "references")]
        if len(asked.union(name for name, _ in listed)) > MOST_REFERENCES:
            raise Malformed(f"it refers to more than {MOST_REFERENCES} schemas")
        for name, each in listed:
            if name in asked:
                continue
            asked.add(name)
            subject, version = ask.text(each, "subject"), each.get("version")
            if not isinstance(version, int):
                raise ask.strange()
            needed = ask.get(f"/subjects/{quote(subject, safe='')}/versions/{version}")
            if needed is None:
                raise self._missing("a schema that another one refers to")
            self._follow(ask, needed, references, asked)
            references[name] = _schema_of(ask, needed)

    @contextmanager
    def _asking(self) -> Iterator[_Asking]:
        """A client for a moment: schemas are seldom asked for, and kept."""
        client = HttpClient(
            self._guard,
            provider_title="The schema registry",
            auth=self._auth,
            retry=RetryPolicy(attempts=1),
            timeout=SECONDS,
            max_body=MOST_BYTES,
            headers={"accept": "application/vnd.schemaregistry.v1+json, application/json"},
        )
        try:
            with client:
                yield _Asking(client, self._url)
        except (AuthenticationFailed, PermissionMissing) as error:
            error.remedy = _CREDENTIALS
            raise
        except (ProviderMisbehaved, RequestRefused) as error:
            error.remedy = _URL
            raise
        except ProviderUnavailable as error:
            error.remedy = f"{_LATER} If it lasts: {_URL[0].lower()}{_URL[1:]}"
            raise

    def _missing(self, what: str) -> ProviderError:
        return ProviderUnavailable(
            f"the schema registry does not have {what}.",
            integration_id=self._guard.integration_id,
            remedy=_LATER,
        )


@dataclass(frozen=True, slots=True)
class _Asking:
    client: HttpClient
    url: str

    def get(self, path: str) -> Any:
        """None for what the registry says that it does not have."""
        answer = self.client.request("GET", self.url + path, allow=(404,), expect_json=True)
        if answer.status != 404:
            return answer.json()
        try:
            told = answer.json()
        except ProviderUnavailable:
            told = None
        if isinstance(told, dict) and "error_code" in told:
            return None
        raise ProviderUnavailable(
            "what answers 404 at the schema registry's address is none.",
            integration_id=self.client.integration_id,
            status=404,
        )

    def text(self, told: Any, name: str, default: str | None = None) -> str:
        found = told.get(name, default) if isinstance(told, dict) else None
        if not isinstance(found, str):
            raise self.strange()
        return found

    def listed(self, told: Any, name: str) -> list[dict[str, Any]]:
        found = told.get(name) or [] if isinstance(told, dict) else None
        if not (isinstance(found, list) and all(isinstance(each, dict) for each in found)):
            raise self.strange()
        return found

    def strange(self) -> ProviderError:
        return ProviderUnavailable(
            "the schema registry's answer is none that registries give.", integration_id=self.client.integration_id
        )


def _schema_of(ask: _Asking, told: Any) -> str:
    text = ask.text(told, "schema")
    if len(text) > LONGEST_SCHEMA:
        raise Malformed(f"it has more than {LONGEST_SCHEMA:,} characters")
    return text
