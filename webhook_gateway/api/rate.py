"""How often one key may call the API."""

import math
import threading
import time
from typing import Annotated

from fastapi import Depends, HTTPException

from churnguard_pipelines.errors import ChurnGuardError
from churnguard_pipelines.store.postgres.database import Store
from webhook_gateway.api.access import reader
from webhook_gateway.dashboard.principal import Principal
from webhook_gateway.shared_rates import EXCHANGE_EVERY, SharedRate, exchange

CALLS_PER_MINUTE = 600


class KeyRate:
    """A dependency of every call; 429 with Retry-After beyond the rate, which a quiet key saves up for a minute. Of all
    replicas together."""

    def __init__(self, store: Store) -> None:
        self._limit = SharedRate(CALLS_PER_MINUTE)
        self._exchange = exchange(store, "key")
        self._exchanged = float("-inf")
        self._lock = threading.Lock()  # calls come in threads

    def __call__(self, principal: Annotated[Principal, Depends(reader)]) -> None:
        with self._lock:
            wait = self._limit.wait(principal.id, time.monotonic())
            due = time.monotonic() - self._exchanged >= EXCHANGE_EVERY
            taken = self._limit.take_out() if due else {}
            self._exchanged = time.monotonic() if due else self._exchanged
        if taken:
            self._share(taken)
        if wait:
            raise HTTPException(
                429, f"More than {CALLS_PER_MINUTE} calls a minute.", {"Retry-After": str(math.ceil(wait))}
            )

    def _share(self, taken: dict[str, float]) -> None:
        try:
            full_in = self._exchange(taken)
        except ChurnGuardError as error:
            with self._lock:
                self._limit.put_back(taken, error, time.monotonic())
        else:
            with self._lock:
                self._limit.learn(full_in, time.monotonic())
