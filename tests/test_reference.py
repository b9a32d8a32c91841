"""The reference of settings and files says what the models say."""

from __future__ import annotations

import os

from churnguard_pipelines.settings import Settings
from tests import reference


def test_the_reference_is_what_the_models_say() -> None:
    written = reference.render()
    if os.environ.get("CHURNGUARD_UPDATE_REFERENCE"):
        reference.PATH.write_text(written)
    assert reference.PATH.read_text() == written, "`make reference` writes it anew"


def test_every_setting_is_explained_and_in_the_example_of_an_environment() -> None:
    example = (reference.PATH.parent.parent / ".env.example").read_text()
    lines = [
        line for line in reference.render().splitlines() if line.startswith("| `") and line.split("`")[1].isupper()
    ]
    assert len(lines) == len(Settings.model_fields)
    for line in lines:
        name, explained = line.split("`")[1], line.rsplit("|", 2)[1].strip()
        assert explained, name
        assert f"{name}=" in example, name
