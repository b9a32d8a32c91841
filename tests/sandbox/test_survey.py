"""The survey tool, read by the demo's rule."""

from __future__ import annotations

from churnguard_pipelines.cli.demo.rules import SURVEY, compared_survey, register_survey
from churnguard_pipelines.model import Organization
from churnguard_pipelines.sandbox.serve import Sandbox
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.sync import sync_integration
from tests.connectors.conftest import world  # noqa: F401


def test_the_demo_s_rule_brings_every_answer(store: Store, world: Sandbox) -> None:  # noqa: F811
    add_organization(store, Organization(organization_id="acme", name="Acme"), actor="test")
    for url in ("http://127.0.0.1:9", world.url, world.url):
        register_survey(store, url, "test")
    report = sync_integration(store, SURVEY, sync_id="s1")
    assert report.status == "succeeded", report.objects
    assert compared_survey(store, world.url).agrees
