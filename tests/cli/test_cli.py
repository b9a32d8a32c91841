"""The `churnguard` command as a person meets it: what it prints, its exit codes, its errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet

from churnguard_pipelines.model import Organization
from churnguard_pipelines.ports import free_port
from churnguard_pipelines.sandbox.serve import Sandbox, serve
from churnguard_pipelines.store.control.integrations import get_integration
from churnguard_pipelines.store.control.organizations import add_organization, get_organization
from churnguard_pipelines.store.ingest.ledger import latest_sync
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.standin import stand_in

KEY = "rk_sandbox_acme"
PATIENCE_SECONDS = 120
FILE = """
organization_id: acme
organization: {{name: Acme Inc., reporting_currency: usd}}
integration_id: acme
provider_name: stripe
base_url: {url}
credentials: {{credential_type: api_key, api_key: "${{ACME_KEY}}"}}
sync_config: {{requests_per_minute: 60000, retry_attempts: 1, retry_backoff: 0.01}}
"""

pytestmark = pytest.mark.xdist_group("cli")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A terminal in an empty folder whose environment points at the installation."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, **environment: str) -> Ended:
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("churnguard")), *arguments],
            env=self.environment | environment, cwd=self.folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        out, err = (" ".join(text.split()) for text in (ended.stdout, ended.stderr))  # as if the terminal were wide
        assert "Traceback" not in out + err
        for secret in (KEY, (self.environment | environment)["INTEGRATION_ENCRYPTION_KEY"]):
            assert secret not in out + err
        return Ended(ended.returncode, out, err)

    def succeeds(self, *arguments: str, **environment: str) -> str:
        ended = self(*arguments, **environment)
        assert ended.code == 0, ended
        return ended.out

    def fails(self, *arguments: str, **environment: str) -> str:
        """What standard error says; standard output must not have to be read."""
        ended = self(*arguments, **environment)
        assert ended.code == 1, ended
        return ended.err


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve(tmp_path_factory.mktemp("sandbox"), scale=0.02) as served:
        yield served


@pytest.fixture
def shell(store: Store, tmp_path: Path) -> Shell:
    assert store.settings.encryption_key is not None
    ours = ("CHURNGUARD_", "INTEGRATION_", "DASHBOARD_", "WEBHOOK_", "DAGSTER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return Shell(
        tmp_path,
        environment
        | {
            "CHURNGUARD_HOME": str(store.settings.home),
            "CHURNGUARD_DATABASE_URL": store.database_url,
            "INTEGRATION_ENCRYPTION_KEY": store.settings.encryption_key.get_secret_value(),
            "DASHBOARD_PORT": str(free_port()),
        },
    )


@pytest.fixture
def registered(shell: Shell, sandbox: Sandbox) -> Shell:
    """With the integration ``acme`` added by its file."""
    shell.folder.joinpath("acme.yaml").write_text(FILE.format(url=sandbox.url))
    shell.succeeds("integrations", "add", "--no-check", "acme.yaml", ACME_KEY=KEY)
    return shell


def test_what_is_started_from_the_background_of_a_shell_can_be_asked_to_end() -> None:
    """Such a job ignores SIGINT; Dagster's processes do with SIGTERM as with SIGINT, and would inherit that."""
    said = "import signal; print(signal.getsignal(signal.SIGINT))"
    started = f"lambda: subprocess.run([sys.executable, '-c', {said!r}])"
    program = f"import subprocess, sys\nfrom churnguard_pipelines import cli\ncli.app = {started}\ncli.main()"
    ended = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "default_int_handler" in ended.stdout


def test_an_integration_is_added_and_looked_at(shell: Shell, sandbox: Sandbox) -> None:
    assert "No integrations yet" in shell.succeeds("integrations", "list")
    shell.folder.joinpath("acme.yaml").write_text(FILE.format(url=sandbox.url))
    added = shell.succeeds("integrations", "add", "acme.yaml", ACME_KEY=KEY)
    assert "Connected to acct_" in added
    assert "acme is registered" in added
    assert re.search(r"acme acme stripe active 3600 s never", shell.succeeds("integrations", "list"))
    shown = json.loads(shell.succeeds("integrations", "show", "acme"))
    assert shown["provider_name"] == "stripe"
    assert "credentials" not in shown


