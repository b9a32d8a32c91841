"""The environment of Dagster's processes, and Dagster's home. Imports no Dagster: the command line uses it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.private_files import new_file
from churnguard_pipelines.store.secrets import load_keys

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings
    from churnguard_pipelines.store.postgres.database import Store

LOCATION = "churnguard"
OWNERS_VARIABLE = "CHURNGUARD_OWNER_DATABASE_URL"
"""What no process but the one that sets up the database needs."""
DAGSTER_VARIABLES = (
    "DAGSTER_HOME",
    "CHURNGUARD_HOME",
    "CHURNGUARD_DATABASE_URL",
    "CHURNGUARD_DAGSTER_DATABASE_URL",
)


def dagster_home(settings: Settings) -> Path:
    """``<home>/dagster``, with the ``dagster.yaml`` of this version of the product in it."""
    folder = settings.home / "dagster"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    packaged = Path(__file__).with_name("dagster.yaml")  # in an installed wheel; else the project's own
    source = packaged if packaged.exists() else Path(__file__).parents[3] / "dagster.yaml"
    wanted, target = source.read_bytes(), folder / "dagster.yaml"
    if not target.exists() or target.read_bytes() != wanted:
        # In one step: another process that finds half a file would make Dagster's own SQLite database instead.
        unfinished = target.with_suffix(f".{os.getpid()}")
        owner = folder.stat()
        with new_file(unfinished, owner.st_uid, owner.st_gid) as file:
            file.write(wanted)
        unfinished.replace(target)
    return folder


def dagster_environment(store: Store) -> dict[str, str]:
    """The whole environment of a Dagster process of this installation. Holds the database's password: never log it."""
    settings = store.settings
    variables = {name: value for name, value in os.environ.items() if name != OWNERS_VARIABLE} | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "CHURNGUARD_HOME": str(settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_DAGSTER_DATABASE_URL": store.dagster_database_url,
    }
    with suppress(InvalidConfiguration):  # without one they say so themselves
        variables["INTEGRATION_ENCRYPTION_KEY"] = load_keys(settings)
    return variables
