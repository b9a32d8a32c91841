"""Whatever happens, the simulated Salesforce shows it as the real one does: by stamps, or in the log of deletions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from churnguard_pipelines.sandbox.salesforce.objects import SOBJECTS
from churnguard_pipelines.sandbox.serve import Sandbox
from tests.sandbox.salesforce.conftest import DATA, names, query, salesforce

STAMPED = [each.name for each in SOBJECTS if each.stamped and each.deletable]
CALCULATED = {"Health__c", "Days_Open__c"}


def everything(api: httpx.Client) -> dict[str, dict[str, Any]]:
    return {
        entity: {r["Id"]: r for r in query(api, f"SELECT {','.join(names(api, entity))} FROM {entity}")}
        for entity in STAMPED
    }


def test_changes_are_stamped_and_what_vanishes_is_in_the_log_of_deletions(sandbox: Sandbox) -> None:
    account = sandbox.account("globex")
    with salesforce(sandbox, "globex") as api:
        before, begun = everything(api), account.now
        account.crm_tick(600)
        account.tick(10)
        account.advance(120)
        after = everything(api)
        window = {"start": datetime.fromtimestamp(begun, UTC).isoformat(),
                  "end": datetime.fromtimestamp(account.now, UTC).isoformat()}  # fmt: skip
        for entity in STAMPED:
            log = api.get(f"{DATA}/sobjects/{entity}/deleted/", params=window).json()["deletedRecords"]
            logged = {each["id"] for each in log}
            assert before[entity].keys() - after[entity].keys() <= logged, entity
            assert not logged & after[entity].keys(), entity
            for id in before[entity].keys() & after[entity].keys():
                was, now = before[entity][id], after[entity][id]
                changed = {name for name in was if was[name] != now[name]}
                assert not changed - CALCULATED or "SystemModstamp" in changed, (entity, id, changed)
        assert before != after
