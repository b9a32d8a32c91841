"""Exchange rates: the published history, what an operator adds or overrules, and a currency without any."""

from __future__ import annotations

import io
import zipfile
from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
import sqlalchemy as sa

from churnguard_pipelines.analytics.exchange import (
    import_published_rates,
    load_rates,
    operator_rates,
    published_until,
    set_operator_rate,
)
from churnguard_pipelines.analytics.published_rates import parse
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.store.postgres.database import Store

FRIDAY, SATURDAY, MONDAY = date(2025, 2, 28), date(2025, 3, 1), date(2025, 3, 3)


def test_the_published_rate_of_the_day_or_the_last_one_before(store: Store) -> None:
    rates = load_rates(store, ["eur", "usd"])
    assert rates.rate("eur", "usd", FRIDAY) == Fraction("1.0411")
    assert rates.rate("eur", "usd", SATURDAY) == rates.rate("eur", "usd", FRIDAY) != rates.rate("eur", "usd", MONDAY)
    assert rates.rate("usd", "eur", FRIDAY) == 1 / Fraction("1.0411")


def test_minor_units_of_other_sizes(store: Store) -> None:
    rates = load_rates(store, ["eur", "usd", "jpy"])
    assert rates.rate("eur", "jpy", FRIDAY) == Fraction("156.96") / 100  # yen for a cent
    assert rates.rate("jpy", "usd", FRIDAY) == Fraction("1.0411") / Fraction("156.96") * 100


def test_a_currency_is_worth_itself(store: Store) -> None:
    assert load_rates(store, ["ars"]).rate("ars", "ars", FRIDAY) == 1


def test_the_history_is_stored_once_and_what_is_newer_is_added(store: Store) -> None:
    count = sa.text("SELECT count(*), max(day) FROM analytics.exchange_rates")
    forget_all_rates(store)
    load_rates(store, ["eur", "usd"])
    with store.operator() as connection:
        rows, latest = connection.execute(count).one()
        connection.execute(sa.text("DELETE FROM analytics.exchange_rates WHERE day > '2025-01-01'"))
    load_rates(store, ["eur", "usd"])
    with store.operator() as connection:
        assert tuple(connection.execute(count).one()) == (rows, latest)


def forget_all_rates(store: Store) -> None:
    """As in a new installation."""
    with store.operator() as connection:
        connection.execute(sa.text("DELETE FROM analytics.exchange_rates"))


def test_an_operators_rate_overrules_its_day(store: Store) -> None:
    set_operator_rate(store, FRIDAY, "usd", Decimal("1.5"))
    rates = load_rates(store, ["eur", "usd"])
    assert rates.rate("eur", "usd", FRIDAY) == rates.rate("eur", "usd", SATURDAY) == Fraction("1.5")
    assert rates.rate("eur", "usd", MONDAY) < Fraction("1.2")  # the next published one holds again


def test_an_operator_adds_a_currency_that_nobody_publishes_and_corrects_it(store: Store) -> None:
    set_operator_rate(store, FRIDAY, "ars", Decimal(1000))
    set_operator_rate(store, FRIDAY, "ars", Decimal(1200))
    assert load_rates(store, ["ars", "usd"]).rate("ars", "usd", date(2025, 12, 31)) < Fraction(1, 1000)
    assert operator_rates(store) == [(FRIDAY, "ars", Decimal(1200))]


def test_a_missing_rate_names_the_currency_and_the_command(store: Store) -> None:
    set_operator_rate(store, MONDAY, "ars", Decimal(1200))
    with pytest.raises(InvalidConfiguration, match=r"for ars on 2025-02-28.*churnguard rates set 2025-02-28 ars"):
        load_rates(store, ["ars", "usd"]).rate("ars", "usd", FRIDAY)


