"""The environment of Dagster's processes, and Dagster's home. Imports no Dagster: the command line uses it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.postgres.server import OWNERS_URL
from churnguard_pipelines.store.private_files import new_file
from churnguard_pipelines.store.secrets import load_keys

if TYPE_CHECKING:
    from churnguard_pipelines.settings import Settings
    from churnguard_pipelines.store.postgres.database import Store

LOCATION = "churnguard"
OUR_STORAGE = "churnguard_pipelines.orchestration.dagster_storage"
"""What a ``dagster.yaml`` that is meant for us names."""
DAGSTER_VARIABLES = (
    "DAGSTER_HOME",
    "CHURNGUARD_HOME",
    "CHURNGUARD_DATABASE_URL",
    "CHURNGUARD_DAGSTER_DATABASE_URL",
)


def dagster_home(settings: Settings) -> Path:
    """The environment's ``DAGSTER_HOME``, as it is, where a ``dagster.yaml`` for us is in it; else ``<home>/dagster``,
    with the one of this version of the product. Raises ``InvalidConfiguration`` if that cannot be written."""
    if (given := _given_home(settings)) is not None:
        return given
    packaged = Path(__file__).with_name("dagster.yaml")  # in an installed wheel; else the project's own
    source = packaged if packaged.exists() else Path(__file__).parents[3] / "dagster.yaml"
    return _kept(settings, "dagster.yaml", source.read_bytes()).parent


def workspace(settings: Settings, host: str, port: int) -> Path:
    """The file that says where the code server is. Raises ``InvalidConfiguration`` if it cannot be written."""
    given = _given_home(settings)
    if given is not None and (file := given / "workspace.yaml").exists():
        return file
    server = {"host": host, "port": port, "location_name": LOCATION}
    return _kept(settings, "workspace.yaml", json.dumps({"load_from": [{"grpc_server": server}]}).encode())


def launches_elsewhere(settings: Settings) -> bool:
    """Whether Dagster's runs are no processes of the code server's machine, but e.g. pods."""
    import yaml

    launcher = (yaml.safe_load((dagster_home(settings) / "dagster.yaml").read_text()) or {}).get("run_launcher")
    return launcher is not None and launcher.get("class") != "DefaultRunLauncher"


def _given_home(settings: Settings) -> Path | None:
    """A private database's services have their own: nothing of the demo gets into a shell's other installation."""
    folder = Path(os.environ.get("DAGSTER_HOME", ""))
    if settings.embedded or not folder.is_absolute() or folder == settings.home / "dagster":
        return None
    with suppress(OSError):
        if OUR_STORAGE in (folder / "dagster.yaml").read_text():
            return folder
    return None


def _kept(settings: Settings, name: str, wanted: bytes) -> Path:
    """A file of ``<home>/dagster`` with this in it; not written without need."""
    folder = settings.home / "dagster"
    target = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != wanted:
            # In one step: another process that finds half a file would make Dagster's own SQLite database instead.
            unfinished = target.with_suffix(f".{os.getpid()}")
            owner = folder.stat()
            with new_file(unfinished, owner.st_uid, owner.st_gid) as file:
                file.write(wanted)
            unfinished.replace(target)
    except OSError as error:
        raise InvalidConfiguration(
            f"{folder} cannot be written: {error.strerror}.", remedy="Set CHURNGUARD_HOME to a folder that can be."
        ) from None
    return target


def dagster_environment(store: Store) -> dict[str, str]:
    """The whole environment of a Dagster process of this installation. Holds the database's password: never log it."""
    settings = store.settings
    variables = {name: value for name, value in os.environ.items() if name != OWNERS_URL} | {
        "DAGSTER_HOME": str(dagster_home(settings)),
        "CHURNGUARD_HOME": str(settings.home),
        "CHURNGUARD_DATABASE_URL": store.database_url,
        "CHURNGUARD_DAGSTER_DATABASE_URL": store.dagster_database_url,
    }
    with suppress(InvalidConfiguration):  # without one they say so themselves
        variables["INTEGRATION_ENCRYPTION_KEY"] = load_keys(settings)
    return variables
