"""A CRM that is none: a connector of a few lines, and the API that it reads. Accounts add objects and fields to it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from churnguard_pipelines import connectors
from churnguard_pipelines.connectors.sdk import ApiConnector, ConnectionReport, Object, Reading
from churnguard_pipelines.engine.auth import Bearer, Credential, TokenKeeper
from churnguard_pipelines.engine.quota import Quota
from churnguard_pipelines.model import IntegrationConfiguration, IntegrationType
from churnguard_pipelines.records import JSON, TEXT, TIMESTAMP, Batch, Column, ColumnType, Field, Record
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration
from tests.connectors.standin import StandIn, stand_in

TYPES = {"number": ColumnType.NUMERIC, "integer": ColumnType.BIGINT, "date": ColumnType.DATE, "picklist": TEXT} | {
    "datetime": TIMESTAMP, "checkbox": ColumnType.BOOLEAN, "text": TEXT, "percent": ColumnType.DOUBLE, "json": JSON,
}  # fmt: skip
CUSTOM_COLUMNS = (Column("created", TIMESTAMP),)
_syncs = itertools.count(1)


class Toy(ApiConnector):
    provider, kind, title = "toy", IntegrationType.CRM, "Toy CRM"
    objects = (
        Object("contacts", "/contacts", (Column("email", TEXT), Column("created", TIMESTAMP), Column("address", JSON))),
        Object("deals", "/deals", (Column("created", TIMESTAMP),), versioned=True),
    )

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        return Bearer("token")

    @classmethod
    def quota(cls, integration: IntegrationConfiguration) -> Quota:
        return Quota(per_second=1000)

    def identity(self) -> str | None:
        return str(self._get("/account")["id"])

    def check(self) -> ConnectionReport:
        return ConnectionReport(self.integration.integration_id, self.identity(), ())

    def discover_objects(self) -> Sequence[Object]:
        return [
            Object(each["name"], each["path"], CUSTOM_COLUMNS, label=each["label"], custom=True)
            for each in self._get("/objects")
        ]

    def discover_fields(self, item: Object) -> Sequence[Field]:
        return [
            Field(
                each["name"], TYPES[each["type"]], f"fields.{each['name']}", each.get("label", ""),
                tuple(each.get("values", ())), each.get("formula", False),
            )
            for each in self._get(f"/fields{item.path}")
        ]  # fmt: skip

    def read(self, item: Object, reading: Reading) -> Generator[Batch]:
        after = reading.position["after"] if reading.position else 0
        records = [each for each in self._get(item.path) if each["version"] > after]
        versions = [each.pop("version") for each in records]
        if records:
            yield Batch({"after": max(versions)}, [Record(*each) for each in zip(records, versions, strict=True)])

    def _get(self, path: str) -> Any:
        return self.http.request("GET", f"{str(self.integration.base_url).rstrip('/')}{path}").json()


class Account:
    """What one account of the CRM holds, and an integration that reads it."""

    def __init__(self, store: Store, api: StandIn, integration_id: str, organization_id: str) -> None:
        self.store, self._api = store, api
        self.integration_id, self.organization_id = integration_id, organization_id
        self._versions = itertools.count(1)
        api.says = {"/account": [{"id": integration_id}], "/objects": [[]]}
        for path in ("/contacts", "/deals"):
            api.says[path] = api.says[f"/fields{path}"] = [[]]

    def configure(self, **sync: Any) -> None:
        made = configuration(
            self.integration_id, organization_id=self.organization_id, provider_name="toy", integration_type="crm",
            base_url=self._api.url,
            sync_config={"requests_per_minute": 60_000, "retry_attempts": 0, "retry_backoff": 0.01} | sync,
        )  # fmt: skip
        replace_integration(self.store, made, actor="test")

    def adds_objects(self, *names: str, label: str = "") -> None:
        """Its own objects are these from now on."""
        listed = [{"name": name, "label": label, "path": self._path(name)} for name in names]
        self._api.says["/objects"] = [listed]
        for name in names:
            self._api.says.setdefault(self._path(name), [[]])
            self._api.says.setdefault(f"/fields{self._path(name)}", [[]])

    def has_fields(self, object: str, *fields: dict[str, Any], **types: str) -> None:
        named = [{"name": name, "type": kind} for name, kind in types.items()]
        self._api.says[f"/fields{self._path(object)}"] = [[*fields, *named]]

    def holds(self, object: str, *records: dict[str, Any]) -> None:
        """As the source has them now: each is a newer version than all before, unless it says its own."""
        self._api.says[self._path(object)] = [[{"version": next(self._versions), **record} for record in records]]

    def _path(self, name: str) -> str:
        return f"/{name}" if name in ("contacts", "deals") else f"/custom/{name.encode().hex()[:100]}"

    def answers(self, path: str, status: int, body: Any = None) -> None:
        self._api.says[path] = [(status, body)]

    def sync(self, *objects: str) -> SyncReport:
        return sync_integration(
            self.store, self.integration_id, sync_id=f"toy-{next(_syncs)}", objects=list(objects) or None
        )


Open = Callable[..., Account]


@contextmanager
def accounts(store: Store, monkeypatch: pytest.MonkeyPatch, kind: type[Toy] = Toy) -> Iterator[Open]:
    """(integration, organization) -> an account of its own with an integration that is configured as it is."""
    registry = connectors._registry
    monkeypatch.setitem(registry._found, "toy", kind)
    monkeypatch.setitem(registry.__dict__, "providers", (*registry.providers, "toy"))
    with ExitStack() as stack:

        def opened(integration_id: str = "acme-crm", organization_id: str = "acme") -> Account:
            account = Account(store, stack.enter_context(stand_in()), integration_id, organization_id)
            account.configure()
            return account

        yield opened
