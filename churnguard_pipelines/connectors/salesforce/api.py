"""Salesforce's REST API over our HTTP client, and what its refusals mean.

https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.connectors.salesforce.describe import Description, described
from churnguard_pipelines.connectors.salesforce.signing import base_url
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.quota import Limits
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import IntegrationConfiguration

API_VERSION = "65.0"
NEXT_LOOK = 900.0
"""Seconds. The daily limit is of a rolling day: calls come back bit by bit, and nothing says when."""

BREATHER = 10.0
"""Seconds, where too many long requests are under way at once."""

_VERSION = re.compile(r"v?(\d{2,3}\.\d)")
_REFUSALS = (400, 403, 404, 405, 410)
_PAUSING = (406, 420)  # an instance that is being set up
_USAGE = re.compile(r"api-usage=(\d{1,12})/(\d{1,12})")
_NEXT = re.compile(r"/services/data/v\d{2,3}\.\d/query/[A-Za-z0-9-]{1,200}", re.ASCII)

_REMEDIES: Mapping[str, str] = {
    "INVALID_TYPE": "Give the integration's user (its permission set) read access to the object, or leave it out.",
    "NOT_FOUND": "Give the integration's user (its permission set) read access to the object, or leave it out.",
    "INSUFFICIENT_ACCESS": "Give the integration's user a permission set that may read the object.",
    "INSUFFICIENT_ACCESS_OR_READONLY": "Give the integration's user a permission set that may read the object.",
    "API_DISABLED_FOR_ORG": "Give the integration's user the permission “API Enabled”; some editions sell it apart.",
    "API_CURRENTLY_DISABLED": "Give the integration's user the permission “API Enabled”.",
    "FUNCTIONALITY_NOT_ENABLED": "Turn the feature on at Salesforce, or leave the object out.",
    "TXN_SECURITY_METERING_ERROR": "Give the integration's user “Exempt from Transaction Security”.",
    "API_ERROR": "Give the integration's user “View All Data”, or leave the object out.",
    "OPERATION_TOO_LARGE": "Give the integration's user “View All Data”: sharing is too much to reckon with otherwise.",
}
"""Refusals that a permission would lift."""
_OF_VERSION = ("UNSUPPORTED_API_VERSION", "INVALID_VERSION", "GONE")


@dataclass(frozen=True, slots=True)
class Answer:
    """``refused``: the code of a refusal that the caller said it can deal with."""

    body: Any
    refused: str | None = None


class SalesforceApi:
    """One organization of Salesforce's, asked as one user. Thread safe."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        self.integration_id = integration.integration_id
        self.http = http
        self._base = base_url(integration)
        self._path = f"/services/data/v{_version(integration)}"

    def now(self) -> datetime:
        """Salesforce's clock, in whole seconds."""
        return datetime.fromtimestamp(int(time.time() + self.http.ahead), UTC)

    def query(self, text: str, *, deleted: bool = False, tolerated: Collection[str] = ()) -> Answer:
        """The first page. ``deleted``: with what is in the recycle bin."""
        return self.ask(f"/{'queryAll' if deleted else 'query'}", {"q": text}, tolerated=tolerated)

    def more(self, url: str, *, tolerated: Collection[str] = ()) -> Answer:
        """The page that another one names. Raises ``ProviderMisbehaved`` for what names none."""
        if not _NEXT.fullmatch(url):
            raise self.misbehaved("names a next page that is none")
        return self._ask("GET", url, None, tolerated=tolerated)

    def count(self, text: str, *, deleted: bool = False) -> int:
        told = self.query(text, deleted=deleted).body
        total = told.get("totalSize") if isinstance(told, dict) else None
        if not isinstance(total, int):
            raise self.misbehaved("counts without a number")
        return total

    def objects(self) -> list[dict[str, Any]]:
        listed = self.ask("/sobjects").body
        found = listed.get("sobjects") if isinstance(listed, dict) else None
        if not isinstance(found, list):
            raise self.misbehaved("lists no objects")
        return found

    def describe(self, name: str) -> Description:
        """Raises ``PermissionMissing`` for an object that is not there or not to be seen by this user."""
        told = self.ask(f"/sobjects/{soql.name(name)}/describe").body
        try:
            return described(told)
        except (KeyError, TypeError, AttributeError):
            raise self.misbehaved(f"describes {name} in a way that cannot be understood") from None

    def deleted(self, name: str, start: datetime, end: datetime, tolerated: Collection[str]) -> Answer:
        """Ids that were deleted between these whole minutes."""
        span = {"start": _minute(start), "end": _minute(end)}
        return self.ask(f"/sobjects/{soql.name(name)}/deleted/", span, tolerated=tolerated)

    def limits(self) -> Mapping[str, Any]:
        body = self.ask("/limits").body
        return body if isinstance(body, dict) else {}

    def ask(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
        tolerated: Collection[str] = (),
    ) -> Answer:
        """``tolerated``: codes of refusals that become :attr:`Answer.refused`. Raises what the others mean."""
        query = f"?{urlencode(params, quote_via=quote)}" if params else ""
        return self._ask(method, f"{self._path}{path}{query}", body, tolerated=tolerated)

    def fetch(self, path: str, params: Mapping[str, str]) -> Response:
        """An answer that is no JSON."""
        url = f"{self._base}{self._path}{path}?{urlencode(params)}"
        response = self.http.request("GET", url, headers={"accept": "text/csv"}, allow=_REFUSALS)
        if response.status >= 400:
            raise self._error("GET", path, response, *_told(response))
        return response

    def misbehaved(self, what: str) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"Salesforce {what}.",
            integration_id=self.integration_id,
            remedy="The next sync tries again; if it lasts, tell Salesforce's support.",
        )

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, *, tolerated: Collection[str]) -> Answer:
        content = None if body is None else orjson.dumps(body)
        headers = {"accept": "application/json"} | ({} if body is None else {"content-type": "application/json"})
        response = self.http.request(
            method, f"{self._base}{path}", headers=headers, content=content, allow=_REFUSALS, expect_json=True
        )
        if response.status < 400:
            return Answer(response.json() if response.status != 204 else None)
        code, words = _told(response)
        if code in tolerated:
            return Answer(None, code)
        raise self._error(method, path.partition("?")[0], response, code, words)

    def _error(self, method: str, path: str, response: Response, code: str, words: str) -> ProviderError:
        quote = repeated(self.integration_id, " ".join(filter(None, (code, words))), shown=response.shown)
        where, kind, remedy = f"({response.status} on {method} {path}{quote})", RequestRefused, None
        if response.status == 410 or code in _OF_VERSION:
            raise InvalidConfiguration(
                f"Salesforce has no API of the version {self._path.rpartition('/v')[2]} any more {where}.",
                integration_id=self.integration_id,
                remedy=f"Set the integration's `api_version` to a newer one, e.g. {API_VERSION}, or remove it.",
            )
        refused: type[ProviderError] = kind
        if code in ("QUERY_TIMEOUT", "SERVER_UNAVAILABLE", "INVALID_QUERY_LOCATOR"):
            refused, remedy = ProviderUnavailable, "The next sync tries again."
        elif code in _REMEDIES or response.status == 403:
            refused, remedy = PermissionMissing, _REMEDIES.get(code, _REMEDIES["INSUFFICIENT_ACCESS"])
        remedy = remedy or "Check the integration's settings; if they are right, this is our mistake."
        return refused(
            f"Salesforce refused the request {where}.",
            integration_id=self.integration_id,
            remedy=remedy,
            status=response.status,
        )


