"""`/api/ingestion/rules`: configure REST endpoints that are read on a schedule."""

from datetime import datetime
from functools import partial
from secrets import token_hex
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from churnguard_pipelines.engine.addresses import check_addresses
from churnguard_pipelines.model import (
    APIIngestionRule,
    ConfiguredBy,
    CredentialType,
    DataFilter,
    DataFormat,
    FieldMappings,
    HttpMethod,
    Identifier,
    IntegrationCredentials,
    RequestsPerMinute,
    RuleFields,
    RuleFormat,
    SyncFrequency,
)
from churnguard_pipelines.rule_options import (
    Action,
    ChildTable,
    Incremental,
    Keys,
    ObjectName,
    Pagination,
    Parent,
    Status,
)
from churnguard_pipelines.store.control.configurations import Configured
from churnguard_pipelines.store.control.rules import RULES, integration_of
from churnguard_pipelines.syncing.rules import preview_rule
from webhook_gateway.api.access import (
    Reader,
    TheEngine,
    TheStore,
    Writer,
    organization_of,
    own_configuration,
    own_organization,
    refuse_chosen_id,
)

router = APIRouter(prefix="/ingestion", tags=["ingestion"])
_MAY_BE_NULL = {"authentication", "key", "body", "encoding", "pagination", "incremental", "parent"}
RuleId = Annotated[Identifier, Path()]


class NewRule(RuleFields):
    """``rule_id``: made up if omitted; only an operator's key may choose it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "organization_id": "org_123",
                    "name": "Tickets",
                    "endpoint_url": "https://support.example.com/api/tickets",
                    "data_path": "data.tickets",
                    "sync_frequency": 3600,
                    "field_mappings": {"requester.email": "email"},
                    "authentication": {"credential_type": "bearer", "access_token": "…"},
                }
            ]
        }
    )
    rule_id: Identifier = Field(default_factory=lambda: f"rule_{token_hex(8)}")


class RuleChange(BaseModel):
    """What is left out stays. So does each header, and each secret of an ``authentication`` of the same type, unless it
    is null. What was shown masked may come back masked."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"sync_frequency": 600, "headers": {"X-Old": None}}]}
    )
    name: str | None = None
    description: str | None = None
    endpoint_url: str | None = None
    http_method: HttpMethod | None = None
    headers: dict[str, str | None] | None = None
    response_format: RuleFormat | None = None
    data_path: str | None = None
    sync_frequency: SyncFrequency | None = None
    field_mappings: FieldMappings | None = None
    authentication: IntegrationCredentials | None = None
    key: Keys | None = None
    parameters: dict[str, str | int | float | bool | None] | None = None
    body: dict[str, JsonValue] | None = None
    encoding: str | None = None
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    parent: Parent | None = None
    children: dict[ObjectName, ChildTable] | None = None
    filters: list[DataFilter] | None = None
    responses: dict[Status, Action] | None = None
    requests_per_minute: RequestsPerMinute | None = None
    retry_attempts: Annotated[int, Field(ge=0, le=20)] | None = None


class PreviewField(BaseModel):
    """``path``: where it lies in a record; ``type``: that every value of the first page has; ``of``: records that have
    one."""

    path: str
    type: str
    of: int


class Preview(BaseModel):
    """``records``: the first ones as they came; ``count``: on the first page. ``key``: null where nothing tells them
    apart. ``paging``: in words; ``lists``: fields that could be child tables."""

    records: list[Any]
    count: int
    key: list[str] | Literal["*"] | None
    key_detected: bool
    paging: str
    paging_detected: bool
    fields: list[PreviewField]
    lists: list[str]


class Rule(BaseModel):
    """Without its secrets: the values of ``headers`` are masked, and what holds one in ``endpoint_url``, ``parameters``
    and ``body``."""

    rule_id: str
    organization_id: str
    name: str
    description: str
    endpoint_url: str
    http_method: str
    headers: dict[str, str]
    response_format: DataFormat
    data_path: str
    sync_frequency: int
    field_mappings: dict[str, str]
    credential_type: CredentialType | None
    key: list[str] | Literal["*"] | None = None
    parameters: dict[str, Any] = {}
    body: dict[str, Any] | None = None
    encoding: str | None = None
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    parent: Any = None
    children: dict[str, ChildTable] = {}
    filters: list[DataFilter] = []
    responses: dict[int, Action] = {}
    requests_per_minute: int = 60
    retry_attempts: int = 3
    created_at: datetime
    created_by: str | None
    configured_by: ConfiguredBy


@router.post("/rules", status_code=201)
def create(new: NewRule, principal: Writer, store: TheStore) -> Rule:
    """Read a REST endpoint from now on, on a schedule."""
    refuse_chosen_id(principal, new, "rule_id")
    made = APIIngestionRule(**dict(new), configured_by=principal.configures_as)
    check_addresses(made)
    organization = organization_of(principal, new.organization_id)
    return _shown(RULES.add(store, made, actor=principal.id, organization=organization))


@router.post("/rules/preview")
async def preview(new: NewRule, principal: Writer, engine: TheEngine) -> Preview:
    """Asks the endpoint for one page. Nothing is stored; a refresh token that is good for once is spent."""
    refuse_chosen_id(principal, new, "rule_id")
    own_organization(principal, new.organization_id)
    made = APIIngestionRule(**dict(new), configured_by=principal.configures_as)
    check_addresses(made)
    seen = await engine.ask_source(integration_of(made), partial(preview_rule, engine.store, made))
    return Preview.model_validate(seen, from_attributes=True)


@router.get("/rules")
def list_(principal: Reader, store: TheStore) -> list[Rule]:
    """The rules, without their secrets."""
    return [_shown(each) for each in RULES.list(store, principal.organization_id)]


@router.get("/rules/{rule_id}")
def get(rule_id: RuleId, principal: Reader, store: TheStore) -> Rule:
    """One rule, without its secrets."""
    return _shown(own_configuration(RULES, store, principal, rule_id))


@router.patch("/rules/{rule_id}")
def change(rule_id: RuleId, wanted: RuleChange, principal: Writer, store: TheStore) -> Rule:
    """Change what is given; what is left out stays."""
    own_configuration(RULES, store, principal, rule_id)
    changes = {
        name: value
        for name, value in wanted.model_dump(exclude_unset=True).items()
        if value is not None or name in _MAY_BE_NULL
    }
    by = principal.configures_as
    return _shown(RULES.change(store, rule_id, changes, actor=principal.id, by=by, approve=check_addresses))


@router.delete("/rules/{rule_id}", status_code=204)
def remove(rule_id: RuleId, principal: Writer, store: TheStore) -> Response:
    """Stop reading the endpoint. `purge`: the rows it brought go, too."""
    own_configuration(RULES, store, principal, rule_id)
    RULES.remove(store, rule_id, actor=principal.id)
    return Response(status_code=204)


def _shown(found: Configured[APIIngestionRule]) -> Rule:
    fields = dict(found.masked)
    authentication = fields.pop("authentication")
    credential_type = authentication and authentication["credential_type"]
    return Rule(**fields, credential_type=credential_type, created_at=found.created_at, created_by=found.created_by)
