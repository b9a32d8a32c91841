"""Waits on this machine for the browser that comes back from a sign-in page with its answer (RFC 8252 §7.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from threading import Thread
from urllib.parse import parse_qsl, urlsplit

from churnguard_pipelines.errors import InvalidConfiguration

PATH = "/callback"
MOST_PARAMETERS = 20
SECONDS_OF_A_REQUEST = 10.0
SEEN = b"You can close this page and go back to the terminal.\n"


class Callback:
    """``uri``: where the browser has to come back to, exactly as it is to be registered at the provider."""

    def __init__(self, port: int) -> None:
        self.uri = f"http://localhost:{port}{PATH}"
        self._answers: SimpleQueue[Mapping[str, str]] = SimpleQueue()

    def answer(self, seconds: float) -> Mapping[str, str] | None:
        """The parameters that the first browser came back with; None if none came in time."""
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            return None

    def came(self, query: str) -> bool:
        """Whether it is an answer at all."""
        try:
            found = dict(parse_qsl(query, max_num_fields=MOST_PARAMETERS))
        except ValueError:
            return False
        if not found:
            return False
        self._answers.put(found)
        return True


@contextmanager
def waiting_for_browser(port: int) -> Iterator[Callback]:
    """Listens while it is open, to this machine only. Raises ``InvalidConfiguration`` if the port is taken."""
    callback = Callback(port)

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS_OF_A_REQUEST

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            # Another name of this machine is a page's that had its own name point here.
            ours = self.headers.get("host") in (f"localhost:{port}", f"127.0.0.1:{port}")
            found = ours and asked.path == PATH and callback.came(asked.query)
            body = SEEN if found else b"Nothing is here.\n"
            self.send_response(200 if found else 404)
            for name, value in (("Content-Type", "text/plain"), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """The code is in the path."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True  # though the last sign-in was just now; where somebody listens it is refused

    try:
        server = Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise InvalidConfiguration(
            f"nothing can listen at port {port} of this machine ({error.strerror}).",
            remedy="Give another one with --port, and register its redirect URI at the provider too.",
        ) from None
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield callback
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
