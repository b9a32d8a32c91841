"""Why a connection ended, and whether it is tried again: close codes (RFC 6455 §7.4, and 4000 to 4999 of applications,
which mostly are HTTP's statuses and 4000) and the statuses that refuse a handshake."""

from __future__ import annotations

from enum import StrEnum

SOON, LATER = None, 5.0
"""Seconds to wait at least where the server said that it is busy."""


class Kind(StrEnum):
    """``CUT``: whatever happens to connections; ``BUSY``: the server wants to be left alone for a while; ``REFUSED``:
    the credentials, or a policy; ``FORBIDDEN``: they may not read this; ``TOO_LARGE``: a message beyond our limit;
    ``WRONG``: the configuration, trying again does not help."""

    CUT = "cut"
    BUSY = "busy"
    REFUSED = "refused"
    FORBIDDEN = "forbidden"
    TOO_LARGE = "too large"
    WRONG = "wrong"


class Ended(Exception):
    """``what``: in our words, to go on “the server …”; ``said``: in the server's; ``wait``: seconds it asked for."""

    def __init__(self, kind: Kind, what: str, *, said: str = "", wait: float | None = None) -> None:
        super().__init__(what)
        self.kind = kind
        self.what = what
        self.said = said
        self.wait = wait


_CODES = {
    1008: Kind.REFUSED,
    1009: Kind.WRONG,  # to the server: one of ours was too large for it
    1010: Kind.WRONG,
    1012: Kind.BUSY,
    1013: Kind.BUSY,
    1014: Kind.BUSY,
    3000: Kind.REFUSED,
    3003: Kind.FORBIDDEN,
    3008: Kind.CUT,
    4401: Kind.REFUSED,
    4403: Kind.FORBIDDEN,
    4429: Kind.BUSY,
    4503: Kind.BUSY,
}
_MEANING = {
    1000: "ended it",
    1001: "goes away",
    1002: "found our side breaking the protocol",
    1003: "does not take what we sent",
    1006: "cut the connection",
    1007: "could not read what we sent",
    1008: "refused us by its policy",
    1009: "does not take messages as large as one of ours",
    1010: "wants an extension of the protocol that we do not have",
    1011: "had an error of its own",
    1012: "starts anew",
    1013: "is too busy",
    1014: "has no server behind it",
}
_STATUSES = {401: Kind.REFUSED, 403: Kind.FORBIDDEN, 407: Kind.REFUSED, 429: Kind.BUSY, 503: Kind.BUSY}


def closed(code: int, reason: str) -> Ended:
    kind = _CODES.get(code, Kind.CUT)
    what = f"{_MEANING.get(code, 'closed the connection')} (close code {code})"
    return Ended(kind, what, said=reason, wait=LATER if kind is Kind.BUSY else SOON)


def refused(status: int, retry_after: float | None) -> Ended:
    """A handshake, by an HTTP status."""
    if 300 <= status < 400:
        return Ended(Kind.WRONG, f"redirects to another address ({status}), which is not followed")
    kind = _STATUSES.get(status, Kind.CUT)
    what = "refused the credentials" if kind in (Kind.REFUSED, Kind.FORBIDDEN) else "refused the connection"
    wait = retry_after if retry_after is not None else LATER if kind is Kind.BUSY else SOON
    return Ended(kind, f"{what} (status {status})", wait=wait)
