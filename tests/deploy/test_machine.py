"""What a machine lacks for the slow tests is said in one line: to a person as a skip, to CI as a failure."""

from __future__ import annotations

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.deploy.machine import program


@pytest.mark.parametrize(("ci", "outcome"), [(None, Skipped), ("true", Failed)], ids=["a person's", "CI's"])
def test_a_program_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, ci: str | None, outcome: type[BaseException]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if ci is not None:
        monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=r"^dockerd-of-nobody is not installed: apt-get install docker\.io$"):
        program("dockerd-of-nobody", "docker.io")
