"""XML of a SOAP envelope as plain elements, read by expat with everything refused that can hurt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn
from xml.parsers import expat

from webhook_gateway.schemes.bodies import DEPTH
from webhook_gateway.schemes.sdk import MalformedBody

MOST_ELEMENTS = 50_000
"""A hundred notifications, which is what Salesforce sends at most, of 500 fields each."""

LONGEST_NAMESPACE = 256
"""Characters of a namespace. expat spells it out anew with each name in it: half a megabyte of one, before a hundred
thousand names, were a minute's work."""

_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance "


@dataclass(slots=True)
class Element:
    """``name``: without its namespace; ``type``: its ``xsi:type`` without the prefix."""

    name: str
    type: str = ""
    nil: bool = False
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> Iterator[Element]:
        return (child for child in self.children if child.name == name)

    def first(self, name: str) -> Element:
        """An empty one where there is none."""
        return next(self.all(name), Element(name))


def read(body: bytes) -> Element:
    """The outermost element. Raises ``MalformedBody``: also for every document type declaration, and so for entities,
    which can only be declared there (https://owasp.org/www-community/vulnerabilities/XML_External_Entity_Processing)."""
    open_elements = [Element("")]
    texts: list[list[str]] = [[]]
    elements = count(1)

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > DEPTH:
            raise MalformedBody(f"the body is nested deeper than {DEPTH} levels.")
        if next(elements) > MOST_ELEMENTS:
            raise MalformedBody(f"the body has more than {MOST_ELEMENTS} elements.")
        kind = attributes.get(f"{_INSTANCE}type", "")
        nil = attributes.get(f"{_INSTANCE}nil", "") in ("true", "1")
        element = Element(name.rpartition(" ")[2], kind.rpartition(":")[2], nil)
        open_elements[-1].children.append(element)
        open_elements.append(element)
        texts.append([])

    def end(_name: str) -> None:
        open_elements.pop().text = "".join(texts.pop())

    def declared(_prefix: str | None, namespace: str | None) -> None:
        if len(namespace or "") > LONGEST_NAMESPACE:
            raise MalformedBody(f"the body names a namespace of more than {LONGEST_NAMESPACE} characters.")

    def refuse(*_declared: Any) -> NoReturn:
        raise MalformedBody("the body declares a document type.")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: texts[-1].append(text)
    parser.StartNamespaceDeclHandler = declared
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    if b"\x00" in body:  # no XML has it, and expat would guess UTF-16 from it
        raise MalformedBody("the body is not UTF-8.")
    try:
        # As text: from bytes, expat would take the encoding that the document itself names.
        parser.Parse(body.decode("utf-8-sig"), True)
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8.") from None
    except expat.ExpatError as error:
        raise MalformedBody(f"the body is not XML: {expat.errors.messages[error.code]}.") from None
    return open_elements[0].children[0]