def test_adding_it_twice_is_refused_unless_replaced(registered: Shell) -> None:
    again = ("integrations", "add", "--no-check", "acme.yaml")
    assert "acme: an integration with this id exists already." in registered.fails(*again, ACME_KEY=KEY)
    registered.succeeds(*again, "--replace", ACME_KEY=KEY)
    ours = registered.folder.joinpath("acme.yaml")
    ours.write_text(ours.read_text().replace("organization_id: acme", "organization_id: globex"))
    for option in ((), ("--replace",)):
        assert "✗ acme: " in registered.fails(*again, *option, ACME_KEY=KEY)
    assert "globex" not in registered.succeeds("organizations", "list")


def test_a_key_that_the_provider_refuses_is_not_stored(shell: Shell, sandbox: Sandbox) -> None:
    shell.folder.joinpath("acme.yaml").write_text(FILE.format(url=sandbox.url))
    message = shell.fails("integrations", "add", "acme.yaml", ACME_KEY="rk_sandbox_nobody")
    assert "401" in message
    assert "rk_sandbox_nobody" not in message
    assert "No integrations yet" in shell.succeeds("integrations", "list")


def test_a_connection_test_names_what_the_key_may_not_read(registered: Shell) -> None:
    assert "readable: products" in registered.succeeds("integrations", "test", "acme")
    registered.succeeds("integrations", "add", "--no-check", "--replace", "acme.yaml", ACME_KEY=f"{KEY}_no_payouts")
    assert "✗ payouts: " in registered.fails("integrations", "test", "acme")


def test_an_integration_is_paused_resumed_and_removed(registered: Shell, store: Store) -> None:
    assert "acme is paused" in registered.succeeds("integrations", "pause", "acme")
    assert get_integration(store, "acme").status == "paused"
    assert "acme is active" in registered.succeeds("integrations", "resume", "acme")
    assert get_integration(store, "acme").status == "active"
    assert "Remove acme" in registered("integrations", "remove", "acme").out, "it asks, and nobody answers"
    assert get_integration(store, "acme")
    assert "acme is removed" in registered.succeeds("integrations", "remove", "acme", "--yes", "--purge")
    assert "No integrations yet" in registered.succeeds("integrations", "list")


def test_a_sync_ends_with_a_summary(registered: Shell, sandbox: Sandbox, store: Store) -> None:
    ended = registered("sync", "acme", "--mode", "full", "--objects", "customers, coupons")
    assert (ended.code, ended.err) == (0, ""), "as whom the services run says what starts them"
    printed = ended.out
    customers = sandbox.account("acme").counts()["customers"]
    assert "acme: succeeded" in printed
    assert re.search(rf"customers succeeded {customers:,} {customers:,} 0 0", printed)
    report = latest_sync(store, "acme")
    assert report is not None
    assert set(report.objects) == {"customers", "coupons"}
    assert "acme: succeeded" in registered.succeeds("integrations", "show", "acme")
    assert "customers ✓ views.acme_customers" in registered.succeeds("integrations", "discover", "acme")
    fields = registered.succeeds("integrations", "discover", "acme", "coupons")
    assert "Read it as views.acme_coupons" in fields
    assert "percent_off numeric" in fields
    assert "has no object 'nothing'" in registered.fails("integrations", "discover", "acme", "nothing")
    listed = json.loads(registered.succeeds("integrations", "discover", "acme", "--json"))
    assert {each["object"]: each["wanted"] for each in listed}["customers"] is True


def test_a_sync_with_an_object_that_failed_exits_with_1(registered: Shell) -> None:
    registered.succeeds("integrations", "add", "--no-check", "--replace", "acme.yaml", ACME_KEY=f"{KEY}_no_payouts")
    ended = registered("sync", "acme", "--objects", "coupons,payouts")
    assert ended.code == 1
    assert "acme: partial" in ended.out
    assert "coupons succeeded" in ended.out
    assert "✗ payouts: the credentials may not do this at Stripe" in ended.err


