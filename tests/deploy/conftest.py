"""Measurements that the tests of the deployment print when all are done."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Measured = Callable[[str], None]
_KEY = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Measured:
    """Notes a line for the end of the report, e.g. how large an image is."""
    return pytestconfig.stash.setdefault(_KEY, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_KEY, []):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
