"""How one more simulated provider is mounted in the sandbox's server: by the paths that it answers.

A provider is a package beside `stripe/` with one class that has this shape, added to `server.PROVIDERS`. The server
reads the request, lets the faults that concern every provider befall it (slow, latency, hang, cut), and sends the
answer; all the rest is the provider's: who is asking, quota, refusals in its own words, and the other kinds of fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol
from urllib.parse import parse_qsl

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.faults import Fault


@dataclass(frozen=True)
class Request:
    """`path` is decoded, `target` is what stood in the request line; names of headers are in lower case."""

    method: str
    path: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    simultaneous: int = 1
    """How many requests of its account were under way when it came, with itself."""

    @property
    def parameters(self) -> dict[str, str]:
        """Of the query string; the last of a name counts."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    @property
    def bearer(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class Provider(Protocol):
    """Made once per application, over its world."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    def answer(self, request: Request, ill: Mapping[str, Fault]) -> Answer:
        """Called in the server's loop: what takes long has to happen elsewhere. `ill`: the faults, by kind."""
        ...

    def account(self, request: Request) -> str | None:
        """Whose request it is, as a fault's `key` names it."""
        ...

    def clear_faults(self) -> None:
        """What faults left behind (revoked tokens and the like) is over."""
        ...

    def close(self) -> None: ...
