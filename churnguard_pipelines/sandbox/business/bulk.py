"""An account with any number of customers and nothing else. Customers are made up on demand and need no memory."""

from __future__ import annotations

from collections.abc import Iterator

from churnguard_pipelines.sandbox.business.company import Business, Profile, Provider
from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.business.record_list import RecordList

BULK = Profile("bulk", "acct_1SandboxBulk0001", "Bulk", "US", 0, {"usd": 1.0}, "usd")


class BulkRecordList(RecordList[Customer]):
    """Customer number i of n, spread evenly over [opened, anchor)."""

    def __init__(self, size: int, opened: int, anchor: int) -> None:
        super().__init__()
        self._size, self._opened, self._span = size, opened, anchor - opened

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Customer]:
        return map(self.record, range(self._size))

    def record(self, place: int) -> Customer:
        created = self._opened + place * self._span // self._size
        email = f"billing@customer-{place}.example.com"
        id = f"cus_B{place:013d}"
        return Customer(id, created, f"Customer {place}", email, "US", "usd", number=place + 1, place=place)

    def get(self, id: str) -> Customer | None:
        number = id.removeprefix("cus_B")
        if not number.isdecimal() or len(number) != 13 or int(number) >= self._size:
            return None
        return self.record(int(number))

    def places(self, since: int | None, before: int | None) -> tuple[int, int]:
        return self._first(since) if since is not None else 0, self._size if before is None else self._first(before)

    def _first(self, at: int) -> int:
        """The smallest place whose customer was created at `at` or later."""
        return min(self._size, max(0, -((self._opened - at) * self._size // self._span)))


def bulk_business(size: int, provider: Provider, seed: int, anchor: int) -> Business:
    business = Business(BULK, provider, seed, anchor, scale=0)
    business.customers = BulkRecordList(size, business.opened, anchor)
    business.now = anchor
    return business
