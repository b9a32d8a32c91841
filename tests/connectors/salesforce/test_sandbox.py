"""The simulated Salesforce, read into a real PostgreSQL: tables equal what it says itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from churnguard_pipelines.connectors.salesforce import Salesforce, stretch
from churnguard_pipelines.connectors.salesforce.objects import snake
from churnguard_pipelines.engine import values
from churnguard_pipelines.model import DataSyncMode
from churnguard_pipelines.sandbox.business.crm import Crm as BusinessCrm
from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.serve import Account, Sandbox
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.ingest.ledger import SyncReport
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.conftest import configuration

DATA = "/services/data/v65.0"
OBJECTS = {item.name: item for item in Salesforce.objects}
CHANGING = ("company", "contact", "lead", "deal", "ticket", "task")
_numbers = iter(range(1, 10_000))


class Crm:
    """An integration that reads the simulated Salesforce, and what that says itself."""

    def __init__(self, store: Store, sandbox: Sandbox) -> None:
        self.store, self.sandbox = store, sandbox
        self.account: Account = sandbox.account("acme")
        self.api = httpx.Client(base_url=sandbox.url, headers={"authorization": "Bearer 00Dsandbox_acme"})
        self.configure()

    def configure(self, user: str = "acme", *objects: str, **credentials: Any) -> None:
        given = credentials or {"credential_type": "bearer", "access_token": f"00Dsandbox_{user}"}
        made = configuration(
            "acme-crm", provider_name="salesforce", integration_type="crm", base_url=self.sandbox.url,
            credentials=given,
            sync_config={"requests_per_minute": 60_000, "concurrent_requests": 4, "retry_backoff": 0.01,
                         "objects": list(objects) or None},
        )  # fmt: skip
        replace_integration(self.store, made, actor="test")

    def sync(self, *objects: str, mode: DataSyncMode = DataSyncMode.INCREMENTAL) -> SyncReport:
        report = sync_integration(
            self.store, "acme-crm", sync_id=f"sfbox-{next(_numbers)}", objects=objects or None, mode=mode
        )
        errors = {name: each.error for name, each in report.objects.items() if each.error}
        assert report.status == "succeeded", errors or report.error
        return report

    def theirs(self, name: str) -> dict[str, dict[str, Any]]:
        """What is there, with all fields that the integration's user may see."""
        fields = [field for field in self.describe(name) if field["type"] not in ("address", "location")]
        names = [field["name"] for field in fields]
        extra = " WHERE IsDeleted = false" if "IsDeleted" in names else ""
        resource = "queryAll" if extra else "query"
        answer = self.api.get(f"{DATA}/{resource}", params={"q": f"SELECT {','.join(names)} FROM {name}{extra}"})
        found: list[dict[str, Any]] = []
        while True:
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["records"]
            if page["done"]:
                return {row["Id"]: row for row in found}
            answer = self.api.get(page["nextRecordsUrl"])

    def ours(self, name: str) -> dict[str, dict[str, Any]]:
        with self.store.organization("acme") as connection:
            statement = sa.text(f"SELECT * FROM raw.salesforce_{snake(name)} WHERE deleted_at IS NULL")
            return {row["id"]: dict(row) for row in connection.execute(statement).mappings()}

    def describe(self, name: str) -> list[dict[str, Any]]:
        return list(self.api.get(f"{DATA}/sobjects/{name}/describe").json()["fields"])


@pytest.fixture
def crm(store: Store, organization: object, sandbox: Sandbox) -> Iterator[Crm]:
    made = Crm(store, sandbox)
    with made.api:
        yield made


def assert_equal(crm: Crm, *names: str, formulas: bool = True) -> None:
    for name in names or OBJECTS:
        ours, theirs = crm.ours(name), crm.theirs(name)
        assert ours.keys() == theirs.keys(), name
        left_out = set() if formulas else {field["name"] for field in crm.describe(name) if field["calculated"]}
        for key, row in ours.items():
            have, want = said(name, row), told(name, theirs[key])
            assert without(have, left_out) == without(want, left_out), (name, key)


def without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def said(name: str, row: dict[str, Any]) -> dict[str, Any]:
    columns = {column.source_path: row[column.name] for column in OBJECTS[name].columns}
    return {field: plain(value) for field, value in (columns | (row["extra"] or {})).items() if value is not None}


