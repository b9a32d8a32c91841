"""Bodies on their way in: nobody knows yet who sends them, so there is only so much room for all of them."""

from __future__ import annotations

import asyncio

from webhook_gateway.intake.answers import Receive, Refused, unavailable
from webhook_gateway.limits import Shares

SECONDS = 10.0
MOST_BYTES = 16 * 1024 * 1024


class _Arrival:
    """``in_the_way``: whether its room was needed."""

    __slots__ = ("deadline", "in_the_way")

    def __init__(self, deadline: asyncio.Timeout) -> None:
        self.deadline = deadline
        self.in_the_way = False

    def give_way(self) -> None:
        self.in_the_way = True
        self.deadline.reschedule(0)


class BodyReader:
    """``most_of_one``: bytes of one body."""

    def __init__(self, most_of_one: int) -> None:
        self._most = most_of_one
        self._held: Shares[_Arrival] = Shares(max(MOST_BYTES, 4 * most_of_one))

    async def read(self, receive: Receive, network: str) -> bytes:
        """The body. What is read counts, whatever was announced. Raises ``Refused``."""
        body = bytearray()
        arrival: _Arrival | None = None
        try:
            async with asyncio.timeout(SECONDS) as deadline:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "The connection was closed before the end.", "", close=True)
                    chunk: bytes = message.get("body", b"")
                    if len(body) + len(chunk) > self._most:
                        raise self.too_large()
                    if not message.get("more_body", False):
                        return bytes(body + chunk) if body else chunk
                    body += chunk
                    arrival = arrival or _Arrival(deadline)
                    for other in self._held.add(network, arrival, len(chunk)):
                        other.give_way()
        except TimeoutError:
            if arrival is not None and arrival.in_the_way:
                raise unavailable("There is no room for slow deliveries now.", close=True) from None
            raise Refused(408, f"The body did not arrive within {SECONDS:.0f} s.", "", close=True) from None
        finally:
            if arrival is not None:
                self._held.remove(network, arrival)

    def too_large(self) -> Refused:
        return Refused(413, f"The body is larger than {self._most} bytes.", "too_large", close=True)
