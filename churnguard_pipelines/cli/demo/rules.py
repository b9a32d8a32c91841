"""The ingestion rule of the demo: Acme's survey tool, read without code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from churnguard_pipelines.cli.demo.comparison import Compared
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import APIIngestionRule

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store

SURVEY = "acme-survey"


def survey_rule(url: str) -> APIIngestionRule:
    """With the simulated providers at this address. Its paging is found."""
    return APIIngestionRule.model_validate(
        {
            "rule_id": SURVEY,
            "organization_id": "acme",
            "name": "Survey (simulated)",
            "endpoint_url": f"{url}/survey/acme/customers",
            "data_path": "customers",
            "sync_frequency": 60,
            "requests_per_minute": 6_000,
            "field_mappings": {
                "email": "email",
                "survey.score": "score:bigint",
                "survey.answered_at": "answered_at:timestamptz",
            },
            "authentication": {"credential_type": "bearer", "access_token": "survey_acme"},
        }
    )


def register_survey(store: Store, url: str, actor: str) -> None:
    """At its present address."""
    from churnguard_pipelines.store.control.rules import RULES

    wanted = survey_rule(url)
    try:
        known = RULES.get(store, SURVEY).configuration
    except NotFound:
        RULES.add(store, wanted, actor=actor)
        return
    if known.endpoint_url != wanted.endpoint_url:
        RULES.change(store, SURVEY, wanted.model_dump(include={"endpoint_url", "authentication"}), actor=actor)


def compared_survey(store: Store, url: str) -> Compared:
    from churnguard_pipelines.connectors.rest import RECORDS, Rest
    from churnguard_pipelines.store.raw.warehouse import Warehouse

    ours = Warehouse(store).count(Rest.table(RECORDS).name, "acme", SURVEY)
    signed = {"authorization": "Bearer survey_acme"}
    theirs = httpx.get(f"{url}/survey/acme/customers", headers=signed, timeout=60).raise_for_status().json()["total"]
    return Compared("Survey tool, by a rule", "acme", [(RECORDS, ours, theirs)])
