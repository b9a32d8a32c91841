"""How many calls of one organization may be under way at once."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, HTTPException

from webhook_gateway.api.access import reader
from webhook_gateway.dashboard.principal import Principal

MOST_AT_ONCE = 8


class ConcurrencyLimit:
    """A dependency of every call; 429 beyond. Calls share threads and connections to the database; whatever makes those
    of one organization slow, the others' find some free. Operators may all that there is."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()

    async def __call__(self, principal: Annotated[Principal, Depends(reader)]) -> AsyncIterator[None]:
        name = principal.organization_id
        if name is None:
            yield
            return
        if self._under_way[name] >= MOST_AT_ONCE:
            raise HTTPException(429, f"{MOST_AT_ONCE} calls of the organization are under way.", {"Retry-After": "1"})
        self._under_way[name] += 1
        try:
            yield
        finally:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]
