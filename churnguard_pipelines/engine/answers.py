"""Judges a provider's answer: it is fine, worth another try, or one of the errors of :mod:`errors`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.retry import parse_retry_after
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
)
from churnguard_pipelines.foreign_text import on_one_line

TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, *range(520, 531)})
"""Worth asking again: time-outs, lock conflicts, quota, a server in trouble (520 to 530 are Cloudflare's)."""

SHORTEST_SECRET = 5
"""Characters; striking out every "a" would leave no message."""

_TITLE = re.compile(r"<title[^<>]*+>([^<]*+)", re.IGNORECASE)
_TAG = re.compile(r"<[^>]*+>?")

RENEW_CREDENTIALS = "Update them with `churnguard integrations add FILE.yaml --replace`."
GRANT_PERMISSION = "Grant it at the provider, or leave the object out of the integration's `objects`."
TRY_LATER = "The next scheduled sync tries again; if it lasts, look at the provider's status page."


@dataclass(frozen=True)
class Response:
    """An answer that has been read to its end. ``content``: the whole body, decompressed. ``received_at``: seconds
    since the epoch, our clock.

    ``shown``: whether a message may repeat what it says.
    """

    status: int
    headers: Mapping[str, str]  # case-insensitive
    content: bytes = field(repr=False)
    received_at: float
    integration_id: str | None = field(default=None, repr=False)
    provider_title: str = field(default="The provider", repr=False)
    shown: bool = field(default=True, repr=False)

    @property
    def answered_at(self) -> float:
        """When, by the server's clock in whole seconds; by ours, if it does not say. Seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError, TypeError, OverflowError):
            return self.received_at

    def json(self) -> Any:
        """The parsed body. Raises ``ProviderUnavailable`` for an empty, cut or non-JSON one."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Any:
        try:
            return exact_json.loads(self.content)
        except json.JSONDecodeError:
            raise ProviderUnavailable(
                f"{self.provider_title} answered {self.status} with {self._not_json()}.",
                integration_id=self.integration_id,
                remedy=TRY_LATER,
                status=self.status,
            ) from None

    def _not_json(self) -> str:
        body = self.content.lstrip()
        if not self.shown:
            repeated(self.integration_id, _plain_text(body[:2000]), shown=False)
            return "something that is not JSON"
        kind = self.headers.get("content-type", "no content type").split(";")[0].strip()
        if not body:
            return f"an empty body instead of JSON ({kind})"
        if body[:1] in b"{[":  # may hold customers' data: say only how much came
            return f"cut or damaged JSON ({len(self.content):,} bytes, {kind})"
        beginning = " ".join(_plain_text(body[:2000]).split())
        return f"{kind} instead of JSON, beginning “{on_one_line(beginning, 80)}”"


class Transient(Exception):
    """An outcome worth another try; ``error`` is raised if there is none. ``retry_after``: seconds, if we were told."""

    def __init__(self, error: ProviderError, retry_after: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after


@dataclass(frozen=True)
class Judge:
    """Turns answers into errors for one integration.

    ``describe``: the provider's own words out of an error answer. ``should_retry``: the provider's own hint whether
    to ask again, None for no hint. ``quota_used_up``: seconds to stay away, where a refusal says in another way than by
    429 that the quota is used up. ``retry_after``: seconds to wait, of an answer without that header.
    ``refused_credentials``: whether an answer means that, though its status is not 401. ``secrets``: what must never
    appear in a message, whoever echoes it.
    """

    integration_id: str
    provider_title: str
    describe: Callable[[Response], str | None] | None = None
    should_retry: Callable[[Response], bool | None] | None = None
    quota_used_up: Callable[[Response], float | None] | None = None
    retry_after: Callable[[Response], float | None] | None = None
    refused_credentials: Callable[[Response], bool] | None = None
    secrets: Callable[[], Iterable[str]] = tuple

    def check(self, call: str, response: Response, *, allow: Collection[int], expect_json: bool) -> None:
        """Returns if the answer is usable; raises ``Transient`` or a final ``ProviderError``. ``call``: "GET /path"."""
        status = response.status
        if 200 <= status < 300 or (status in allow and self.pause(response) is None):
            if expect_json and 200 <= status < 300 and status != 204:
                try:
                    response.json()
                except ProviderUnavailable as unusable:
                    raise Transient(self.error(ProviderUnavailable, unusable.message, TRY_LATER, status)) from None
            return
        retry_after = self.asked_pause(response)
        error = self._error_of(call, response, retry_after)
        if (pause := self.pause(response)) is not None:
            raise Transient(error, pause)
        if isinstance(error, AuthenticationFailed) and status != 401:
            raise error
        hint = self.should_retry(response) if self.should_retry else None
        if status in TRANSIENT_STATUSES if hint is None else hint:
            raise Transient(error, retry_after)
        raise error

    def pause(self, response: Response) -> float | None:
        """Seconds to stay away, of a refusal that is no 429 and says that the quota is used up."""
        return self.quota_used_up(response) if self.quota_used_up and response.status >= 400 else None

    def asked_pause(self, response: Response) -> float | None:
        """Seconds that the answer asks to wait before the same call is made again; None if it does not say."""
        told = parse_retry_after(response.headers.get("retry-after"), response.received_at)
        return self.retry_after(response) if told is None and self.retry_after else told

    def error(
        self, kind: type[ProviderError], message: str, remedy: str | None = None, status: int | None = None
    ) -> ProviderError:
        return kind(self.redact(message), integration_id=self.integration_id, remedy=remedy, status=status)

    def redact(self, text: str) -> str:
        for secret in self.secrets():
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _error_of(self, call: str, response: Response, retry_after: float | None) -> ProviderError:
        title, status = self.provider_title, response.status
        words = (self.describe or common_description)(response)
        quote = repeated(self.integration_id, self.redact(words), shown=response.shown) if words else ""
        kind: type[ProviderError]
        if (pause := self.pause(response)) is not None:
            kind, remedy = RateLimited, "A later sync goes on from here; raise the limit if it is too low for all."
            message = f"{title} says that the account's quota is used up ({status} on {call}{quote}); "
            message += f"it is asked again in {pause / 60:.0f} min."
        elif status == 401 or (self.refused_credentials is not None and self.refused_credentials(response)):
            kind, remedy = AuthenticationFailed, RENEW_CREDENTIALS
            message = f"{title} refused the credentials ({status} on {call}{quote})."
        elif status == 403:
            kind, remedy = PermissionMissing, GRANT_PERMISSION
            message = f"the credentials may not do this at {title} ({status} on {call}{quote})."
        elif status == 429:
            kind, remedy = RateLimited, "Lower `requests_per_minute` if other tools share this account."
            until = f"; it asks for a pause of {retry_after:,.0f} s" if retry_after else ""
            message = f"{title} refused for its rate limit (429 on {call}{quote}){until}."
        elif status >= 500 or status == 408:
            kind, remedy = ProviderUnavailable, TRY_LATER
            message = f"{title} is in trouble ({status} on {call}{quote})."
        else:
            kind, remedy = RequestRefused, "Check the integration's settings; if they are right, this is our mistake."
            message = f"{title} refused the request ({status} on {call}{quote})."
        return self.error(kind, message, remedy, status)


def common_description(response: Response) -> str | None:
    """The message of an error answer in the shapes most providers use."""
    try:
        body = response.json()
    except ProviderUnavailable:
        return None
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    inner = body.get("error")
    if isinstance(inner, dict):
        body = inner
    for name in ("message", "error_description", "detail", "title", "error"):
        if isinstance(body.get(name), str):
            return str(body[name])
    return None


def _plain_text(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    title = _TITLE.search(text)
    return title.group(1) if title else _TAG.sub(" ", text)
