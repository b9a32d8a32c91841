"""How often one key may call the API."""

import math
import time
from typing import Annotated

from fastapi import Depends, HTTPException

from webhook_gateway.api.access import reader
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.limits import RateLimit

CALLS_PER_MINUTE = 600


class KeyRate:
    """A dependency of every call; 429 with Retry-After beyond the rate, which a quiet key saves up for a minute."""

    def __init__(self) -> None:
        self._limit = RateLimit(CALLS_PER_MINUTE)

    def __call__(self, principal: Annotated[Principal, Depends(reader)]) -> None:
        if wait := self._limit.wait(principal.id, time.monotonic()):
            raise HTTPException(
                429, f"More than {CALLS_PER_MINUTE} calls a minute.", {"Retry-After": str(math.ceil(wait))}
            )
