"""Fields of sObjects: how each is described, and how its value is read from a record of the CRM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

from churnguard_pipelines.sandbox.business.crm import Association, Crm, Record
from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.salesforce import ids

Source = Record | Association
Reader = Callable[[Crm, Any], Any]  # of a Record, or for OpportunityContactRole of an Association
SOAP = {"boolean": "xsd:boolean", "int": "xsd:int", "double": "xsd:double", "currency": "xsd:double",
        "percent": "xsd:double", "date": "xsd:date", "datetime": "xsd:dateTime", "id": "tns:ID", "reference": "tns:ID",
        "address": "urn:address", "base64": "xsd:base64Binary"}  # fmt: skip
LENGTHS = {"string": 255, "textarea": 32_000, "email": 80, "phone": 40, "url": 255, "picklist": 255,
           "multipicklist": 4099, "id": 18, "reference": 18}  # fmt: skip
OF_NEUTRAL = {"text": "string", "integer": "int", "number": "double", "money": "currency"}
NOT_FILTERABLE = ("textarea", "address", "base64")


@dataclass(frozen=True)
class SField:
    """A field of an sObject. `read` gives strings, numbers, booleans, None, datetimes in milliseconds, or a dict."""

    name: str
    type: str
    read: Reader
    label: str = ""
    values: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    custom: bool = False
    calculated: bool = False
    updateable: bool = True
    nillable: bool = True
    filterable: bool | None = None
    source: str = ""  # the CRM's name of what it shows; change events say that it changed when that did

    def describe(self) -> dict[str, Any]:
        filterable = self.can_filter
        writable = self.updateable and not self.calculated
        double = self.type in ("double", "currency", "percent")
        return {
            "aggregatable": filterable,
            "autoNumber": False,
            "byteLength": 3 * LENGTHS.get(self.type, 0),
            "calculated": self.calculated,
            "calculatedFormula": "Score__c / 100" if self.calculated else None,
            "compoundFieldName": None,
            "createable": writable,
            "custom": self.custom,
            "defaultedOnCreate": not self.nillable,
            "deprecatedAndHidden": False,
            "digits": 0,
            "filterable": filterable,
            "groupable": filterable and not double,
            "idLookup": self.type == "id",
            "label": self.label or self.name,
            "length": LENGTHS.get(self.type, 0),
            "name": self.name,
            "nameField": self.name == "Name",
            "nillable": self.nillable,
            "picklistValues": [
                {"active": True, "defaultValue": False, "label": value, "validFor": None, "value": value}
                for value in self.values
            ],
            "precision": 18 if double else 0,
            "referenceTo": list(self.to),
            "relationshipName": self.name.removesuffix("Id") if self.to else None,
            "scale": 2 if double else 0,
            "soapType": SOAP.get(self.type, "xsd:string"),
            "sortable": filterable,
            "type": self.type,
            "unique": self.type == "id",
            "updateable": writable,
        }

    @property
    def can_filter(self) -> bool:
        """Whether a query may ask for it in WHERE and ORDER BY."""
        return self.type not in NOT_FILTERABLE if self.filterable is None else self.filterable


def of(name: str) -> Reader:
    """The value that the CRM has under this name."""
    return lambda crm, record: record.values.get(name)


def reference(name: str, prefix: str) -> Reader:
    def read(crm: Crm, record: Record) -> str | None:
        number = record.values.get(name)
        return None if number is None else ids.make(prefix, number)

    return read


def custom_name(name: str) -> str:
    return "_".join(part.capitalize() for part in name.split("_")) + "__c"


def custom(field: Field, prefixes: dict[str, str], names: dict[str, str]) -> SField:
    """A field that the account defined itself."""
    name = custom_name(field.name)
    if field.type == "reference":
        return SField(name, "reference", reference(field.name, prefixes[field.to]), field.title, to=(names[field.to],),
                      custom=True, source=field.name)  # fmt: skip
    type = OF_NEUTRAL.get(field.type, field.type)
    return SField(
        name,
        type,
        of(field.name),
        field.title,
        field.values,
        custom=True,
        calculated=field.calculated,
        source=field.name,
    )


def java_double(value: float) -> str:
    """As Java prints a double: 9.0E7 from ten million on, and below a thousandth."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(float(value))
    sign, digits, exponent = _parts(value)
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{exponent}"


def _parts(value: float) -> tuple[str, str, int]:
    mantissa, _, exponent = f"{abs(value):.17e}".partition("e")
    for precision in range(17):
        short = f"{abs(value):.{precision}e}"
        if float(short) == abs(value):
            mantissa, _, exponent = short.partition("e")
            break
    return "-" if value < 0 else "", mantissa.replace(".", "").rstrip("0") or "0", int(exponent)


def whole_second(at: int) -> int:
    """Salesforce keeps instants to the second."""
    return at // 1000 * 1000


@lru_cache(4096)
def moment(at: int) -> str:
    """`2026-01-31T12:00:00.000+0000`, as REST writes an instant in milliseconds."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _json_double(value: float) -> orjson.Fragment:
    return orjson.Fragment(java_double(value))


JSON: dict[str, Callable[[Any], Any]] = {
    "datetime": moment,
    **dict.fromkeys(("double", "currency", "percent"), _json_double),
}


def as_json(field: SField, value: Any) -> Any:
    convert = JSON.get(field.type)
    return value if convert is None or value is None else convert(value)


@lru_cache(1024)
def _csv_moment(at: int) -> str:
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


CSV: dict[str, Callable[[Any], str]] = {
    "datetime": _csv_moment,
    **dict.fromkeys(("double", "currency", "percent"), java_double),
    "boolean": lambda value: "true" if value else "false",
    "int": str,
}


def csv_writer(fields: Sequence[SField]) -> Callable[[Crm, Source], str]:
    """Writes a record as a line of CSV: every value in quotes, nothing where there is none."""
    columns = [(field.read, CSV.get(field.type)) for field in fields]

    def line(crm: Crm, record: Source) -> str:
        texts = []
        for read, convert in columns:
            value = read(crm, record)
            if value is None:
                texts.append("")
            elif convert is None:
                texts.append(str(value).replace('"', '""'))
            else:
                texts.append(convert(value))
        return '"' + '","'.join(texts) + '"\n'

    return line
