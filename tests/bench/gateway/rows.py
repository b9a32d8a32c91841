"""The webhook gateway: what one process takes durably, how soon it is a row, what abuse does to honest deliveries."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import MappingProxyType
from typing import Any

import httpx
import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from churnguard_pipelines.model import Organization
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.store.control.integrations import replace_integration
from churnguard_pipelines.store.control.organizations import add_organization
from churnguard_pipelines.store.control.webhook_endpoints import add_endpoint
from churnguard_pipelines.store.ingest import inbox, sessions
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.webhooks import WEBHOOKS
from tests.bench.gateway.fire import HEAVY, HEAVY_SECRET
from tests.bench.gateway.load import SECRET, delivery
from tests.bench.harness import Row, answers, program
from tests.bench.stripe import INTEGRATION, integration
from tests.conftest import as_administrator
from tests.dagster_processes import Dagster

AREA = "gateway"
BARE = "ASGI application in one file: verify, INSERT … unnest, group commit"
ABUSE_ROUNDS = 3
COLD_ROUNDS = 3
MOST_ROUNDS = 3
SECONDS = 20
SESSION = """
from churnguard_pipelines.settings import load_settings
from churnguard_pipelines.store.postgres.database import Store
from churnguard_pipelines.syncing.session import Session
from churnguard_pipelines.syncing.webhooks import Inboxes
store = Store.open(load_settings())
Session(store, "bench", Inboxes(store), linger=600).run()
"""
SLOW_SOCKETS = 1_000
REPLICAS, SENDERS_EACH = 3, 16
AWAY_MS = 5.0  # there and back


def run(store: Store) -> Iterator[Row]:
    add_organization(store, Organization(organization_id=INTEGRATION, name="Bench"), actor="bench")
    replace_integration(store, integration("http://127.0.0.1:9"), actor="bench")
    add_endpoint(store, organization_id=INTEGRATION, provider="stripe", secret=SECRET, actor="bench")
    with ExitStack() as stack:
        port, process = stack.enter_context(_gateway(store))
        bare = stack.enter_context(_bare(store))
        yield _most(port, bare)
        yield _row("accept_1000", _load(port, SECONDS, "paced", rate=1000))
        yield _abuse(port, process)
        yield _under_fire(store, port, process)
        yield _warm(store, stack, port)
    with _gateway(store) as (port, _):  # and no session any more
        yield _cold(store, port)
    yield _replicas(store)


def _row(name: str, seen: dict[str, Any]) -> Row:
    return Row(AREA, name, "events/s", seen["rate"], None, None, None, seen["p50_ms"], seen["p99_ms"])


def _most(port: int, bare: int) -> Row:
    """As fast as they may, in turns. The reference's p99 is in ``reference_is``: ours may be half more."""
    _load(port, 3, "warm"), _load(bare, 3, "warm")
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for turn in range(MOST_ROUNDS):
        ours.append(_load(port, SECONDS, f"max{turn}_"))
        theirs.append(_load(bare, SECONDS, f"max{turn}_"))
    rate, p50, p99 = (statistics.median(seen[name] for seen in ours) for name in ("rate", "p50_ms", "p99_ms"))
    reference, their_p99 = (statistics.median(seen[name] for seen in theirs) for name in ("rate", "p99_ms"))
    is_ = f"{BARE}; p99 {their_p99:,.1f} ms"
    return Row(AREA, "accept_max", "events/s", rate, reference, is_, rate / reference, p50, p99)


def _replicas(store: Store) -> Row:
    """Gateways beside each other, and PostgreSQL some way off. Each has as many connections as the one alone: few, so
    that they wait for PostgreSQL and not for the cores that they share here."""
    options = conninfo_to_dict(store.database_url)
    port = free_port()
    socket_file = f"{options['host']}/.s.PGSQL.{options['port']}"
    away = {
        "CHURNGUARD_DATABASE_URL": f"postgresql://{options['user']}:{options['password']}@127.0.0.1:{port}"
        f"/{options['dbname']}"
    }
    proxy = [sys.executable, "-m", "tests.bench.gateway.distance", str(port), socket_file, str(AWAY_MS)]
    with ExitStack() as stack:
        stack.enter_context(program(proxy, dict(os.environ)))
        _until(lambda: listens("127.0.0.1", port), 60)
        ports = [stack.enter_context(_gateway(store, away))[0] for _ in range(REPLICAS)]
        pool = stack.enter_context(ThreadPoolExecutor(REPLICAS))

        def loaded(replicas: int, turn: str) -> tuple[float, float, float]:
            """Events/s of all together, and the slowest one's p50 and p99."""
            each = [
                pool.submit(_load, port, SECONDS / 2, f"beside{turn}_{place}_", connections=SENDERS_EACH)
                for place, port in enumerate(ports[:replicas])
            ]
            seen = [load.result() for load in each]
            return sum(one["rate"] for one in seen), *(max(one[name] for one in seen) for name in ("p50_ms", "p99_ms"))

        loaded(REPLICAS, "warm")
        together, alone = [], []
        for turn in range(MOST_ROUNDS):
            alone.append(loaded(1, f"{turn}a"))
            together.append(loaded(REPLICAS, f"{turn}t"))
    rate, p50, p99 = (statistics.median(column) for column in zip(*together, strict=True))
    reference = statistics.median(seen[0] for seen in alone)
    is_ = f"one of them alone; {AWAY_MS:.0f} ms to PostgreSQL"
    return Row(AREA, "three_replicas", "events/s", rate, reference, is_, rate / reference, p50, p99)


