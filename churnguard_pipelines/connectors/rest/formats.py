"""Reads answers as documents and records: JSON, newline-delimited JSON, CSV and XML, every digit kept.

An answer has a budget of bytes (the HTTP client's) and of values (here), since a few bytes can become many objects.
What cannot be read without loss is refused, in words that say what it is.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn
from xml.parsers import expat

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.answers import Response
from churnguard_pipelines.errors import ProviderMisbehaved
from churnguard_pipelines.model import DataFormat, RuleIntegration
from churnguard_pipelines.record_paths import RecordPath
from churnguard_pipelines.rule_options import is_charset

MOST_VALUES = 2_000_000
"""Of one answer. A megabyte of brackets would else become a hundred of empty lists."""
DEEPEST = 100
LONGEST_FIELD = 10_000_000
"""Characters of one field of a CSV file."""
MOST_CELLS = 50_000
"""Of one row of a CSV file."""
LONGEST_NAMESPACE = 256

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHARSET = re.compile(r"charset=\"?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"""^\s*<\?xml[^>]{0,200}encoding=["']([A-Za-z0-9._-]{1,40})["']""")
_HTML = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)[\s>]", re.IGNORECASE)
_NOT_A_NUMBER = re.compile(rb"[\[:,]\s*(-?(?:NaN|Infinity))\b")
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_MANY_DIGITS = re.compile(rb"0[0.]{15}")  # a double has fifteen, whatever they are
_SEPARATORS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Document:
    """``whole``: the answer, where pages tell of each other in it; None of a format that is records only."""

    whole: Any
    records: Iterator[Any]


def read(integration: RuleIntegration, response: Response, path: RecordPath, *, first: bool) -> Document:
    """``first``: it is the list's first page, where nothing at the path is an error. Raises ``ProviderMisbehaved``."""
    rule = integration.rule
    reader = _Reader(integration, response)
    text = reader.text(rule.encoding)
    match rule.response_format:
        case DataFormat.NDJSON:
            return Document(None, reader.lines(text))
        case DataFormat.CSV:
            return Document(None, reader.rows(text))
        case DataFormat.XML:
            whole = reader.xml(text)
        case _:
            whole = reader.json(text)
    return Document(whole, iter(reader.records(whole, path, first=first)))


