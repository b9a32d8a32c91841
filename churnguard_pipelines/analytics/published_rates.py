"""The European Central Bank's files of reference rates: a day's, 90 days' or the whole history, as CSV, zipped or XML.

https://www.ecb.europa.eu/stats/policy_and_exchange_rates/euro_reference_exchange_rates/
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import NamedTuple
from xml.parsers import expat

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.http import HttpClient
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.foreign_text import on_one_line

MOST_BYTES = 64 << 20
"""Of a file, unpacked; the history since 1999 is about 2 MiB of CSV or 8 of XML."""
SECONDS = 120.0
_SHOWN = 40


class PublishedRate(NamedTuple):
    """``per_euro``: units of the currency for one euro."""

    day: date
    currency: str
    per_euro: Decimal


def download(url: str) -> bytes:
    """Raises ``ProviderError`` where nothing comes in time and size, ``InvalidConfiguration`` for no address."""
    guard = AddressGuard("", restricted=False)
    guard.check_url(url)
    with HttpClient(guard, provider_title="The bank's server", timeout=SECONDS, max_body=MOST_BYTES) as http:
        return http.request("GET", url).content


def parse(content: bytes, *, name: str) -> Iterator[PublishedRate]:
    """The rates in the file's own order. Raises ``InvalidConfiguration`` for what is no such file, at the latest at its
    end; ``name``: what the error calls it."""
    try:
        content = _unpacked(content)
        rows = _of_xml(content) if content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") else _of_csv(content)
        count = 0
        for count, (day, currency, rate) in enumerate(rows, 1):  # noqa: B007 - whether there was any
            yield _checked(day, currency, rate)
        if count == 0:
            raise ValueError("it has no rates")
    except (ValueError, zipfile.BadZipFile, zlib.error, csv.Error, expat.ExpatError, NotImplementedError) as error:
        raise InvalidConfiguration(
            f"{name} is no file of the European Central Bank's reference rates: {on_one_line(str(error), 200)}.",
            remedy="Take eurofxref-hist.zip, its CSV, or eurofxref-hist.xml.",
        ) from None


def _unpacked(content: bytes) -> bytes:
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise ValueError(f"the archive has {len(names)} files")
            with archive.open(names[0]) as opened:
                content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    return content


def _of_csv(content: bytes) -> Iterator[tuple[str, str, str]]:
    """A column for each currency: ``Date,USD,JPY`` and ``2026-10-30,1.1172,175.68``; a missing rate is ``N/A``."""
    rows = csv.reader(io.StringIO(content.decode("utf-8-sig")))
    head = [name.strip() for name in next(rows, [])]
    if head[:1] != ["Date"]:
        raise ValueError("its first line does not begin with Date")
    for row in rows:
        for currency, rate in zip(head[1:], row[1:], strict=False):
            if currency and rate.strip() not in ("", "N/A"):
                yield row[0].strip(), currency, rate.strip()


def _of_xml(content: bytes) -> Iterator[tuple[str, str, str]]:
    """``<Cube time="2026-10-30"><Cube currency="USD" rate="1.1172"/>…</Cube>``"""
    parser, found, day = expat.ParserCreate(), list[tuple[str, str, str]](), ""

    def element(name: str, attributes: dict[str, str]) -> None:
        nonlocal day
        if name == "Cube":
            day = attributes.get("time", day)
            if "currency" in attributes:
                found.append((day, attributes["currency"], attributes.get("rate", "")))

    def declaration(*_: object) -> None:
        raise ValueError("it declares a document type")  # entities may name files and grow without bound

    parser.StartElementHandler = element
    parser.StartDoctypeDeclHandler = declaration
    parser.Parse(content, True)
    yield from found


def _checked(day: str, currency: str, rate: str) -> PublishedRate:
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        raise ValueError(f"“{currency[:_SHOWN]}” is no currency")
    try:
        per_euro = Decimal(rate)
    except InvalidOperation:
        per_euro = Decimal("NaN")
    if not per_euro.is_finite() or not 0 < per_euro < 10**12 or len(rate) > _SHOWN:
        raise ValueError(f"“{rate[:_SHOWN]}” is no rate")
    return PublishedRate(_day(day), currency.lower(), per_euro)


@lru_cache(maxsize=1)
def _day(text: str) -> date:
    """The history writes 2026-10-30, a day's own file 30 October 2026."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        try:
            day = datetime.strptime(text, "%d %B %Y").date()  # noqa: DTZ007 - a day has no zone
        except ValueError:
            raise ValueError(f"“{text[:_SHOWN]}” is no day") from None
    if day > date.today() + timedelta(days=1):  # noqa: DTZ011 - a day of slack is enough
        raise ValueError(f"{day} is yet to come")
    return day
