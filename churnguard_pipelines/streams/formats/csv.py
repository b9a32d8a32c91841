"""Messages that are one row of CSV each, without a header. Every value is text, as it came."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import islice

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable, written
from churnguard_pipelines.streams.formats.fields import check_fields

MOST_CELLS = 50_000
_NUMBERED = re.compile("column_[1-9][0-9]*")


class CsvDecoder(Decoder):
    def __init__(self, stream: StreamConfiguration) -> None:
        self._stream = stream
        self._columns = stream.format_options.columns
        self._delimiter, self._quote = stream.format_options.delimiter, stream.format_options.quote
        twice = {each for each in self._columns or () if (self._columns or ()).count(each) > 1}
        if twice:
            raise self._error(f"format_options.columns names {', '.join(sorted(twice))} twice")
        try:
            csv.reader([], delimiter=self._delimiter, quotechar=self._quote, strict=True)
            if self._delimiter == self._quote or {self._delimiter, self._quote} & set("\r\n\0"):
                raise ValueError
        except (csv.Error, TypeError, ValueError):
            raise self._error("format_options: this delimiter and this quote cannot go together") from None
        csv.field_size_limit(max(csv.field_size_limit(), stream.largest_message))  # of all readers; it only grows

    def decode(self, values: Sequence[bytes]) -> Sequence[Decoded | Undecodable]:
        return list(map(self._decoded, values))

    def check(self) -> None:
        check_fields(self._stream, self._missing)

    def _missing(self, path: Sequence[str]) -> Sequence[str] | None:
        name = ".".join(path)
        if self._columns is None:
            return None if _NUMBERED.fullmatch(name) else ["column_1", "column_2", "…"]
        return None if len(path) == 1 and name in self._columns else self._columns

    def _decoded(self, value: bytes) -> Decoded | Undecodable:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return Undecodable("CSV that is not UTF-8")
        if text.count(self._delimiter) >= MOST_CELLS:
            return Undecodable(f"CSV with more than {MOST_CELLS:,} fields")
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=self._delimiter, quotechar=self._quote, strict=True)
        try:
            rows = [*islice(reader, 2)]  # each blank line is a row: millions of them fit in a message
        except csv.Error as error:
            return Undecodable(f"CSV that cannot be read ({error})")
        if len(rows) > 1:
            return Undecodable("more than one row of CSV, a message is one")
        if not any(rows):
            return Undecodable("an empty message, which is no row of CSV")
        (row,) = rows
        names = self._columns or [f"column_{number}" for number in range(1, len(row) + 1)]
        if len(row) != len(names):
            return Undecodable(f"{len(row):,} fields, there are {len(names):,} columns")
        return written(dict(zip(names, row, strict=True)))

    def _error(self, what: str) -> InvalidConfiguration:
        return InvalidConfiguration(
            f"{what}.", integration_id=self._stream.stream_id, remedy="Correct it in the stream's configuration."
        )
