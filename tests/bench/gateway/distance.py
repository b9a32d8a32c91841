"""A network between gateways and PostgreSQL: a proxy on a loopback port, from which every byte arrives later."""

from __future__ import annotations

import asyncio
import sys

import uvloop


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        loop.call_later(seconds, writer.write, data)
    loop.call_later(seconds, writer.close)


async def lead(port: int, socket: str, milliseconds: float) -> None:
    """``milliseconds``: there and back."""

    async def lead_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, sends = await asyncio.open_unix_connection(socket)
        each_way = milliseconds / 2000
        await asyncio.gather(carry(reader, sends, each_way), carry(answers, writer, each_way), return_exceptions=True)

    async with await asyncio.start_server(lead_on, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(lead(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
