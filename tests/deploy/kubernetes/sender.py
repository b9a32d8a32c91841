"""A provider that delivers webhooks at a steady rate, on connections that it keeps, in a process of its own: what else
the tests do on this machine does not hold it up.

Standard input: a line whenever it changes which addresses a Service would lead to; its end is the sender's. Standard
output, then: what became of the deliveries, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import defaultdict
from itertools import count

from tests.webhook_gateway.intake.conftest import stripe_event, stripe_headers

PATIENCE_SECONDS = 60
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Sender:
    """``rate``: deliveries a second, whether the former ones are answered or not."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._gateways: list[str] = []
        self._idle: dict[str, list[Connection]] = defaultdict(list)
        self._accepted: list[str] = []
        self._refused = 0

    async def run(self) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        lines = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        self._gateways = (await lines.readline()).decode().split()
        following = asyncio.create_task(self._follow(lines))
        under_way: set[asyncio.Task[None]] = set()
        began = loop.time()
        for number in count():
            await asyncio.sleep(began + number / self._rate - loop.time())
            if following.done():
                break
            task = asyncio.create_task(self._deliver(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        rate = number / (loop.time() - began)
        await asyncio.gather(*under_way)
        return {"accepted": self._accepted, "refused": self._refused, "rate": rate}

    async def _follow(self, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            self._gateways = line.decode().split()

    async def _deliver(self, number: int) -> None:
        id = f"evt_{number}"
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                accepted = await self._post(self._gateways[number % len(self._gateways)], id)
        except (OSError, EOFError, ZeroDivisionError):  # no connection, none any more, or no gateway
            accepted = False
        if accepted:
            self._accepted.append(id)
        else:
            self._refused += 1

    async def _post(self, address: str, id: str) -> bool:
        body = stripe_event(id)
        fields = stripe_headers(body) | {"Host": address, "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        reader, writer = await self._connected(address)
        try:
            writer.write(f"POST /webhooks/stripe/acme HTTP/1.1\r\n{head}\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(answer)
            assert length is not None
            await reader.readexactly(int(length[1]))
        except BaseException:
            writer.close()
            raise
        self._idle[address].append((reader, writer))
        return answer.split()[1] == b"200"

    async def _connected(self, address: str) -> Connection:
        while self._idle[address]:
            reader, writer = self._idle[address].pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(address, 8080)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(Sender(float(sys.argv[1])).run())))
