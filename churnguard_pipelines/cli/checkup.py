"""What `churnguard doctor` looks at. Each finding says what was found and, where it is bad, the fix."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.ports import refuse_unusable
from churnguard_pipelines.settings import Settings, load_settings, unknown_variables


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
    unknown = unknown_variables()
    yield Finding(
        "settings", not unknown, "; ".join(unknown) or f"home {settings.home}", "Correct the name, or remove it."
    )
    yield _home(settings)
    yield _key(settings)
    yield from _database(settings)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding(
        "python",
        good,
        sys.version.split()[0],
        "Install Python 3.11 or newer and run `rm -rf .venv && make install PYTHON=python3.12`.",
    )


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
        "Run `rm -rf .venv && make install`.",
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
    yield Finding(
        "daemon",
        running,
        f"last heartbeat {age:.0f} s ago" if age is not None else "not running",
        "Start everything with `churnguard up`; nothing syncs by itself without it.",
    )
    yield _port(
        f"{settings.dashboard_url}/healthz", settings, settings.dashboard_host, settings.dashboard_port, running
    )
    gateway = f"http://{settings.webhook_host}:{settings.webhook_port}/webhooks/health"
    yield _port(gateway, settings, settings.webhook_host, settings.webhook_port, running)


def _home(settings: Settings) -> Finding:
    above = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    good = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    found = f"{settings.home} is {'' if good else 'not '}to be written to"
    return Finding("folder", good, found, "Set CHURNGUARD_HOME to a folder that you may write to.")


def _port(url: str, settings: Settings, host: str, port: int, running: bool) -> Finding:
    """Ours answers there while the installation runs; otherwise it is free."""
    import httpx

    variables = "DASHBOARD" if port == settings.dashboard_port else "WEBHOOK_SERVER"
    name = f"port {port}"
    try:
        reached = url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - compared, not listened on
        httpx.get(reached, timeout=5, trust_env=False, verify=False).raise_for_status()  # noqa: S501 - our own certificate
        ours = True
    except httpx.HTTPError:
        ours = False
    if ours:
        return Finding(name, True, f"{variables.removesuffix('_SERVER').lower()} answers")
    if running:
        found = f"nothing of ours answers at {url}"
        return Finding(name, False, found, "Stop `churnguard up` with Ctrl-C and start it again.")
    try:
        refuse_unusable(host, port, variables)
    except ChurnGuardError as error:
        return Finding(name, False, error.message, error.remedy or "")
    return Finding(name, True, f"free for {variables}_PORT")
