"""Plain requests, which no parser sees: whatever is taken for one means the same to the parser."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from webhook_gateway.plain import LONGEST_HEAD, plain

REQUEST = b"POST /webhooks/stripe/acme HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}"


class Reader:
    """What httptools makes of bytes: the messages that are there as a whole."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.messages: list[tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes, bool]] = []

    def on_message_begin(self) -> None:
        self.url, self.body = b"", b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        keeps = self.parser.should_keep_alive()
        self.messages.append((self.parser.get_method(), self.url, self.headers, self.body, keeps))


# What parsers have been fooled by, one or two of them in a request that would be plain.
NAMES = st.sampled_from(
    ("Host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "Upgrade", "Expect", "X-A", "x-a",
     "Content-Length ", " Host", "X\tA", "X:A", "X-Forwarded-For", "Keep-Alive", "", "\xc9", "X-B",
     "X!#$%&'*+.^_`|~9")
)  # fmt: skip
VALUES = st.sampled_from(
    ("here", "2", "02", "+2", " 2 ", "2, 2", "0x2", "2\t", "\t2", "keep-alive", "close", "chunked", "a\rb", "a\nb",
     "a\0b", "", " ", "\xe9", "t=1,v1=ab", "100-continue", "1_0", "a:b", "a\x7fb", "a\tb", '"a"')
)  # fmt: skip
LINES = st.builds("{}:{}{}".format, NAMES, st.sampled_from(("", " ", "  ")), VALUES)
TARGETS = st.sampled_from(
    ("/", "*", "//evil/x", "/a?b=c", "/a?b?c=%20", "/a#b", "/a%2fb", "http://x/a", "/a b", "/\xe9", "/..//a", "/a?",
     "a")
)  # fmt: skip
VERSIONS = st.sampled_from(("HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "HTTP/1.1\t", "http/1.1", ""))
ENDS = st.sampled_from((b"\n", b"\r", b" \r\n", b"\r\n ", b"\r\r\n"))
BODIES = st.sampled_from((b"", b"{", b"{}\r\n", b"{}" + REQUEST, b"2\r\n{}\r\n0\r\n\r\n", b"\r\n{}", b"\0\xff"))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    def now_and_then(odd: st.SearchStrategy[Any], usual: Any) -> Any:
        return draw(odd) if draw(st.integers(0, 7)) == 0 else usual

    method = now_and_then(st.sampled_from(("GET", "post", "POST ", "PUT")), "POST")
    target = draw(st.one_of(st.just("/webhooks/stripe/acme"), TARGETS))
    lines = [*draw(st.lists(LINES, max_size=2)), "Host: here", "Content-Length: 2"]
    head = [f"{method} {target} {now_and_then(VERSIONS, 'HTTP/1.1')}", *draw(st.permutations(lines))]
    end = now_and_then(ENDS, b"\r\n")
    joined = b"".join(line.encode("latin-1") + (end if place == 1 else b"\r\n") for place, line in enumerate(head))
    return joined + b"\r\n" + bytes(now_and_then(BODIES, b"{}"))


@given(requests())
@example(REQUEST)
@example(REQUEST + REQUEST)
def test_what_is_plain_is_the_same_single_request_to_the_parser(data: bytes) -> None:
    found = plain(data)
    if found is None:
        return
    reader = Reader()
    reader.parser.feed_data(data)
    [(method, url, headers, body, keeps)] = reader.messages
    assert (method, url, body) == (b"POST", found.url.encode(), found.body)
    assert keeps
    assert {name.lower().decode("latin-1"): value.decode("latin-1").rstrip(" \t") for name, value in headers} == (
        found.headers
    )
    assert len(headers) == len(found.headers)
    assert found.path == httptools.parse_url(url).path.decode()


@pytest.mark.parametrize(
    "head",
    [
        b"Host: here\r\nContent-Length: 2",
        b"host:here\r\ncontent-length:\t2 ",
        b"Host: here\r\nConnection: Keep-Alive\r\nContent-Length: 2",
        b"Host: here\r\nContent-Length: 2\r\nX-Forwarded-For: 192.0.2.1, 192.0.2.2",
        b"Host: here\r\nContent-Length: 2\r\nX-Empty:",
    ],
)
def test_what_providers_send_is_plain(head: bytes) -> None:
    found = plain(b"POST /webhooks/stripe/acme?a=b HTTP/1.1\r\n" + head + b"\r\n\r\n{}")
    assert found is not None
    assert (found.path, found.url) == ("/webhooks/stripe/acme", "/webhooks/stripe/acme?a=b")
    assert (found.headers["host"], found.headers["content-length"], found.body) == ("here", "2", b"{}")


@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 2",
        b"Host: there",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Connection: close",
        b"Connection: keep-alive, x-a",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b" folded: line",
        b"no colon",
        b"X-A : b",
        b"X-A: b\nX-B: c",
        b"X-A: \0",
        b"X-A: " + b"a" * LONGEST_HEAD,
    ],
    ids=lambda line: line[:24].decode().encode("unicode_escape").decode(),
)
def test_what_asks_for_more_is_left_to_the_parser(line: bytes) -> None:
    assert plain(REQUEST.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n")) is None


def test_so_is_what_is_not_whole_or_more_than_one() -> None:
    assert plain(REQUEST) is not None
    for data in (b"", REQUEST[:-1], REQUEST + b"\n", REQUEST + REQUEST, b"\r\n" + REQUEST):
        assert plain(data) is None