def test_a_sync_that_fails_says_its_cause_once_and_lists_nothing_that_was_not_begun(registered: Shell) -> None:
    registered.succeeds("integrations", "add", "--no-check", "--replace", "acme.yaml", ACME_KEY="rk_sandbox_nobody")
    ended = registered("sync", "acme")
    assert ended.code == 1
    assert "✗ acme: " in ended.err
    assert ended.err.count("✗") == 1
    assert "`churnguard integrations add FILE.yaml --replace`" in ended.err
    assert "pending" not in ended.out
    assert re.search(r"\d+ of \d+ objects were not begun\.", ended.out)


def test_an_object_that_does_not_exist_is_one_clear_error(registered: Shell) -> None:
    message = registered.fails("sync", "acme", "--objects", "customer")
    assert "stripe has no object customer. It has: products, prices," in message.replace(" → ", " ")


def test_rejected_records_are_listed_and_replayed(registered: Shell, sandbox: Sandbox) -> None:
    assert "acme has no rejected records" in registered.succeeds("rejected", "list", "acme")
    sandbox.fault("bad_record", "/v1/coupons", field="created", value="soon")
    try:
        registered("sync", "acme", "--objects", "coupons")
    finally:
        sandbox.clear_faults()
    listed = registered.succeeds("rejected", "list", "acme", "--object", "coupons")
    assert re.search(r"\d+ coupons \S+ \d{4}-\d\d-\d\d \d\d:\d\d .*created", listed)
    replayed = registered("rejected", "replay", "acme")
    assert replayed.code == 1, "it is still wrong"
    assert "1 replayed: 0 written, 0 older than what stands, 1 rejected again." in replayed.out
    (waiting,) = re.findall(r"(\d+) coupons", listed)
    assert "1 dismissed." in registered.succeeds("rejected", "dismiss", "acme", waiting)
    assert "acme has no rejected records" in registered.succeeds("rejected", "list", "acme")


def test_the_key_is_made_once_and_rotated(registered: Shell, store: Store) -> None:
    old = registered.environment["INTEGRATION_ENCRYPTION_KEY"]
    assert "no file is needed" in registered.succeeds("keys", "create")
    new = Fernet.generate_key().decode()
    rotated = registered.succeeds("keys", "rotate", INTEGRATION_ENCRYPTION_KEY=f"{new},{old}")
    assert "1 secret(s) re-sealed" in rotated
    assert "acme" in registered.succeeds("integrations", "list", INTEGRATION_ENCRYPTION_KEY=new)
    assert "does not open with the encryption key" in registered.fails("integrations", "list")


