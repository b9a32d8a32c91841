"""The simulated businesses that the demo brings in: its own, as child processes, or some that run elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from churnguard_pipelines.errors import ChurnGuardError, InvalidConfiguration
from churnguard_pipelines.orchestration.processes.supervision import die_with_parent, end
from churnguard_pipelines.ports import free_port, listens
from churnguard_pipelines.store.postgres.embedded import EmbeddedPostgres

PRODUCT_DATABASE, USAGE_STREAM = "SANDBOX_PRODUCT_DATABASE", "SANDBOX_USAGE_STREAM"
START_TIMEOUT_SECONDS = 120
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Simulation:
    """Where the simulated providers answer, and the product database of one business."""

    url: str
    product_url: str


@contextmanager
def own_simulation(home: Path, usage_url: str | None, *, living: bool) -> Iterator[Simulation]:
    """Both below ``home``, ended with the block. ``usage_url``: where the products publish what people do in them.

    Raises ``ChurnGuardError`` if it does not start.
    """
    database = EmbeddedPostgres(home / "product", {"wal_level": "logical"})
    product_url = database.start()
    try:
        folder, log = home / "sandbox", home / "logs" / "sandbox.log"
        for each in (folder, log.parent):
            each.mkdir(parents=True, exist_ok=True)
        port = _port(folder)
        command = [sys.executable, "-m", "churnguard_pipelines.sandbox", "--port", str(port), "--state", str(folder)]
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - a list, no shell; its program is ours
                command if living else [*command, "--freeze"],
                env=os.environ | {PRODUCT_DATABASE: product_url, USAGE_STREAM: usage_url or ""},  # not for `ps`
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, log)
            yield Simulation(url, product_url)
        finally:
            end(process, STOP_SECONDS)
    finally:
        database.stop()


def given_simulation(url: str) -> Simulation:
    """One that runs at ``url`` already, with the product database that the environment names.

    Raises ``InvalidConfiguration`` if it names none.
    """
    product_url = os.environ.get(PRODUCT_DATABASE)
    if not product_url:
        raise InvalidConfiguration(
            f"{PRODUCT_DATABASE} is not set.", remedy="Set it to the URL that the simulation at that address has."
        )
    return Simulation(url.rstrip("/"), product_url)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/_books/acme/counts", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise ChurnGuardError("the simulated providers did not start.", remedy=f"See {log}.")


def _port(folder: Path) -> int:
    """The port of the last start if it is still free: integrations keep pointing at it."""
    remembered = folder / "port.json"
    port = json.loads(remembered.read_text()) if remembered.exists() else free_port()
    if listens("127.0.0.1", port):
        port = free_port()
    remembered.write_text(json.dumps(port))
    return int(port)