def _warm(store: Store, stack: ExitStack, port: int) -> Row:
    session = subprocess.Popen([sys.executable, "-c", SESSION], env=dict(os.environ))
    stack.callback(session.wait)
    stack.callback(session.terminate)
    _until(lambda: _waiting(store) == 0, 600)
    rate, lags = _accept_to_row(store, port, "row", SECONDS, 200)
    p50, p99 = lags[len(lags) // 2] * 1000, lags[int(len(lags) * 0.99)] * 1000
    return Row(AREA, "accept_to_row_warm", "events/s", rate, None, None, None, p50, p99)


def _cold(store: Store, port: int) -> Row:
    """The first events after silence: Dagster's sensor sees them, and a run starts for them."""
    dagster = Dagster(store)
    lags: list[float] = []
    try:
        dagster.start()
        for number in range(COLD_ROUNDS):
            _until(lambda: not sessions.ages(store, WEBHOOKS), 120)
            lags.append(_accept_to_row(store, port, f"cold{number}_", 0.1, 50)[1][-1] * 1000)
            _until(dagster.kill_session, 60)
    finally:
        dagster.stop()
    return Row(AREA, "accept_to_row_cold", "ms", statistics.median(lags), None, None, None)


def _accept_to_row(store: Store, port: int, prefix: str, seconds: float, rate: float) -> tuple[float, list[float]]:
    """Events/s, and seconds from the moment each was taken until a query has found its row, in order; one clock."""
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        connection.execute("CREATE INDEX IF NOT EXISTS bench_customers ON raw.stripe_customers (name)")
        connection.execute("ANALYZE raw.stripe_customers")
    ended = threading.Event()
    found: dict[str, float] = {}
    observer = threading.Thread(target=_observe, args=[store, prefix, ended, found])
    observer.start()
    seen = _load(port, seconds, prefix, rate=rate)
    _until(lambda: len(found) == seen["statuses"]["200"], 60)
    ended.set()
    observer.join()
    with psycopg.connect(as_administrator(store.database_url)) as connection:
        taken = "SELECT event_id, extract(epoch FROM received_at)::float FROM ingest.webhook_inbox WHERE event_id LIKE "
        moments: dict[str, float] = dict(connection.execute(f"{taken} 'evt_{prefix}%'").fetchall())
    return seen["rate"], sorted(moment - moments[f"evt_{name}"] for name, moment in found.items())


def _observe(store: Store, prefix: str, ended: threading.Event, found: dict[str, float]) -> None:
    """Ask for the rows not found yet, a hundred times a second; so small a question that it does not load what it sees.

    Rows come nearly in the order of their names, so all before the first missing one need not be asked for again.
    """
    missing = 0
    question = "SELECT name FROM raw.stripe_customers WHERE name >= %s AND name < %s"
    with psycopg.connect(as_administrator(store.database_url), autocommit=True) as connection:
        while not ended.wait(0.01):
            names = connection.execute(question, [f"{prefix}{missing:08}", f"{prefix}99999999"]).fetchall()
            now = time.time()
            for (name,) in names:
                found.setdefault(name, now)
            while f"{prefix}{missing:08}" in found:
                missing += 1


def _abuse(port: int, process: psutil.Process) -> Row:
    """Honest deliveries at 500/s, alone and among bombs, endless bodies, silent sockets, in turns; medians of these.

    Ratio: p99 alone / p99 among.
    """

    @contextmanager
    def attackers() -> Iterator[None]:
        ended = threading.Event()
        threads = [threading.Thread(target=target, args=[port, ended]) for target in (_slow, _bombs, _endless)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        yield
        ended.set()
        for thread in threads:
            thread.join()

    return _alone_and_among("abuse", port, process, attackers)


def _under_fire(store: Store, port: int, process: psutil.Process) -> Row:
    """Among all that ``tests.bench.gateway.fire`` has, from a process of its own. Its rates are bounded there, since it
    takes its time from the same cores: what is measured is what an attack does to others, not who has more cores."""
    add_organization(store, Organization(organization_id=HEAVY, name="Heavy"), actor="bench")
    add_endpoint(store, organization_id=HEAVY, provider="sendgrid", secret=HEAVY_SECRET, actor="bench")
    arguments = ["--port", str(port), "--organization", INTEGRATION, "--seconds", str(SECONDS)]

    @contextmanager
    def attackers() -> Iterator[None]:
        with program([sys.executable, "-m", "tests.bench.gateway.fire", *arguments], dict(os.environ)):
            time.sleep(3)
            yield

    return _alone_and_among("under_fire", port, process, attackers)


def _alone_and_among(
    name: str, port: int, process: psutil.Process, attackers: Callable[[], AbstractContextManager[None]]
) -> Row:
    before = peak = process.memory_info().rss
    alone: list[dict[str, Any]] = []
    among: list[dict[str, Any]] = []
    for turn in range(ABUSE_ROUNDS):
        alone.append(_load(port, SECONDS / 2, f"{name}_alone{turn}_", rate=500))
        with attackers(), ThreadPoolExecutor(1) as pool:
            honest = pool.submit(_load, port, SECONDS / 2, f"{name}_among{turn}_", rate=500)
            while not honest.done():
                peak = max(peak, process.memory_info().rss)
                time.sleep(0.1)
        among.append(honest.result())
    reference, p99 = (statistics.median(seen["p99_ms"] for seen in side) for side in (alone, among))
    p50 = statistics.median(seen["p50_ms"] for seen in among)
    is_ = "the same honest traffic alone"
    return Row(AREA, name, "p99 ms", p99, reference, is_, reference / p99, p50, p99, (peak - before) / 2**20)


def _slow(port: int, ended: threading.Event) -> None:
    sockets = []
    for _ in range(SLOW_SOCKETS):
        slow = socket.create_connection(("127.0.0.1", port))
        slow.sendall(b"POST /webhooks/stripe/bench HTTP/1.1\r\n")
        sockets.append(slow)
    ended.wait()
    for slow in sockets:
        slow.close()


def _bombs(port: int, ended: threading.Event) -> None:
    import gzip

    bomb = gzip.compress(b"0" * 100_000_000)
    deep = delivery(INTEGRATION, "deep", 1, "x")
    body = b"[" * 10_000 + b"]" * 10_000
    head = deep.partition(b"\r\n\r\n")[0].rpartition(b"Content-Length")[0]
    while not ended.wait(0.2):
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        httpx.post(f"http://127.0.0.1:{port}/webhooks/stripe/{INTEGRATION}", content=bomb, headers=headers)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            connection.recv(1000)


def _endless(port: int, ended: threading.Event) -> None:
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    while not ended.wait(0.2):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /webhooks/stripe/{INTEGRATION} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
            try:
                for _ in range(100_000_000 // 65_536):
                    connection.sendall(chunk)
            except OSError:
                pass  # it was refused, as it should be


def _load(port: int, seconds: float, prefix: str, *, rate: float = 0, connections: int = 64) -> dict[str, Any]:
    arguments = ["--port", str(port), "--seconds", str(seconds), "--rate", str(rate), "--organizations", INTEGRATION]
    arguments += ["--connections", str(connections)]
    unique = prefix + str(time.monotonic_ns() if not prefix else "")
    command = [sys.executable, "-m", "tests.bench.gateway.load", *arguments, "--prefix", unique]
    seen = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert set(seen["statuses"]) == {"200"}, seen
    return dict(seen)


@contextmanager
def _gateway(store: Store, variables: Mapping[str, str] = MappingProxyType({})) -> Iterator[tuple[int, psutil.Process]]:
    port = free_port()
    environment = {
        **os.environ, "WEBHOOK_SERVER_PORT": str(port), "WEBHOOK_RATE_LIMIT_PER_MINUTE": "100000000", **variables
    }  # fmt: skip
    with program([sys.executable, "-m", "webhook_gateway.intake"], environment) as gateway:
        _until(lambda: answers(f"http://127.0.0.1:{port}/webhooks/health"), 60)
        yield port, psutil.Process(gateway.pid)


@contextmanager
def _bare(store: Store) -> Iterator[int]:
    port = free_port()
    url = as_administrator(store.database_url)  # it has a table of its own
    with program([sys.executable, "-m", "tests.bench.gateway.bare", str(port), url], dict(os.environ)):
        _until(lambda: listens("127.0.0.1", port), 60)
        yield port


def _waiting(store: Store) -> int:
    return sum(item.events for item in inbox.waiting(store))


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
