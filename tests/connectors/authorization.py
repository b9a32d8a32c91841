"""A provider's authorization server, strict as RFC 6749, 7636 and 9700 want it, and a person with a browser."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from tests.serving import HttpServer, QuietHandler, serving

CLIENT_ID, CLIENT_SECRET = "app-1", "canary-app-secret"


class AuthorizationServer:
    """``agrees``: whether the person does; ``answers``: what the token endpoint says instead of a token;
    ``asked``: the forms it was sent."""

    def __init__(self, url: str, redirect_uri: str) -> None:
        self.url, self.redirect_uri = url, redirect_uri
        self.agrees = True
        self.answers: tuple[int, bytes] | None = None
        self.asked: list[dict[str, str]] = []
        self._codes: dict[str, str] = {}

    def page(self, query: dict[str, str]) -> tuple[int, str]:
        """Status and where the browser is sent."""
        good = query["response_type"] == "code" and query["client_id"] == CLIENT_ID
        if not good or query["redirect_uri"] != self.redirect_uri or query["code_challenge_method"] != "S256":
            return 400, ""
        if not self.agrees:
            return 302, self._back({"error": "access_denied", "error_description": "no", "state": query["state"]})
        code = f"code-{len(self._codes)}"
        self._codes[code] = query["code_challenge"]
        return 302, self._back({"code": code, "state": query["state"]})

    def token(self, form: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(form)
        if self.answers is not None:
            return self.answers
        proof = urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        app = form["client_id"] == CLIENT_ID and form["client_secret"] == CLIENT_SECRET
        if not app or form["redirect_uri"] != self.redirect_uri or self._codes.pop(form["code"], None) != proof:
            return 400, json.dumps({"error": "invalid_grant"}).encode()
        token = {"access_token": "canary-access", "refresh_token": "canary-refresh", "expires_in": 1800}
        return 200, json.dumps(token).encode()

    def _back(self, answer: dict[str, str]) -> str:
        return f"{self.redirect_uri}?{urlencode(answer)}"


def visit(url: str) -> httpx.Response:
    """As a browser does, which follows where it is sent."""
    return httpx.get(url, follow_redirects=True, timeout=10)


@contextmanager
def authorization_server(redirect_uri: str) -> Iterator[AuthorizationServer]:
    class Handler(QuietHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            status, place = server_side.page({name: each[0] for name, each in parse_qs(asked.query).items()})
            self._answer(status, b"", {"Location": place} if place else {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, said = server_side.token({name: each[0] for name, each in parse_qs(body).items()})
            self._answer(status, said, {})

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = HttpServer(Handler)
    server_side = AuthorizationServer(server.url, redirect_uri)
    with serving(server):
        yield server_side
