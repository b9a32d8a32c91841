"""Objects with more fields than fit a query: they are read in parts, which make whole records."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from tests.connectors.salesforce.conftest import Reader
from tests.connectors.salesforce.org import STRING, Org
from tests.engine.loopback import Answer, Asked

FIELDS = [f"A_field_with_a_name_that_is_rather_long_{number:03d}__c" for number in range(500)]


@pytest.fixture
def wide(org: Org, reader: Reader) -> Org:
    org.has("Account", {"Name": STRING} | dict.fromkeys(FIELDS, STRING))
    org.page = 3
    return org


def values(number: int, generation: int = 0) -> dict[str, Any]:
    return {name: f"{number} {place} {generation}" for place, name in enumerate(FIELDS)}


def whole(reader: Reader) -> dict[str, dict[str, str]]:
    return {key: {name: row["extra"].get(name) for name in FIELDS} for key, row in reader.alive().items()}


def test_no_request_is_longer_than_salesforce_takes(wide: Org, reader: Reader) -> None:
    """16,384 bytes of URL and headers."""
    keys = {wide.add("Account", Name=str(number), **values(number)): number for number in range(8)}
    assert reader.sync().status == "succeeded"
    assert whole(reader) == {key: values(number) for key, number in keys.items()}
    assert max(len(str(asked.query)) for asked in wide.api.asked) > 10_000
    assert max(map(request_size, wide.api.asked)) < 16_384


def request_size(asked: Asked) -> int:
    return (
        len(asked.path)
        + len(urlencode(asked.query, doseq=True))
        + sum(len(f"{k}: {v}") for k, v in asked.headers.items())
    )


def test_a_record_that_changes_between_its_parts_is_never_made_of_two_states(wide: Org, reader: Reader) -> None:
    keys = [wide.add("Account", Name=str(number), **values(number)) for number in range(3)]
    seen: list[str] = []

    def changes_between(asked: Asked) -> Answer | None:
        text = asked.query.get("q", [""])[0]
        if "FROM Account" in text:
            seen.append(text)
            if len(seen) == 2:
                wide.change("Account", keys[1], **values(1, generation=1))
        return None

    wide.overrides = [changes_between]
    assert reader.sync().status == "succeeded"
    assert whole(reader) == {keys[0]: values(0), keys[1]: values(1, generation=1), keys[2]: values(2)}


def test_a_record_that_never_rests_is_left_to_the_next_sync(wide: Org, reader: Reader) -> None:
    reader.configure("Account", concurrent_requests=1)  # two parts asked for in the same moment may show one state
    keys = [wide.add("Account", Name=str(number), **values(number)) for number in range(2)]
    generations = iter(range(1, 1000))

    def always_changes(asked: Asked) -> Answer | None:
        if "FROM Account" in asked.query.get("q", [""])[0]:
            wide.passes(seconds=1)
            wide.change("Account", keys[1], **values(1, generation=next(generations)))
        return None

    wide.overrides = [always_changes]
    assert reader.sync().status == "succeeded"
    assert whole(reader) == {keys[0]: values(0)}
    wide.overrides = []
    last = wide.records["Account"][keys[1]][FIELDS[0]]
    reader.later()
    assert whole(reader)[keys[1]][FIELDS[0]] == last
    assert len({value.rpartition(" ")[2] for value in whole(reader)[keys[1]].values()}) == 1
