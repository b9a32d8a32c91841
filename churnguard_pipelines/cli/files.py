"""Integration, rule and stream files: YAML with ``${ENV_VAR}`` for secrets -> an organization and what is its."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from churnguard_pipelines.connectors import connector
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import APIIngestionRule, IntegrationConfiguration, Organization, StreamConfiguration
from churnguard_pipelines.wrong_fields import described

M = TypeVar("M", bound=BaseModel)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class IntegrationFile:
    organization: Organization
    integration: IntegrationConfiguration


@dataclass(frozen=True, slots=True)
class RuleFile:
    organization: Organization
    rule: APIIngestionRule


@dataclass(frozen=True, slots=True)
class StreamFile:
    organization: Organization
    stream: StreamConfiguration


def read_stream_file(path: Path) -> StreamFile:
    """Raises as :func:`read_integration_file` does."""
    document, organization = _read(path)
    document.setdefault("name", document.get("stream_id", ""))
    return StreamFile(organization, _validated(StreamConfiguration, document, path))


def read_rule_file(path: Path) -> RuleFile:
    """Raises as :func:`read_integration_file` does."""
    document, organization = _read(path)
    document.setdefault("name", document.get("rule_id", ""))
    return RuleFile(organization, _validated(APIIngestionRule, document, path))


def read_integration_file(path: Path) -> IntegrationFile:
    """Raises ``InvalidConfiguration`` naming the file and the line or field, and what to write there."""
    document, organization = _read(path)
    provider = document.get("provider_name")
    if not isinstance(provider, str):
        raise InvalidConfiguration(f"{path}: provider_name is missing.", remedy="Write e.g. `provider_name: stripe`.")
    known = connector(provider)  # refuses an unknown provider by naming the known ones
    document.setdefault("integration_type", known.kind)
    document.setdefault("integration_name", known.title)
    integration = _validated(IntegrationConfiguration, document, path)
    known.check_fields(integration)
    return IntegrationFile(organization, integration)


def _read(path: Path) -> tuple[dict[str, Any], Organization]:
    """All of the file but its organization, and that."""
    document = _substitute(_parse(path), str(path), "")
    organization = document.pop("organization", {})
    if not isinstance(organization, dict):
        raise InvalidConfiguration(
            f"{path}: organization has no fields.", remedy="Write e.g. `organization: {name: Acme Inc.}`."
        )
    if "organization_id" not in document:
        raise InvalidConfiguration(f"{path}: organization_id is missing.", remedy="Write whose it is.")
    organization_id = document["organization_id"]
    fields = {"organization_id": organization_id, "name": organization_id, **organization}
    return document, _validated(Organization, fields, path)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfiguration(
            f"{path} cannot be read: {error.strerror}.", remedy=f"Correct its path, which starts from {Path.cwd()}."
        ) from None
    except UnicodeDecodeError:
        raise InvalidConfiguration(f"{path} is no text in UTF-8.", remedy="Save it as such.") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = _without_quotes(getattr(error, "problem", None) or "not YAML")
        raise InvalidConfiguration(f"{path}{where}: {problem}.", remedy="Correct the YAML and try again.") from None
    except ValueError as error:  # of a value that looks like a date and is none
        problem = _without_quotes(str(error))
        raise InvalidConfiguration(f"{path}: {problem}.", remedy="Correct the YAML and try again.") from None
    if not isinstance(document, dict):
        raise InvalidConfiguration(f"{path} has no fields.", remedy="Write e.g. `integration_id: acme`.")
    return document


def _without_quotes(problem: str) -> str:
    """YAML's message without what it quotes: a secret without quotation marks can look like an alias or a tag."""
    return re.sub(r"'[^'<]{2,}'", "…", problem)


def _substitute(value: Any, file: str, field: str) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, file, f"{field}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, file, field) for item in value]
    if not isinstance(value, str):
        return value

    def resolve(match: re.Match[str]) -> str:
        name = match.group(1)
        if not os.environ.get(name):
            raise InvalidConfiguration(
                f"{file}: {field} refers to ${{{name}}}, which is not set.", remedy=f"export {name}=… and try again."
            )
        return os.environ[name]

    return _REFERENCE.sub(resolve, value)


def _validated(model: type[M], fields: dict[str, Any], path: Path) -> M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = described(model, error)
        raise InvalidConfiguration(f"{path}: {problems}.", remedy="Correct the file and try again.") from None
