"""A demo of simulated providers that run elsewhere."""

from __future__ import annotations

import pytest

from churnguard_pipelines.cli.demo.simulation import PRODUCT_DATABASE, given_simulation
from churnguard_pipelines.errors import InvalidConfiguration


def test_it_is_told_where_both_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PRODUCT_DATABASE, "postgresql://somebody@product-db/product")
    simulation = given_simulation("http://sandbox:12111/")
    assert simulation.url == "http://sandbox:12111"
    assert simulation.product_url == "postgresql://somebody@product-db/product"


def test_the_product_database_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRODUCT_DATABASE, raising=False)
    with pytest.raises(InvalidConfiguration, match="SANDBOX_PRODUCT_DATABASE is not set"):
        given_simulation("http://sandbox:12111")
