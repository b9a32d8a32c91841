"""The CRM of the account `bulk`: a contact per customer, made up on demand; nothing changes there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.business.crm_history import CITIES, FIRST_NAMES, LAST_NAMES, TITLES


class MadeUp(dict[int, Record]):
    """Contacts 1 to `size`, spread evenly over [opened, anchor)."""

    def __init__(self, business: Business) -> None:
        super().__init__()
        self._size = len(business.customers)
        self._opened, self._span = business.opened * 1000, (business.anchor - business.opened) * 1000

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self._size + 1))

    def __getitem__(self, id: int) -> Record:
        at = self._opened + (id - 1) * self._span // self._size
        city, country = CITIES[id % 6]
        values = {
            "first_name": FIRST_NAMES[id % 12], "last_name": LAST_NAMES[id % 10], "title": TITLES[id % 6],
            "email": f"contact{id}@customer-{id // 4}.example.com", "phone": f"+1 555 {id % 10_000:04d}",
            "street": f"{id % 200} Main Street\nFloor {id % 9}", "city": city, "country": country,
            "opted_out": id % 10 == 0, "nps": id % 11 if id % 3 == 0 else None,
        }  # fmt: skip
        return Record("contact", id, at, at, values)

    def get(self, id: int, default: Any = None) -> Any:
        return self[id] if 1 <= id <= self._size else default

    def values(self) -> Any:
        return self.since(1)

    def since(self, id: int) -> Iterator[Record]:
        """From this id on, without a look at those before."""
        return map(self.__getitem__, range(max(id, 1), self._size + 1))


def bulk_crm(business: Business) -> Crm:
    crm = Crm(business)
    crm.tables["contact"] = MadeUp(business)
    return crm
