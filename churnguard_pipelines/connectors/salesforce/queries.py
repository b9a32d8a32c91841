"""Objects that an integration declares itself by a query: ``sync_config.queries``, a name and a SELECT of SOQL each.

A query is taken apart and put together again from what was understood: nothing of its text is sent that is not a known
part. https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from churnguard_pipelines.connectors.salesforce.describe import Description
from churnguard_pipelines.connectors.salesforce.objects import OBJECTS
from churnguard_pipelines.errors import InvalidConfiguration, PermissionMissing
from churnguard_pipelines.model import IntegrationConfiguration

LONGEST = 10_000  # characters
MOST_QUERIES = 50

_OBJECT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,254}")
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>'(?:[^'\\]|\\["'\\nrtbf_%])*')
    | (?P<moment>\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d))?)
    | (?P<number>-?\d+(?:\.\d+)?)
    | (?P<name>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*){0,5})(?P<days>:\d{1,4})?
    | (?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE,
)
_NOT_HERE = frozenset(
    ("select", "from", "where", "group", "having", "order", "limit", "offset", "with", "for", "using", "typeof", "all")
)
"""Words that begin something else than a condition."""


@dataclass(frozen=True, slots=True)
class Query:
    """``fields``: as they were written, the key among them; ``object``: of which; ``conditions``: what WHERE says."""

    fields: tuple[str, ...]
    object: str
    conditions: tuple[str, ...]

    def part_of(self, about: Description) -> Description:
        """Raises ``PermissionMissing`` naming a field that the object does not have for the user."""
        try:
            return about.part(self.fields, self.conditions)
        except KeyError as error:
            raise PermissionMissing(
                f"{about.name} has no field {error.args[0]} that the integration's user may see.",
                remedy="Correct the query, or make the field visible; addresses are selected by their parts.",
            ) from None


def queries_of(integration: IntegrationConfiguration) -> dict[str, Query]:
    """By the name that the integration gives. Raises ``InvalidConfiguration`` saying which is none, and why."""
    given, declared = integration.sync_config.queries, {item.name for item in OBJECTS}
    refused = partial(InvalidConfiguration, integration_id=integration.integration_id)
    if len(given) > MOST_QUERIES:
        raise refused(f"sync_config.queries has more than {MOST_QUERIES}.")
    found: dict[str, Query] = {}
    for name, text in given.items():
        where = f"sync_config.queries.{name[:40]!a}"
        if not _OBJECT.fullmatch(name) or "__" in name or name in declared:
            raise refused(
                f"{where} cannot be an object's name.",
                remedy="Take letters, digits and underscores, 40 at most, and no name of a declared object.",
            )
        try:
            found[name] = _query(text)
        except ValueError as error:
            raise refused(
                f"{where} is no query that can be read: {error}.",
                remedy="Write it as SELECT Id, Name, SystemModstamp FROM Opportunity WHERE Amount > 1000.",
            ) from None
    return found


def _query(text: str) -> Query:
    """Raises ``ValueError``."""
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    tokens = list(_tokens(text))
    words = [token.lower() for token in tokens]
    if words[:1] != ["select"] or "from" not in words:
        raise ValueError("it must be SELECT fields FROM an object, and may have a WHERE")
    place = words.index("from")
    fields = tuple(dict.fromkeys(tokens[1:place:2]))
    if "Id" not in fields:
        raise ValueError("it must select Id, which is the key")
    if set(tokens[2:place:2]) - {","} or place % 2 or not all(map(_NAME.fullmatch, fields)):
        raise ValueError("it may select fields of the object itself, with commas in between, and nothing else")
    object, rest = tokens[place + 1 : place + 2], tokens[place + 2 :]
    if not object or not _NAME.fullmatch(object[0]) or (rest and (words[place + 2] != "where" or len(rest) == 1)):
        raise ValueError("after FROM there must be an object, and then nothing or a WHERE")
    _check_condition(rest[1:])
    return Query(fields, object[0], (f"({' '.join(rest[1:])})",) if rest else ())


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            if not text[place:].strip():
                return
            raise ValueError(f"{text[place:].strip()[:20]!a} is nothing that can be understood")
        yield token[0].strip()
        place = token.end()


def _check_condition(tokens: Sequence[str]) -> None:
    """What the fields are compared with is checked by Salesforce, which knows their types."""
    depth = 0
    for token in tokens:
        if token.lower() in _NOT_HERE:
            raise ValueError(f"its WHERE has {token.upper()}: it must be a condition and nothing else")
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            break
    if depth:
        raise ValueError("the parentheses of its WHERE do not match")
