"""The same seed and anchor tell the same history to the byte; a restart goes on where the sandbox stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.sandbox.stripe.resources import RESOURCES
from tests.sandbox.conftest import ANCHOR, client

DAY = 86_400


def everything(sandbox: Sandbox) -> dict[str, object]:
    return {resource.path: sandbox.account("globex").objects(resource.path) for resource in RESOURCES}


def test_the_same_seed_and_anchor_give_the_same_bytes(tmp_path: Path) -> None:
    bodies = []
    for name in ("one", "two"):
        with serve(tmp_path / name, seed=11, anchor=ANCHOR, scale=0.05) as sandbox, client(sandbox) as api:
            bodies.append([api.get(f"/v1/{resource.path}?limit=100").content for resource in RESOURCES])
    assert bodies[0] == bodies[1]


def test_another_seed_tells_another_history(tmp_path: Path) -> None:
    with serve(tmp_path / "one", seed=1, anchor=ANCHOR, scale=0.02) as sandbox:
        first = sandbox.account("acme").objects("customers")
    with serve(tmp_path / "two", seed=2, anchor=ANCHOR, scale=0.02) as sandbox:
        assert sandbox.account("acme").objects("customers") != first


def test_a_restart_continues(tmp_path: Path) -> None:
    with serve(tmp_path, seed=3, anchor=ANCHOR, scale=0.03) as sandbox:
        account = sandbox.account("globex")
        account.tick(60, seconds=7)
        account.insert_customer(currency="jpy", name="Late Ltd")
        account.advance(40 * DAY)
        account.tick(5)
        before, books = everything(sandbox), account.movements()
    with serve(tmp_path) as sandbox:
        account = sandbox.account("globex")
        assert everything(sandbox) == before
        assert account.movements() == books
        account.tick(3)
        assert len(account.objects("events")) > 0


def test_what_a_kill_cut_off_never_happened(tmp_path: Path) -> None:
    with serve(tmp_path, seed=3, anchor=ANCHOR, scale=0) as sandbox:
        kept = sandbox.account("acme").insert_customer()
    with (tmp_path / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"account":"acme","do":"insert_cus')
    with serve(tmp_path) as sandbox:
        account = sandbox.account("acme")
        assert [customer["id"] for customer in account.objects("customers")] == [kept]
        account.insert_customer()
    with serve(tmp_path) as sandbox:
        assert len(sandbox.account("acme").objects("customers")) == 2


def test_a_folder_keeps_its_origin(tmp_path: Path) -> None:
    with serve(tmp_path, seed=3, anchor=ANCHOR, scale=0):
        pass
    with pytest.raises(ValueError, match="with seed 3, not 4"), serve(tmp_path, seed=4):
        pass


def test_renewals_that_fell_due_meanwhile_happen_at_their_instants(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    account.advance(45 * DAY)
    recent = [each for each in account.objects("invoices") if each["created"] > ANCHOR]
    renewals = [each for each in recent if each["billing_reason"] == "subscription_cycle"]
    assert renewals
    assert all(each["created"] == each["period_end"] for each in renewals)
    assert len({each["created"] for each in renewals}) > 1


@pytest.mark.slow
def test_the_command_line_serves_and_stops(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "churnguard_pipelines.sandbox", "--port", str(port), "--state", str(tmp_path)]
    process = subprocess.Popen([*command, "--scale", "0.05"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "rk_sandbox_acme" in process.stdout.readline()
        assert httpx.get(f"http://127.0.0.1:{port}/_books/acme/counts").json()["events"] > 0
        taken = subprocess.run(command, capture_output=True, text=True, check=False)
        assert taken.returncode == 1
        assert f"port {port}" in taken.stderr
    finally:
        process.terminate()
        assert process.wait(20) is not None