@pytest.mark.parametrize("currency", ["USD", "us", "dollar", "u$d"])
def test_what_is_no_currency_is_refused(store: Store, currency: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not a currency"):
        set_operator_rate(store, FRIDAY, currency, Decimal(1))


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_what_is_no_rate_is_refused(store: Store, rate: str) -> None:
    with pytest.raises(InvalidConfiguration, match="not possible"):
        set_operator_rate(store, FRIDAY, "usd", Decimal(rate))


LAST = date(2026, 10, 30)  # of the history that is installed
XML = """<?xml version="1.0" encoding="UTF-8"?>
<gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref">
<gesmes:subject>Reference rates</gesmes:subject><Cube><Cube time="2026-11-03"><Cube currency="USD" rate="1.2"/>
<Cube currency="JPY" rate="170.5"/></Cube><Cube time="2026-11-02"><Cube currency="USD" rate="1.19"/></Cube></Cube>
</gesmes:Envelope>"""
CSV = "Date,USD,JPY,CYP,\r\n2026-11-03,1.2,170.5,N/A,\r\n2026-11-02,1.19,N/A,N/A,\r\n"
DAILY = "Date, USD, JPY, \n3 November 2026, 1.2, 170.5, \n"


def zipped(*texts: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, text in enumerate(texts):
            archive.writestr(f"eurofxref-{number}.csv", text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [CSV.encode(), zipped(CSV), XML.encode(), b"\xef\xbb\xbf" + CSV.encode(), zipped(XML)],
    ids=["CSV", "zipped CSV", "XML", "CSV with a mark of its encoding", "zipped XML"],
)
def test_the_banks_files_in_all_their_forms(content: bytes) -> None:
    assert sorted(parse(content, name="file")) == [
        (date(2026, 11, 2), "usd", Decimal("1.19")),
        (date(2026, 11, 3), "jpy", Decimal("170.5")),
        (date(2026, 11, 3), "usd", Decimal("1.2")),
    ]


def test_a_days_own_file() -> None:
    assert [rate.day for rate in parse(zipped(DAILY), name="file")] == [date(2026, 11, 3)] * 2


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "first line does not begin with Date"),
        (b"Date,USD\n", "no rates"),
        (b"Date,USD\n2026-11-03,0\n", "“0” is no rate"),
        (b"Date,USD\n2026-11-03,-1\n", "no rate"),
        (b"Date,USD\n2026-11-03,1e999999999\n", "no rate"),
        (b"Date,USD\n03.11.2026,1\n", "“03.11.2026” is no day"),
        (b"Date,USD\n2999-11-03,1\n", "yet to come"),
        (b"Date,DOLLAR\n2026-11-03,1\n", "“DOLLAR” is no currency"),
        (b"\xff\xfe\x00", "codec"),
        (b"PK\x03\x04 cut", "zip"),
        (b"<!DOCTYPE html><html></html>", "document type"),
        (b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><Cube time="2026-11-03">&b;</Cube>', "document type"),
        (XML.encode()[:-30], "no element found|unclosed"),
        (b"<html></html>", "no rates"),
    ],
    ids=lambda value: value[:40],
)  # fmt: skip
def test_what_is_no_file_of_the_bank_is_refused_in_one_line(content: bytes, told: str) -> None:
    _is_refused(content, told)


def test_an_archive_of_several_files_or_of_too_much_is_refused() -> None:
    _is_refused(zipped(CSV, CSV), "2 files")
    _is_refused(zipped("x" * (65 << 20)), "larger than 64 MiB")


def _is_refused(content: bytes, told: str) -> None:
    with pytest.raises(InvalidConfiguration, match=rf"(?s)no file of the European.*({told}).*eurofxref-hist") as error:
        list(parse(content, name="file"))
    assert "\n" not in str(error.value)


def test_an_import_goes_on_where_the_history_ends_and_keeps_what_was_before(store: Store) -> None:
    """The history has to be there before a file of some days is, or it would never come."""
    forget_all_rates(store)
    assert published_until(store) == LAST
    assert import_published_rates(store, XML.encode(), name="file") == (3, date(2026, 11, 3))
    rates = load_rates(store, ["eur", "usd"])
    assert rates.rate("eur", "usd", date(2026, 11, 3)) == Fraction("1.2")
    assert rates.rate("eur", "usd", FRIDAY) == Fraction("1.0411")
    assert published_until(store) == date(2026, 11, 3)
    import_published_rates(store, CSV.replace("1.2", "1.25").encode(), name="file")  # corrected by the bank
    assert load_rates(store, ["eur", "usd"]).rate("eur", "usd", date(2026, 11, 4)) == Fraction("1.25")


def test_a_published_rate_is_carried_within_its_limit_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the history ends, and where a currency was given up: rubles are not published since March 2022."""
    set_operator_rate(store, FRIDAY, "ars", Decimal(1200))
    rates = load_rates(store, ["eur", "usd", "rub", "ars"])
    assert rates.rate("eur", "usd", date(2026, 11, 30)) == rates.rate("eur", "usd", LAST)
    with pytest.raises(
        InvalidConfiguration, match=r"usd before 2026-12-01 is of 2026-10-30.*31 days.*rates import http"
    ):
        rates.rate("eur", "usd", date(2026, 12, 1))
    with pytest.raises(InvalidConfiguration, match="rub before 2025-02-28 is of 2022-03-01"):
        rates.rate("eur", "rub", FRIDAY)
    assert rates.rate("eur", "ars", LAST) == 1200  # an operator's holds until the next
    monkeypatch.setattr(store.settings, "rates_carried_days", 4)
    with pytest.raises(InvalidConfiguration, match="at most 4 days"):
        load_rates(store, ["eur", "usd"]).rate("eur", "usd", date(2026, 11, 4))
