"""The yardstick of the gateway: a bare ASGI application that verifies the signature and stores nothing."""

from __future__ import annotations

import hashlib
import hmac
import sys
from typing import Any

import uvicorn

from tests.bench.load import SECRET


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    moment, _, signature = dict(scope["headers"])[b"stripe-signature"].partition(b",v1=")
    digest = hmac.digest(SECRET.encode(), moment[2:] + b"." + body, hashlib.sha256).hex().encode()
    status = 200 if hmac.compare_digest(digest, signature) else 401
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(application, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, lifespan="off",
                log_level="warning")  # fmt: skip