def test_without_a_key_in_the_environment_a_file_keeps_it(shell: Shell) -> None:
    home = shell.folder / "home"
    without = {"INTEGRATION_ENCRYPTION_KEY": "", "CHURNGUARD_HOME": str(home)}
    plain = Shell(shell.folder, shell.environment | {"INTEGRATION_ENCRYPTION_KEY": "-"})  # nothing to look for
    missing = subprocess.run(
        [str(Path(sys.executable).with_name("churnguard")), "integrations", "list"],
        env=plain.environment | without, cwd=shell.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert missing.returncode == 1
    assert "there is no encryption key" in missing.stderr
    subprocess.run(
        [str(Path(sys.executable).with_name("churnguard")), "keys", "create"],
        env=plain.environment | without, cwd=shell.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (home / "encryption.key").stat().st_mode & 0o777 == 0o600


def test_the_schema_is_brought_up_to_date(shell: Shell) -> None:
    assert re.search(r"The schema of test_\d+ on .* is up to date\.", shell.succeeds("migrate"))


def test_a_rate_is_set_by_an_operator(shell: Shell, store: Store) -> None:
    assert shell.succeeds("rates", "set", "2026-01-31", "ARS", "1712.5") == "1 eur = 1712.5 ars from 2026-01-31 on."
    with store.operator() as connection:
        rate = connection.scalar(sa.text("SELECT per_euro FROM analytics.exchange_rates WHERE currency = 'ars'"))
    assert str(rate).startswith("1712.5")


@pytest.mark.parametrize(
    ("currency", "rate", "told"),
    [
        ("ars", "many", "'many' is not a number. → Write e.g. 1712.5."),
        ("ars", "0", "a rate of 0 is not possible. → Write a positive number."),
        ("ars", "NaN", "a rate of NaN is not possible. → Write a positive number."),
        ("pesos", "1712.5", "'pesos' is not a currency. → Write its ISO 4217 code, e.g. usd."),
    ],
)
def test_a_rate_that_cannot_be_is_refused(shell: Shell, currency: str, rate: str, told: str) -> None:
    assert told in shell.fails("rates", "set", "2026-01-31", currency, rate)


def test_what_is_unpaid_is_churn_unless_the_organization_says_otherwise(shell: Shell, store: Store) -> None:
    add_organization(store, Organization(organization_id="tailspin", name="Tailspin"))
    assert not get_organization(store, "tailspin").unpaid_counts
    assert "counts until it ends" in shell.succeeds("organizations", "set", "tailspin", "--unpaid-counts")
    assert get_organization(store, "tailspin").unpaid_counts
    assert "is churn" in shell.succeeds("organizations", "set", "tailspin", "--unpaid-is-churn")
    assert not get_organization(store, "tailspin").unpaid_counts
    assert "there is no organization" in shell.fails("organizations", "set", "nobody", "--unpaid-counts")


def test_the_banks_rates_are_imported_from_a_file_and_from_an_address(
    shell: Shell, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "eurofxref-hist.csv"
    file.write_text("Date,USD,JPY\n2026-11-03,1.2,170.5\n")
    assert shell.succeeds("rates", "import", str(file)).startswith("2 rates until 2026-11-03 from ")
    with stand_in() as bank:
        bank.says["/eurofxref.json"] = [{"rates": {}}]
        told = shell.fails("rates", "import", f"{bank.url}/eurofxref.json")
        gone = shell.fails("rates", "import", f"{bank.url}:1/")
    assert "is no file of the European Central Bank's reference rates" in told
    assert "there is no host" in gone
    assert "cannot be read: No such file" in shell.fails("rates", "import", str(tmp_path / "other.csv"))


def test_env_exports_what_the_plain_dagster_command_needs_and_not_the_key(shell: Shell, store: Store) -> None:
    exports = shell.succeeds("env")
    assert "INTEGRATION_ENCRYPTION_KEY" not in exports
    script = f'{exports.replace(" export ", "; export ")}\nprintf \'%s\\n\' "$DAGSTER_HOME" "$CHURNGUARD_DATABASE_URL"'
    evaluated = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert evaluated == [str(store.settings.home / "dagster"), store.database_url]
    assert (Path(evaluated[0]) / "dagster.yaml").exists()


def test_api_keys_are_made_listed_and_revoked(registered: Shell) -> None:
    assert "No API keys yet" in registered.succeeds("api-keys", "list")
    made = registered.succeeds("api-keys", "create", "ada", "--role", "viewer", "--organization", "acme")
    key = re.search(r"cg_[0-9a-f]{8}_[\w-]{43}", made)
    assert key
    shown = "_".join(key[0].split("_")[:2])
    listed = registered.succeeds("api-keys", "list")
    assert re.search(rf"{shown} ada acme viewer – never", listed)
    assert key[0] not in listed
    registered.succeeds("api-keys", "revoke", shown)
    assert "revoked" in registered.succeeds("api-keys", "list")
    assert "there is no API key 'cg_nobody'" in registered.fails("api-keys", "revoke", "cg_nobody")
    assert "there is no organization 'nobody'" in registered.fails(
        "api-keys", "create", "ada", "--organization", "nobody"
    )