def told(name: str, row: dict[str, Any]) -> dict[str, Any]:
    types = {column.source_path: column.type for column in OBJECTS[name].columns}
    found: dict[str, Any] = {}
    for field, value in row.items():
        if field in ("attributes", "Id", "IsDeleted") or value is None:
            continue
        kind = types.get(field)
        found[field] = plain(value if kind is None else values.CONVERTERS[kind](value))
    return found


def plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return str(value)[:19] if not isinstance(value, (bool, float)) else value


def test_every_object_is_read_whole_and_unaltered(crm: Crm) -> None:
    report = crm.sync()
    assert report.objects.keys() >= OBJECTS.keys()
    assert_equal(crm)
    assert all(crm.ours(name) for name in OBJECTS), "the simulated business has some of each"


def test_every_object_is_the_same_by_jobs(crm: Crm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "THRESHOLD", 10)
    crm.sync()
    assert_equal(crm)


def test_whatever_happens_the_next_sync_knows(crm: Crm) -> None:
    """Changes, deletions, purges, merges and what is brought back, in any order."""
    crm.sync(*(objects := ("Account", "Contact", "Lead", "Opportunity", "Case", "Task", "OpportunityContactRole")))
    chance = random.Random(7)
    for _ in range(3):
        happens(crm, chance, 25)
        crm.account.advance(600)
        crm.sync(*objects)
        assert_equal(crm, *objects, formulas=False)
    crm.account.advance(86_400)
    crm.sync(*objects)
    assert_equal(crm, *objects)


def ids_of(found: BusinessCrm, kind: str, archived: bool) -> list[int]:
    return [each.id for each in found.records(kind, archived=archived)]


def happens(crm: Crm, chance: random.Random, times: int) -> None:
    for _ in range(times):
        kind = chance.choice(CHANGING)
        crm.account.advance(chance.randint(1, 90))
        crm.account.crm_tick()
        alive, gone = (crm.account.read_crm(partial(ids_of, kind=kind, archived=which)) for which in (False, True))
        what = chance.choice(("delete", "purge", "undelete", "merge", "tick"))
        if what == "undelete" and gone:
            crm.account.crm("undelete", kind=kind, id=chance.choice(gone))
        elif what == "purge" and gone:
            crm.account.crm("purge", kind=kind, id=chance.choice(gone))
        elif what == "delete" and len(alive) > 3:
            crm.account.crm("delete", kind=kind, id=chance.choice(alive))
        elif what == "merge" and kind in ("company", "contact", "lead") and len(alive) > 3:
            winner, loser = chance.sample(alive, 2)
            crm.account.crm("merge", kind=kind, winner=winner, loser=loser)


def test_a_field_made_today_is_in_the_view_of_its_account_alone(crm: Crm) -> None:
    crm.sync("Account")
    crm.account.crm("add_field", kind="company", made=Field("health_score", "number", custom=True))
    some = crm.account.read_crm(lambda found: next(iter(found.records("company"))).id)
    crm.account.crm("update", kind="company", id=some, health_score=0.75)
    crm.account.advance(600)
    crm.sync("Account")
    (name,) = {field["name"] for field in crm.describe("Account") if field["name"].lower().startswith("health_score")}
    with crm.store.organization("acme") as connection:
        view = connection.scalar(sa.text("SELECT view_name FROM ingest.objects WHERE object = 'Account'"))
        read = connection.execute(sa.text(f'SELECT "{name}" FROM views.{view} WHERE "{name}" IS NOT NULL')).scalars()
        assert [float(value) for value in read] == [0.75]
        columns = connection.execute(sa.text("SELECT * FROM raw.salesforce_account LIMIT 0")).keys()
    assert name not in columns


def test_each_way_to_sign_in_reads(crm: Crm) -> None:
    app = {"client_id": "3MVGsandbox_acme", "client_secret": "secret_acme"}
    key = crm.sandbox.salesforce.grants.private_key
    ways: tuple[dict[str, Any], ...] = (
        {"credential_type": "oauth2", "refresh_token": "5Aepsandbox_acme", "custom_fields": app},
        {"credential_type": "oauth2", "refresh_token": "5Aeprotating_acme", "custom_fields": app},
        {"credential_type": "client_credentials", "custom_fields": app},
        {"credential_type": "jwt_bearer", "username": "acme@sandbox.example.com",
         "custom_fields": {"client_id": "3MVGsandbox_acme", "private_key": key}},
    )  # fmt: skip
    for way in ways:
        crm.configure("acme", "RecordType", **way)
        crm.sync()
        crm.account.advance(3 * 3600)  # the session has ended
        crm.sync()
    assert_equal(crm, "RecordType")
