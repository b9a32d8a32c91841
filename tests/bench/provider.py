"""The simulated providers in a process of their own, so that they do not share our interpreter's lock."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from churnguard_pipelines.ports import free_port


@contextmanager
def sandbox(*, bulk: int = 0, latency_ms: int, paths: str = "/v1/*", scale: float = 0) -> Iterator[str]:
    """Its URL; every answer at these paths takes ``latency_ms`` longer. ``bulk``: customers of the account of that
    name, ``scale``: how large the others are."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as state:
        command = [
            "--port",
            str(port),
            "--state",
            state,
            "--freeze",
            "--scale",
            str(scale),
            "--bulk",
            str(bulk),
            "--rate",
            "0",
        ]
        process = subprocess.Popen([sys.executable, "-m", "churnguard_pipelines.sandbox", *command])
        try:
            _wait_for(url)
            if latency_ms:
                fault = {"path": paths, "kind": "latency", "seconds": latency_ms / 1000}
                httpx.post(f"{url}/_faults", json=fault).raise_for_status()
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait_for(url: str) -> None:
    for _ in range(300):
        try:
            if httpx.get(f"{url}/_health", timeout=30).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError("the simulated Stripe did not start")