def should_retry(response: Response) -> bool | None:
    """Also where too many long requests are under way at once, which passes."""
    return True if response.status in _PAUSING or _told(response)[0] == "REQUEST_LIMIT_EXCEEDED" else None


def quota_used_up(response: Response) -> float | None:
    """The day's calls are used up; the same code with other words is of too many requests at once."""
    if response.status != 403:
        return None
    code, words = _told(response)
    if code != "REQUEST_LIMIT_EXCEEDED":
        return None
    return BREATHER if "concurrent" in words.lower() else NEXT_LOOK


def read_limits(headers: Mapping[str, str]) -> Limits | None:
    """``Sforce-Limit-Info: api-usage=18/5000``, of the whole organization and a rolling day."""
    found = _USAGE.search(headers.get("sforce-limit-info", "")[:500])
    if found is None:
        return None
    used, allotted = float(found[1]), float(found[2])
    return Limits(remaining=max(allotted - used, 0.0), limit=allotted, reset_after=NEXT_LOOK)


def _told(response: Response) -> tuple[str, str]:
    """Code and words of a refusal."""
    try:
        body = response.json()
    except ProviderUnavailable:
        return "", ""
    first = body[0] if isinstance(body, list) and body else body
    if not isinstance(first, dict):
        return "", ""
    return str(first.get("errorCode") or first.get("error") or "")[:100], str(first.get("message") or "")[:500]


def _minute(at: datetime) -> str:
    return (at - timedelta(seconds=at.second, microseconds=at.microsecond)).strftime("%Y-%m-%dT%H:%M:%S+00:00")


def _version(integration: IntegrationConfiguration) -> str:
    found = _VERSION.fullmatch(integration.api_version or API_VERSION)
    if found is None:
        raise InvalidConfiguration(
            "api_version is no version of Salesforce's API.",
            integration_id=integration.integration_id,
            remedy=f"Write it as {API_VERSION}, or leave it out.",
        )
    return found[1]
