"""Where a simulated provider's webhooks go: whatever comes is kept, and some of it is refused."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

Delivery = tuple[dict[str, str], bytes]


class WebhookReceiver:
    """``refusing``: so many of the next deliveries."""

    def __init__(self, path: str) -> None:
        self.deliveries: Queue[Delivery] = Queue()
        self.refusing = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.deliveries.put(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.refusing -= 1
                self.send_response(500 if receiver.refusing >= 0 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}{path}"
