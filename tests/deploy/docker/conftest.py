"""One Docker Engine and one image of the product for all tests in here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import Measured
from tests.deploy.docker.engine import Engine, running, stand_in_for_debian, stand_ins_for_servers

IMAGE = "churnguard-pipelines"
HERE = Path(__file__).parent
SECONDS = 3600


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def image(engine: Engine, measured: Measured) -> str:
    """The name of the product's image, built of this folder by the Dockerfile as it is."""
    begun = time.monotonic()
    stand_in_for_debian(engine)
    ready = time.monotonic()
    engine.build(IMAGE, "--file", "deploy/Dockerfile", ".")
    measured(f"image: built in {time.monotonic() - ready:.0f} s, its base in {ready - begun:.0f} s before")
    return IMAGE


@pytest.fixture(scope="session")
def servers(engine: Engine, image: str) -> None:
    """The images of PostgreSQL, Redis and Kafka are there."""
    stand_ins_for_servers(engine)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a machine waits for what is built there once."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.timeout(SECONDS))
