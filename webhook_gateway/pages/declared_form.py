"""The form of a new integration, made of what its connector declares, and the configuration that it says."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup, escape
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from churnguard_pipelines.connectors import connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, Connector
from churnguard_pipelines.connectors.sdk.access import STANDARD, Access, Entry
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import ConfiguredBy, DataSyncMode, IntegrationConfiguration, SyncConfiguration, revealed
from churnguard_pipelines.wrong_fields import fields_at, problem

OBJECTS, EXCLUDE = "objects", "exclude"
FILTERS = Entry(
    "data_filters",
    "records to keep, as in a file: - {field: status, operator: eq, value: active, objects: [customers]}",
    optional=True,
    long=True,
)
MAPPINGS = Entry(
    "field_mappings",
    "columns of your own, as in a file: customers: {metadata.plan: plan, metadata.seats: 'seats:bigint'}",
    optional=True,
    long=True,
)
_PLACES = ("credentials", "custom_fields", "sync_config")
"""Of the configuration, in which fields of the form lie."""
NEEDED = "is needed"
LONGEST_YAML = 10_000
"""Characters; a form is read while others wait."""
_SPELLED = {"api": "API", "url": "URL", "id": "ID", "tls": "TLS", "ca": "CA", "pubsub": "Pub/Sub", "gridfs": "GridFS"}

Values = Mapping[str, str]
"""What was filled in, by the field's name; lists have an item a line."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field as it is shown. ``value``: never of a secret; ``kept``: there is one, which is not shown; ``wrong``: what
    is wrong with it."""

    entry: Entry
    value: str
    kept: bool
    wrong: str | None

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def label(self) -> str:
        first, *rest = (_SPELLED.get(word, word) for word in self.entry.name.split("_"))
        return " ".join([first[:1].upper() + first[1:], *rest])

    @property
    def text(self) -> Markup:
        """Its value as it was given, on lines of its own."""
        return escape(self.value)

    @property
    def options(self) -> Sequence[str]:
        """Of a choice; the empty one stands for what holds if it is left out."""
        return ("", *self.entry.choices) if self.entry.optional else self.entry.choices


class WrongFields(InvalidConfiguration):
    """``fields``: what is wrong with each, by name."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        count = "One field is" if len(fields) == 1 else f"{len(fields)} fields are"
        super().__init__(f"{count} wrong or missing.", remedy="Correct what is marked below.")


def addable() -> list[type[Connector]]:
    """The providers that have a form: those that declare a way in."""
    return sorted((each for each in connectors() if each.access), key=lambda each: each.title.casefold())


def way_of(kind: type[Connector], name: str) -> Access:
    """The usual one if there is none of this name."""
    return next((way for way in kind.access if way.name == name), kind.access[0])


def sync_entries(kind: type[Connector]) -> tuple[Entry, ...]:
    modes = (DataSyncMode.INCREMENTAL, DataSyncMode.FULL, *([DataSyncMode.REAL_TIME] if kind.followable else []))
    default = SyncConfiguration()
    return (
        Entry("sync_mode", f"{default.sync_mode} if left out", optional=True, choices=tuple(modes)),
        Entry(
            "sync_frequency", f"seconds from one sync to the next, {default.sync_frequency} if left out", optional=True
        ),
        Entry("concurrent_requests", f"at most, {default.concurrent_requests} if left out", optional=True),
        Entry("requests_per_minute", "at most; the provider's own limit if left out", optional=True),
        *([FILTERS] if issubclass(kind, ApiConnector) else []),
        MAPPINGS,
        *(
            []
            if objects_of(kind)
            else [_patterns(OBJECTS, "to read, all if left out"), _patterns(EXCLUDE, "to leave out")]
        ),
    )


def _patterns(name: str, what: str) -> Entry:
    return Entry(name, f"{what}: names and patterns as billing.*, one a line", optional=True, long=True)


def objects_of(kind: type[Connector]) -> Sequence[str]:
    """Those to choose from before anybody was asked; none of a database."""
    return [item.name for item in kind.objects] if issubclass(kind, ApiConnector) else []


