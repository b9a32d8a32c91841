"""`churnguard plan`: what a sync would take, and how far that was off."""

from __future__ import annotations

import json

import pytest

from churnguard_pipelines.sandbox.serve import Sandbox
from tests.cli.test_cli import Shell
from tests.cli.test_cli import registered as registered
from tests.cli.test_cli import sandbox as sandbox
from tests.cli.test_cli import shell as shell

pytestmark = pytest.mark.xdist_group("cli")


def test_a_sync_is_planned_and_says_how_far_that_was_off(registered: Shell, sandbox: Sandbox) -> None:
    chosen = ("--objects", "customers,coupons")
    ended = registered("plan", "acme", *chosen)
    assert (ended.code, "unknown rows, unknown calls" in ended.out) == (0, True), "before the first sync"
    assert "nothing is known of them: coupons, customers" in ended.err
    registered.succeeds("sync", "acme", "--mode", "full", *chosen)
    made = json.loads(registered.succeeds("plan", "acme", "--mode", "full", "--json", *chosen))
    rows = sum(sandbox.account("acme").counts()[name] for name in ("customers", "coupons"))
    assert (made["rows"], made["objects"][0]["basis"]) == (rows, "latest sync")
    assert f"Against the plan: {rows:,} rows instead of {rows:,} (+0%)" in registered.succeeds(
        "sync", "acme", "--mode", "full", *chosen
    )