class _Reader:
    def __init__(self, integration: RuleIntegration, response: Response) -> None:
        self._integration = integration
        self._response = response

    def text(self, encoding: str | None) -> bytes:
        """As UTF-8. The encoding is the one that is told, else the mark's at its beginning, the header's, XML's own."""
        body = self._response.content
        kind = self._integration.rule.response_format
        if _HTML.match(body[:1000].removeprefix(codecs.BOM_UTF8)):
            self.refuse(f"HTML instead of {kind.upper()}", "Is it the API's address, and are the credentials sent?")
        marked = next(((mark, name) for mark, name in _BOMS if body.startswith(mark)), None)
        if marked is not None and encoding is None:
            body, encoding = body[len(marked[0]) :], marked[1]
        told = _CHARSET.search(self._response.headers.get("content-type", ""))
        own = _XML_ENCODING.match(body[:300]) if kind is DataFormat.XML else None
        encoding = encoding or (told[1] if told else own[1].decode() if own else "utf-8")
        try:
            if not is_charset(encoding):
                raise LookupError
            if codecs.lookup(encoding).name == "utf-8":
                body.decode()
                return body.removeprefix(codecs.BOM_UTF8)
            return body.decode(encoding).removeprefix("\ufeff").encode()
        except LookupError:
            self.refuse(f"text in an encoding that is not known, “{encoding}”", "Name it in `encoding`.")
        except UnicodeError:
            self.refuse(f"text that is not {encoding}", "Name its encoding in `encoding`, e.g. latin-1.")

    def json(self, text: bytes) -> Any:
        self._within_budget(sum(map(text.count, (b",", b"[", b"{"))))
        return self._parsed(text)

    def lines(self, text: bytes) -> Iterator[Any]:
        """A line that is no JSON is given as it is: it is rejected, and the others go on."""
        for line in io.BytesIO(text):
            if not (line := line.strip()):
                continue
            self._within_budget(sum(map(line.count, (b",", b"[", b"{"))))
            try:
                yield exact(line)
            except json.JSONDecodeError:
                yield line.decode()

    def rows(self, text: bytes) -> Iterator[Any]:
        """Every value is text, as it came. A row of more or fewer cells than the first is given as a list, and is
        rejected."""
        csv.field_size_limit(LONGEST_FIELD)
        body = text.lstrip(b"\r\n")
        heading = body[: body.find(b"\n")] if b"\n" in body else body
        separator = max(_SEPARATORS, key=lambda each: heading.count(each.encode()))
        cells = 0

        def lines() -> Iterator[str]:
            nonlocal cells
            for line in io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline=""):
                cells += 1 + line.count(separator)
                if cells > MOST_CELLS:
                    self.refuse(f"CSV with more than {MOST_CELLS:,} cells in a row")
                yield line

        reader = csv.reader(lines(), delimiter=separator, strict=True)
        try:
            names = _unique([name.strip() for name in next(reader, [])])
            for row in reader:
                cells = 0
                if row:
                    yield dict(zip(names, row, strict=True)) if len(row) == len(names) else row
        except csv.Error as error:
            self.refuse(f"CSV that cannot be read near line {reader.line_num} ({error})")

    def xml(self, text: bytes) -> Any:
        """An element with nothing but text is that text; of others each name has what is in it, attributes with an
        ``@``, text beside them as ``#text``. What occurs more than once is a list."""
        self._within_budget(text.count(b"<") + text.count(b"="))
        root: dict[str, Any] = {}
        nodes, texts = [root], [[""]]

        def start(name: str, attributes: dict[str, str]) -> None:
            if len(nodes) > DEEPEST:
                self.refuse(f"XML nested deeper than {DEEPEST} levels")
            nodes.append({f"@{_local(each)}": value for each, value in attributes.items()})
            texts.append([])

        def end(name: str) -> None:
            node, told = nodes.pop(), "".join(texts.pop())
            beside = {"#text": told.strip()} if told.strip() else {}
            value: Any = node | beside if node else told
            above, name = nodes[-1], _local(name)
            if name not in above:
                above[name] = value
            elif type(above[name]) is _Several:
                above[name].append(value)
            else:
                above[name] = _Several([above[name], value])

        def declared(_prefix: str | None, namespace: str | None) -> None:
            if len(namespace or "") > LONGEST_NAMESPACE:
                self.refuse(f"XML with a namespace of more than {LONGEST_NAMESPACE} characters")

        def refuse(*_declared: Any) -> NoReturn:
            self.refuse("XML that declares a document type, which may be made to grow without end")

        parser = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = start, end
        parser.CharacterDataHandler = lambda told: texts[-1].append(told)
        parser.StartNamespaceDeclHandler = declared
        parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            self.refuse(f"XML that cannot be read ({error})")
        return _plain(root)

    def records(self, whole: Any, path: RecordPath, *, first: bool) -> list[Any]:
        found = path.find(whole)
        if not path.text and not isinstance(whole, list):
            self.refuse("a document that is no list", f"Name in `data_path` where the records are{self._lists(whole)}.")
        if len(found) == 1 and (isinstance(found[0], list) or found[0] is None):
            return found[0] or []
        if not found and first and not path.optional and not self._is_empty_element(whole, path):
            self.refuse(
                f"nothing at `{path.text}`",
                f"Correct `data_path`{self._lists(whole)}; `{path.text}?` if there may be nothing.",
            )
        if self._integration.rule.response_format is DataFormat.XML and [str(each).strip() for each in found] == [""]:
            return []
        if found and not isinstance(found[0], (dict, list)):
            self.refuse(f"what is no list at `{path.text}`", f"Correct `data_path`{self._lists(whole)}.")
        return found

    def _is_empty_element(self, whole: Any, path: RecordPath) -> bool:
        """A list without items is nothing but the element around it, in XML."""
        above = RecordPath(path.text, path.steps[:-1])
        return self._integration.rule.response_format is DataFormat.XML and bool(above.find(whole))

    def _parsed(self, text: bytes) -> Any:
        try:
            return exact(text)
        except json.JSONDecodeError:
            if strange := _NOT_A_NUMBER.search(text[:1_000_000]):
                self.refuse(f"{strange[1].decode()}, which is no JSON and no number")
            what = "an empty body" if not text.strip() else "cut or damaged JSON"
            if text[:1] not in (b"{", b"[", b""):
                what = "something that is not JSON"
            self.refuse(f"{what} ({len(text):,} bytes)", "Is `response_format` right?")

    def _within_budget(self, values: int) -> None:
        if values > MOST_VALUES:
            self.refuse(f"more than {MOST_VALUES:,} values", "Ask for fewer records a page.")

    def _lists(self, whole: Any) -> str:
        """Where lists of objects lie; only for whom the answer may be shown."""
        if not self._response.shown or not isinstance(whole, dict):
            return ""
        near = [(name, value) for name, value in whole.items() if isinstance(value, (list, dict))][:50]
        lists = [f"{name} ({len(value):,})" for name, value in near if isinstance(value, list)]
        for name, value in near:
            if isinstance(value, dict):
                lists += [f"{name}.{below} ({len(v):,})" for below, v in [*value.items()][:50] if isinstance(v, list)]
        return f"; there are lists at {', '.join(lists[:5])}" if lists else ""

    def refuse(self, what: str, remedy: str | None = None) -> NoReturn:
        raise ProviderMisbehaved(
            f"the endpoint answered {self._response.status} with {what}.",
            integration_id=self._integration.integration_id,
            remedy=remedy,
            status=self._response.status,
        )


class _Several(list[Any]):
    """Elements of one name, as opposed to a list that came so."""


def exact(text: bytes) -> Any:
    """JSON in which each number keeps all its digits: a fraction of more than a double holds is the text of them.

    Raises ``json.JSONDecodeError``.
    """
    if not _MANY_DIGITS.search(text.translate(_DIGITS)):
        return exact_json.loads(text)
    exact_json.loads(text)  # refuses what is no JSON, which Python's own parser is less strict about
    try:
        return json.loads(text.decode(), parse_float=_fraction, parse_int=exact_json.whole)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def _fraction(written: str) -> float | str:
    number = float(written)
    if len(written) > exact_json.MOST_DIGITS:
        return written
    return number if Decimal(repr(number)) == Decimal(written) else written


def _unique(names: list[str]) -> list[str]:
    """A column whose name another has before it is ``name_2``, …"""
    taken, latest = set(names), dict.fromkeys(names, 0)
    unique: list[str] = []
    for name in names:
        number, wanted = latest[name] + 1, name
        while number > 1 and (wanted := f"{name}_{number}") in taken:
            number += 1
        latest[name] = number
        taken.add(wanted)
        unique.append(wanted)
    return unique


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _plain(value) for name, value in node.items()}
    return [_plain(each) for each in node] if isinstance(node, list) else node