def shown(entries: Iterable[Entry], values: Values, wrong: Mapping[str, str]) -> list[Field]:
    return [
        Field(
            entry, "" if entry.secret else values.get(entry.name, ""),
            entry.secret and bool(values.get(entry.name)), wrong.get(entry.name),
        )
        for entry in entries
    ]  # fmt: skip


def configuration(
    kind: type[Connector], way: Access, values: Values, *, integration_id: str, created_by: str, by: ConfiguredBy
) -> IntegrationConfiguration:
    """What was filled in. Raises :class:`WrongFields`, and ``InvalidConfiguration`` for fields that do not fit each
    other."""
    given = {name: value for name, value in values.items() if value}
    wrong = {
        each.name: NEEDED for each in (*way.entries, *kind.settings) if not each.optional and each.name not in given
    }
    wrong |= {name: NEEDED for name in ("organization_id", "integration_name") if name not in given}
    if (there := objects_of(kind)) and OBJECTS not in given:
        wrong[OBJECTS] = "choose one at least"
    elif there and set(there) <= set(given[OBJECTS].split("\n")):
        del given[OBJECTS]  # all, and what the account adds to them
    own = {each.name: given[each.name] for each in way.entries if each.name in given}
    sync: dict[str, Any] = {each.name: given[each.name] for each in sync_entries(kind) if each.name in given}
    sync |= {name: given[name].split("\n") for name in (OBJECTS, EXCLUDE) if name in given}
    for name in {FILTERS.name, MAPPINGS.name} & sync.keys():
        try:
            sync[name] = _as_in_a_file(sync[name])
        except ValueError as error:
            wrong[name] = str(error)
            del sync[name]
    fields: dict[str, Any] = {
        "integration_id": integration_id,
        "organization_id": given.get("organization_id", "unknown"),
        "integration_name": given.get("integration_name", ""),
        "integration_type": kind.kind,
        "provider_name": kind.provider,
        "credentials": {
            "credential_type": way.type,
            **{name: value for name, value in own.items() if name in STANDARD},
            "custom_fields": {name: value for name, value in own.items() if name not in STANDARD},
        },
        "sync_config": sync,
        "created_by": created_by,
        "configured_by": by,
        **{each.name: given[each.name] for each in kind.settings if each.name in given},
    }
    try:
        made = IntegrationConfiguration.model_validate(fields)
    except ValidationError as error:
        wrong = dict(map(_wrong, error.errors(include_input=False))) | wrong
        raise WrongFields(wrong) from None
    if wrong:
        raise WrongFields(wrong)
    kind.check_fields(made)
    return made


def _wrong(item: ErrorDetails) -> tuple[str, str]:
    """The field of the form, by where it lies in the configuration, and what is wrong with it."""
    name, *within = [str(step) for step in item["loc"] if step not in _PLACES] or [""]
    told = problem(item, fields_at(IntegrationConfiguration, item["loc"]))
    return name, f"{'.'.join(within)}: {told}" if within else told


class _Plain(yaml.SafeLoader):
    """Without aliases, by which a few lines would be many."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=mark)
        return super().compose_node(parent, index)


def _as_in_a_file(text: str) -> Any:
    """What YAML says, as JSON has it. Raises ``ValueError``."""
    if len(text) > LONGEST_YAML:
        raise ValueError(f"this has more than {LONGEST_YAML:,} characters; add the integration by its file")
    try:
        return json.loads(json.dumps(yaml.load(text, _Plain), allow_nan=False, default=str))  # noqa: S506 - a safe one
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"this is not YAML{where}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        raise ValueError("this is not YAML, or more than JSON can say") from None


def dumped(made: IntegrationConfiguration) -> dict[str, Any]:
    """With its secrets in clear: to be sealed, nothing else. What nobody set is left out: it is not as if they had."""
    settled = made.model_dump(mode="json", exclude={"credentials"}, exclude_unset=True)
    return settled | {"credentials": revealed(made.credentials.model_dump(exclude_none=True))}
