"""The CRM of the account `bulk`: a contact, a company and a ticket per customer, made up on demand; nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.business.crm_history import CITIES, FIRST_NAMES, LAST_NAMES, TITLES
from churnguard_pipelines.sandbox.business.crm_schema import INDUSTRIES, PRIORITIES, TICKET_STATUSES


def _contact(id: int) -> dict[str, Any]:
    city, country = CITIES[id % 6]
    return {
        "first_name": FIRST_NAMES[id % 12], "last_name": LAST_NAMES[id % 10], "title": TITLES[id % 6],
        "email": f"contact{id}@customer-{id // 4}.example.com", "phone": f"+1 555 {id % 10_000:04d}",
        "street": f"{id % 200} Main Street\nFloor {id % 9}", "city": city, "country": country,
        "opted_out": id % 10 == 0, "nps": id % 11 if id % 3 == 0 else None,
    }  # fmt: skip


def _company(id: int) -> dict[str, Any]:
    city, country = CITIES[id % 6]
    return {
        "name": f"Customer {id}", "domain": f"customer-{id}.example.com", "type": "Customer", "employees": id % 5000,
        "industry": INDUSTRIES[id % len(INDUSTRIES)], "city": city, "country": country,
    }  # fmt: skip


def _ticket(id: int) -> dict[str, Any]:
    return {
        "number": f"{id + 1000:08d}", "status": TICKET_STATUSES[id % len(TICKET_STATUSES)],
        "subject": f"Export {id} fails", "priority": PRIORITIES[id % len(PRIORITIES)], "source": "Web",
    }  # fmt: skip


VALUES: dict[str, Callable[[int], dict[str, Any]]] = {"contact": _contact, "company": _company, "ticket": _ticket}


class MadeUp(dict[int, Record]):
    """Records 1 to `size` of a kind, spread evenly over [opened, anchor)."""

    def __init__(self, business: Business, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._size = len(business.customers)
        self._opened, self._span = business.opened * 1000, (business.anchor - business.opened) * 1000

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._size + 1))

    def __getitem__(self, id: int) -> Record:
        at = self._opened + (id - 1) * self._span // self._size
        return Record(self._kind, id, at, at, VALUES[self._kind](id))

    def get(self, id: int, default: Any = None) -> Any:
        return self[id] if 1 <= id <= self._size else default

    def values(self) -> Any:
        return self.since(1)

    def listed(self) -> Sequence[Record]:
        """In the order of their ids; each is made when it is looked at."""
        return _Listed(self)

    def since(self, id: int) -> Iterator[Record]:
        """From this id on, without a look at those before."""
        return map(self.__getitem__, range(max(id, 1), self._size + 1))


class _Listed(Sequence[Record]):
    def __init__(self, table: MadeUp) -> None:
        self._table, self._ids = table, range(1, len(table) + 1)

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> list[Record]: ...
    def __getitem__(self, place: int | slice) -> Record | list[Record]:
        if isinstance(place, slice):
            return [self._table[id] for id in self._ids[place]]
        return self._table[self._ids[place]]


def bulk_crm(business: Business) -> Crm:
    crm = Crm(business)
    for kind in VALUES:
        crm.tables[kind] = MadeUp(business, kind)
    return crm
