"""What `churnguard doctor` looks at. Each finding says what was found and, where it is bad, the fix."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    good: bool
    found: str
    fix: str = ""


def examine() -> Iterator[Finding]:
    """Cheapest first; stops where nothing further can be looked at (bad settings, no database)."""
    yield _python()
    yield _packages()
    try:
        settings = load_settings()
    except ChurnGuardError as error:
        yield Finding("settings", False, error.message, error.remedy or "")
        return
    yield Finding("settings", True, f"home {settings.home}")
    yield _key(settings)
    yield from _database(settings)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding("python", good, sys.version.split()[0], "Install Python 3.11 or newer and run `make clean demo`.")


def _packages() -> Finding:
    wrong = []
    for requirement in requires("churnguard-pipelines") or ():
        pin = re.match(r"([A-Za-z0-9_.-]+)(?:\[.*\])?==([^; ]+)(?!.*extra)", requirement)
        if not pin:
            continue
        try:
            installed = version(pin[1])
        except PackageNotFoundError:
            installed = "missing"
        if installed != pin[2]:
            wrong.append(f"{pin[1]} is {installed}, tested with {pin[2]}")
    return Finding(
        "packages",
        not wrong,
        "; ".join(wrong) or "every package has its tested version",
        "Run `rm -rf .venv && make demo ONCE=1`.",
    )


def _key(settings: Settings) -> Finding:
    from churnguard_pipelines.store.secrets import load_vault

    try:
        load_vault(settings)
    except ChurnGuardError as error:
        return Finding("key", False, error.message, error.remedy or "")
    return Finding("key", True, "present and well formed")


def _database(settings: Settings) -> Iterator[Finding]:
    from churnguard_pipelines.store.postgres.database import Store

    try:
        store = Store.open(settings)
    except ChurnGuardError as error:
        yield Finding("database", False, error.message, error.remedy or "")
        return
    try:
        yield Finding("database", True, store.described)
        yield from _services(
            store.settings, alone=settings.embedded and store.last_user, dagster_url=store.dagster_database_url
        )
    finally:
        store.close()


def _services(settings: Settings, *, alone: bool, dagster_url: str) -> Iterator[Finding]:
    from churnguard_pipelines.orchestration.processes.heartbeats import daemon_age_seconds

    age = None if alone else daemon_age_seconds(dagster_url)
    running = age is not None and age < 60
    free = _is_free(settings.dashboard_host, settings.dashboard_port)
    yield Finding(
        "daemon",
        running,
        f"last heartbeat {age:.0f} s ago" if age is not None else "not running",
        "Start everything with `churnguard up`; nothing syncs by itself without it.",
    )
    yield Finding(
        "port",
        free != running,
        f"{settings.dashboard_port} is {'free' if free else 'in use'}",
        "Another program has the port: stop it or set DASHBOARD_PORT."
        if not running
        else "The daemon runs but no dashboard answers: restart `churnguard up`.",
    )


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) != 0
