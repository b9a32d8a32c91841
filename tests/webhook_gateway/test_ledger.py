"""A 2xx means it is on disk: gateway, sessions, Dagster's daemon and PostgreSQL are killed while four organizations'
events arrive twice and out of order; at the end nothing acknowledged is missing or doubled, and every row says what the
newest event said. Nobody starts a session but Dagster itself, as its sensor asks for them.

Each dies once here, eleven times over 200,000 events with CHURNGUARD_SOAK=1. The seed is in the test's id.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.model import Organization
from churnguard_pipelines.store.control.integrations import add_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.ingest import inbox
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres
from tests.conftest import as_administrator, configuration, opened_on
from tests.dagster_processes import Dagster
from tests.soak import SOAK
from tests.waiting import wait_for
from tests.webhook_gateway.intake.conftest import SECRET, Gateway, stripe_event, stripe_headers

EVENTS, KILLS = (200_000, 44) if SOAK else (2_000, 4)
VICTIMS = ("gateway", "session", "daemon", "postgres")
ORGANIZATIONS = ("one", "two", "three", "four")
CUSTOMERS = 50  # of each organization
SENDERS = 8
PATIENCE_SECONDS = 600


class Installation:
    """PostgreSQL, a gateway, and Dagster, which starts the sessions."""

    def __init__(self, home: Path) -> None:
        self.postgres = EmbeddedPostgres(home)
        self.store = opened_on(self.postgres, home)
        self.gateway = Gateway(self.store, {"WEBHOOK_RATE_LIMIT_PER_MINUTE": "100000000"})
        self.dagster = Dagster(self.store)
        self.killed: Counter[str] = Counter()

    def start(self) -> None:
        self.gateway.start()
        self.dagster.start()

    def kill(self, what: str) -> None:
        if what == "gateway":
            self.gateway.kill()
            self.gateway.start()
        elif what == "session":
            wait_for(self._kill_session, PATIENCE_SECONDS)
        elif what == "daemon":
            self.dagster.kill_daemon()
        else:
            pid = int((self.postgres.data / "postmaster.pid").read_text().splitlines()[0])
            for process in (psutil.Process(pid), *psutil.Process(pid).children()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
            self.postgres.start()
        self.killed[what] += 1

    def stop(self) -> None:
        self.gateway.kill(signal.SIGTERM)
        self.dagster.stop()
        self.store.close()
        self.postgres.stop()

    def _kill_session(self) -> bool:
        self.dagster.keep()
        return self.dagster.kill_session()


@pytest.fixture
def installation() -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="churnguard-ledger-"))
    home.chmod(0o755)
    made = Installation(home)
    try:
        for name in ORGANIZATIONS:
            add_organization(made.store, Organization(organization_id=name, name=name), actor="test")
            add_integration(made.store, configuration(name, organization_id=name), actor="test")
            add_endpoint(made.store, organization_id=name, provider="stripe", secret=SECRET, actor="test")
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home, ignore_errors=True)


def deliveries(chance: random.Random) -> list[int]:
    """Events by number: a fifth of them twice, a third of them out of their order."""
    numbers = list(range(EVENTS))
    numbers += chance.sample(numbers, EVENTS // 5)
    late = [number + (chance.randrange(1, 400) if chance.random() < 0.3 else 0) for number in numbers]
    return [number for _, number in sorted(zip(late, numbers, strict=True))]


def event(number: int) -> tuple[str, str, bytes]:
    organization = ORGANIZATIONS[number % len(ORGANIZATIONS)]
    customer = f"cus_{number // len(ORGANIZATIONS) % CUSTOMERS}"
    body = stripe_event(f"evt_{number}", created=1_700_000_000 + number, name=str(number))
    return organization, customer, body.replace(b'"cus_1"', f'"{customer}"'.encode())


class Provider:
    """Delivers until somebody says 2xx, as providers do."""

    def __init__(self, url: str, numbers: list[int]) -> None:
        self._url, self._numbers = url, numbers
        self.sent = 0
        self._lock = threading.Lock()

    def send_all(self) -> None:
        with ThreadPoolExecutor(SENDERS) as pool:
            for sent in [pool.submit(self._work) for _ in range(SENDERS)]:
                sent.result()

    def _work(self) -> None:
        with httpx.Client(timeout=20) as client:
            while (number := self._next()) is not None:
                organization, _, body = event(number)
                url = f"{self._url}/webhooks/stripe/{organization}"
                deadline = time.monotonic() + PATIENCE_SECONDS
                while True:
                    assert time.monotonic() < deadline, "it is never taken"
                    try:
                        answer = client.post(url, content=body, headers=stripe_headers(body))
                    except httpx.TransportError:
                        time.sleep(0.05)
                        continue
                    if answer.status_code == 200:
                        break
                    assert answer.status_code == 503, answer.text
                    time.sleep(0.05)

    def _next(self) -> int | None:
        with self._lock:
            if self.sent >= len(self._numbers):
                return None
            self.sent += 1
            return self._numbers[self.sent - 1]


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(580)
@pytest.mark.parametrize("seed", [20261123])
def test_nothing_acknowledged_is_lost_or_doubled_whatever_dies(installation: Installation, seed: int) -> None:
    chance = random.Random(seed)
    provider = Provider(installation.gateway.url, deliveries(chance))
    sending = threading.Thread(target=provider.send_all)
    sending.start()
    total = len(deliveries(random.Random(seed)))
    points = sorted(chance.randrange(total) for _ in range(KILLS))
    victims = [VICTIMS[number % len(VICTIMS)] for number in range(KILLS)]
    for point, victim in zip(points, victims, strict=True):
        while provider.sent < point:
            installation.dagster.keep()
            time.sleep(0.01)
        installation.kill(victim)
    while sending.is_alive():
        installation.dagster.keep()
        sending.join(0.2)

    def worked_off() -> bool:
        installation.dagster.keep()
        try:
            return not inbox.waiting(installation.store)
        except ChurnGuardError:
            return False

    wait_for(worked_off, PATIENCE_SECONDS)
    newest = {event(number)[:2]: number for number in range(EVENTS)}
    with psycopg.connect(as_administrator(installation.store.database_url)) as connection:
        taken = Counter(row[0] for row in connection.execute("SELECT event_id FROM ingest.webhook_inbox"))
        rows = connection.execute("SELECT organization_id, id, name FROM raw.stripe_customers").fetchall()
        rejected = connection.execute("SELECT count(*) FROM ingest.rejected_records").fetchone()
    assert {f"evt_{number}" for number in range(EVENTS)} - set(taken) == set(), "missing"
    assert {key for key, times in taken.items() if times > 1} == set(), "doubled"
    assert {(organization, key): int(name) for organization, key, name in rows} == newest, "altered"
    assert rejected == (0,)
    assert installation.killed.total() == KILLS
