"""The one HTTP client: quota, breaker, retries, limits and clear errors around a pooled ``httpx.Client``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Lock
from types import MappingProxyType
from typing import Any, BinaryIO, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.engine.answers import TRY_LATER, Judge, Response, Transient
from churnguard_pipelines.engine.auth import Credential
from churnguard_pipelines.engine.breaker import Breaker
from churnguard_pipelines.engine.clock import Clock
from churnguard_pipelines.engine.quota import Limits, QuotaGate
from churnguard_pipelines.engine.retry import RetryPolicy
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.engine.transport import allowed, transports
from churnguard_pipelines.engine.unpacking import TooManyBytes
from churnguard_pipelines.errors import InvalidConfiguration, ProviderError, ProviderMisbehaved, ProviderUnavailable

__all__ = ["HttpClient", "Metrics", "Response"]

T = TypeVar("T")
MIB = 1 << 20
FILE_SECONDS, FILE_BYTES = 1800.0, 8 << 30
"""That a file may take to download, and over the wire."""
MAX_REDIRECTS = 5
OVERHEAD = MIB
"""Bytes over the wire that an attempt may take beyond its body: headers, redirects, tokens."""

# Both write whole URLs, and httpcore whole headers, into the log; a key may be part of either.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


@dataclass
class Metrics:
    """What a client did so far. ``calls`` counts every attempt, ``bytes_received`` bodies as they came over the wire
    (compressed), ``waited_seconds`` time spent waiting for quota and between retries, over all threads."""

    calls: int = 0
    retries: int = 0
    bytes_received: int = 0
    waited_seconds: float = 0.0
    quota_left: float | None = None  # calls the provider says are left in its current window
    limits: Limits | None = None  # all that it says of that window
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, *, calls: int = 0, retries: int = 0, bytes_received: int = 0, waited: float = 0.0) -> None:
        with self._lock:
            self.calls += calls
            self.retries += retries
            self.bytes_received += bytes_received
            self.waited_seconds += waited


@dataclass(frozen=True)
class _Call:
    method: str
    url: str
    params: Mapping[str, Any] | None
    headers: Mapping[str, str] | None
    content: bytes | None
    allow: Collection[int]
    expect_json: bool
    budget: str | None

    def __str__(self) -> str:
        return f"{self.method} {urlsplit(self.url).path}"  # never the query: it may carry a key


class HttpClient:
    """Thread-safe; many threads call :meth:`request` at once over one pool of connections.

    ``guard``: where it may go. ``own_hosts``: the provider's own, whose words may be repeated to everybody.
    ``timeout``: seconds for one attempt from connecting to the last byte. ``max_body``: bytes after decompression.
    ``quota`` and ``breaker`` are left out only where nothing is stored yet, e.g. to test new credentials.
    ``budgets``: quotas of their own, of calls that name one. ``describe``, ``should_retry``, ``quota_used_up``,
    ``retry_after``, ``refused_credentials``: see :class:`~churnguard_pipelines.engine.answers.Judge`.
    ``transport``: the seam for tests.
    """

    def __init__(
        self,
        guard: AddressGuard,
        *,
        provider_title: str = "The provider",
        own_hosts: Collection[str] = (),
        auth: Credential | None = None,
        quota: QuotaGate | None = None,
        budgets: Mapping[str, QuotaGate] = MappingProxyType({}),
        breaker: Breaker | None = None,
        retry: RetryPolicy | None = None,
        timeout: float = 30.0,
        max_body: int = 64 * MIB,
        headers: Mapping[str, str] | None = None,
        describe: Callable[[Response], str | None] | None = None,
        should_retry: Callable[[Response], bool | None] | None = None,
        quota_used_up: Callable[[Response], float | None] | None = None,
        retry_after: Callable[[Response], float | None] | None = None,
        refused_credentials: Callable[[Response], bool] | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.integration_id = guard.integration_id
        self.provider_title = provider_title
        self.metrics = Metrics()
        self.ahead = 0.0
        """Seconds that the provider's clock is ahead of ours, by the latest answer and at the least: it tells whole
        ones."""
        self._guard = guard
        self._own_hosts = own_hosts
        self._auth = auth
        self._quota = quota
        self._budgets = budgets
        self._breaker = breaker
        self._retry = retry or RetryPolicy()
        self._timeout = timeout
        self._max_body = max_body
        self._clock = clock or Clock()
        self._judge = Judge(
            guard.integration_id,
            provider_title,
            describe,
            should_retry,
            quota_used_up,
            retry_after,
            refused_credentials,
            secrets=auth.secrets if auth else tuple,
        )
        guarded, mounts = transports(guard)
        self._client = httpx.Client(
            auth=auth,
            # No brotli or zstd: their bombs unpack thousands of times larger in one chunk.
            headers={"accept-encoding": "gzip, deflate", "user-agent": "churnguard-pipelines", **(headers or {})},
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport or guarded,
            mounts={} if transport else mounts,
            trust_env=False,
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        allow: Collection[int] = (),
        expect_json: bool = False,
        budget: str | None = None,
    ) -> Response:
        """One answer with a 2xx status or one of ``allow``; any other outcome is a ``ProviderError`` after the retries.

        The request must be safe to repeat: a lost answer is asked for again. ``expect_json``: an empty, cut or
        non-JSON 2xx body counts as no answer, and is asked for again too. ``budget``: the quota that the call counts
        for, if it is not the account's general one. Raises ``CircuitOpen`` without a call while
        the integration's breaker is open, ``Stopped`` when the run is cancelled while waiting.
        """
        call = _Call(method, url, params, headers, content, allow, expect_json, budget)
        if self._breaker is None:
            return self._with_retries(lambda: self._attempt(call))
        self._breaker.before_call()
        try:
            response = self._with_retries(lambda: self._attempt(call))
        except BaseException as error:
            self._breaker.failure(error)
            raise
        self._breaker.success()
        return response

    @property
    def token(self) -> Token | None:
        """See :attr:`~churnguard_pipelines.engine.auth.Credential.token`."""
        return self._auth.token if self._auth is not None else None

    def wait(self, seconds: float) -> None:
        """For what the provider is still working on. Raises ``Stopped`` when the run is cancelled."""
        self._clock.wait(seconds)

    def counted_apart(self) -> HttpClient:
        """The same client with metrics of its own; it ends with this one."""
        other = copy(self)
        other.metrics = Metrics()
        return other

    def close(self) -> None:
        self._client.close()
        for gate in (self._quota, *self._budgets.values()):
            if gate is not None:
                gate.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def download(self, url: str, into: BinaryIO, *, own: str) -> None:
        """A file of which an answer told the address, e.g. in a store of objects, for whoever has the address.

        None of our credentials go there, nor does it count for the account's quota. As it is an answer that says where
        we go, that is a public address or the origin of ``own``, the API's address. The file is as it is stored: what
        is compressed stays so. Each attempt begins ``into`` anew. Raises as :meth:`request` does.
        """
        call = _Call("GET", url, None, {"accept-encoding": "identity"}, None, (), False, None)
        if _origin(url) == _origin(own):
            self._with_retries(lambda: self._fetch(self._client, call, into))
            return
        with self._stranger() as stranger:
            self._with_retries(lambda: self._fetch(stranger, call, into))

    def _stranger(self) -> httpx.Client:
        """Knows no credentials, and goes to public addresses only, whoever configured the integration."""
        guarded, mounts = transports(replace(self._guard, restricted=True))
        timeout = httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0))
        return httpx.Client(timeout=timeout, transport=guarded, mounts=mounts, trust_env=False)

    def _with_retries(self, attempt: Callable[[], T]) -> T:
        for retry in count(1):
            try:
                return attempt()
            except Transient as failure:
                wait = self._retry.wait(retry, failure.retry_after)
                if wait is None:
                    raise failure.error from None
                self.metrics.add(retries=1, waited=wait)
                self._clock.wait(wait)
        raise AssertionError("unreachable")

    def _attempt(self, call: _Call) -> Response:
        began, quota = self._clock.monotonic(), self._quota_of(call)
        with quota.acquire() if quota is not None else nullcontext():
            self.metrics.add(calls=1, waited=self._clock.monotonic() - began)
            response = self._send(call)
        if quota is not None:
            asked = self._judge.asked_pause(response) if response.status == 429 else None
            pause = self._judge.pause(response)
            quota.observe(response.status, response.headers, asked if pause is None else pause)
            if quota is self._quota:
                self.metrics.quota_left, self.metrics.limits = quota.left, quota.limits
        self._judge.check(str(call), response, allow=call.allow, expect_json=call.expect_json)
        self.ahead = response.answered_at - response.received_at
        return response

    def _quota_of(self, call: _Call) -> QuotaGate | None:
        return self._quota if call.budget is None else self._budgets.get(call.budget)

    def _fetch(self, client: httpx.Client, call: _Call, into: BinaryIO) -> None:
        shown = self._may_be_shown(call.url)
        self.metrics.add(calls=1)
        with self._one_attempt(call, shown, FILE_SECONDS, FILE_BYTES):
            request = client.build_request(call.method, call.url, headers=call.headers)
            with closing(client.send(request, stream=True, auth=None)) as answer:
                if answer.next_request is not None:
                    self._same_origin(call, request.url, answer.next_request.url, answer.status_code, shown)
                if answer.status_code != 200:
                    deadline = self._clock.monotonic() + self._timeout
                    self._judge.check(str(call), self._read(call, answer, deadline, shown), allow=(), expect_json=False)
                    raise self._no_answer(call, f"answered {answer.status_code} instead of a file")
                into.seek(0)
                into.truncate()
                for chunk in answer.iter_raw():
                    into.write(chunk)
                self.metrics.add(bytes_received=answer.num_bytes_downloaded)

    def _send(self, call: _Call) -> Response:
        shown = self._may_be_shown(call.url)
        with self._one_attempt(call, shown, self._timeout, self._max_body):
            return self._exchange(call, shown)

    @contextmanager
    def _one_attempt(self, call: _Call, shown: bool, seconds: float, most: int) -> Iterator[None]:
        """Within these limits, ``most`` bytes of a body, and with errors of ours."""
        try:
            with allowed(self._clock.monotonic, seconds, most + OVERHEAD):
                yield
        except (httpx.LocalProtocolError, UnicodeEncodeError):  # its own words are the header's, maybe a secret
            raise InvalidConfiguration(
                f"the request {call} cannot be sent: a line break or another character that headers cannot hold is in "
                "one of them.",
                integration_id=self.integration_id,
                remedy="Correct the integration's credentials or headers.",
            ) from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise InvalidConfiguration(
                f"the request {call} cannot be sent: {self._judge.redact(str(error))}.",
                integration_id=self.integration_id,
                remedy="Correct the integration's `base_url` or credentials.",
            ) from None
        except httpx.TimeoutException:
            raise self._no_answer(call, f"did not answer within {seconds:g} s") from None
        except httpx.DecodingError:
            raise self._no_answer(call, "sent a damaged compressed answer") from None
        except httpx.TransportError as error:
            words = self._judge.redact(str(error))  # of a malformed answer they are the server's
            quote = repeated(self.integration_id, words, shown=shown)
            raise self._no_answer(call, f"cannot be reached ({type(error).__name__}{quote})") from None
        except TooManyBytes:
            raise self._too_large(call, most) from None
        except ProviderError as error:  # from a token endpoint, within the auth flow, or from the guard
            raise self._completed(error) from None

    def _exchange(self, call: _Call, shown: bool) -> Response:
        deadline = self._clock.monotonic() + self._timeout
        request = self._client.build_request(
            call.method, call.url, params=call.params, headers=call.headers, content=call.content
        )
        for _ in range(MAX_REDIRECTS + 1):
            with closing(self._client.send(request, stream=True)) as answer:
                following = answer.next_request
                if following is None:
                    return self._read(call, answer, deadline, shown)
                self._same_origin(call, request.url, following.url, answer.status_code, shown)
                request = following
        raise self._judge.error(ProviderMisbehaved, f"{self.provider_title} redirects without end ({call}).")

    def _may_be_shown(self, url: str) -> bool:
        """Whether everybody may hear what is said there."""
        scheme, host, _ = _origin(url)
        return not self._guard.restricted or (scheme == "https" and host in self._own_hosts)

    def _completed(self, error: ProviderError) -> Transient | ProviderError:
        message = error.message
        if error.server_message and self._auth is not None and self._auth.token_url is not None:
            words = self._judge.redact(error.server_message)
            quote = repeated(self.integration_id, words, shown=self._may_be_shown(self._auth.token_url))
            message = f"{message.removesuffix('.')}{quote}."
        known = self._judge.error(
            type(error),
            message,
            error.remedy or (TRY_LATER if isinstance(error, ProviderUnavailable) else None),
            error.status,
        )
        return Transient(known) if isinstance(error, ProviderUnavailable) else known

    def _read(self, call: _Call, answer: httpx.Response, deadline: float, shown: bool) -> Response:
        chunks: list[bytes] = []
        size = 0
        try:
            for chunk in answer.iter_bytes():
                size += len(chunk)
                if size > self._max_body:
                    raise self._too_large(call, self._max_body, answer.status_code)
                if self._clock.monotonic() > deadline:
                    raise self._no_answer(call, f"did not finish its answer within {self._timeout:g} s")
                chunks.append(chunk)
        finally:
            self.metrics.add(bytes_received=answer.num_bytes_downloaded)
        return Response(
            answer.status_code,
            answer.headers,
            b"".join(chunks),
            self._clock.now(),
            self.integration_id,
            self.provider_title,
            shown,
        )

    def _too_large(self, call: _Call, most: int, status: int | None = None) -> ProviderError:
        return self._judge.error(
            ProviderMisbehaved,
            f"{self.provider_title} answered {call} with more than {most / MIB:g} MiB.",
            "Ask for fewer records at once: lower the integration's `batch_size`.",
            status,
        )

    def _no_answer(self, call: _Call, what: str) -> Transient:
        message = f"{self.provider_title} {what} ({call})."
        return Transient(self._judge.error(ProviderUnavailable, message, TRY_LATER))

    def _same_origin(self, call: _Call, asked: httpx.URL, target: httpx.URL, status: int, shown: bool) -> None:
        """Credentials and requests stay with the host they were meant for."""
        if (asked.scheme, asked.host, asked.port) != (target.scheme, target.host, target.port):
            where = f"{target.scheme}://{target.host}" if shown else "another host"
            raise self._judge.error(
                ProviderMisbehaved,
                f"{self.provider_title} redirects {call} to {where}, which was not followed.",
                "Set `base_url` to the address the provider really answers at.",
                status,
            )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return "", None, None  # no address
