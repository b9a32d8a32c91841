"""Mailchimp's Marketing API: where an account is, how its lists are paged, and what its errors mean.

https://mailchimp.com/developer/marketing/docs/fundamentals/
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import httpx
import orjson

from churnguard_pipelines.connectors.sdk.paging import read_lists
from churnguard_pipelines.engine.auth import Basic, Credential, OAuth2Refresh, TokenKeeper
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    InvalidConfiguration,
    PermissionMissing,
    ProviderError,
    ProviderMisbehaved,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration

LOGIN = "login.mailchimp.com"
METADATA = "/oauth2/metadata"
PAGE = 1000
"""Rows; more may be asked for, and are not given."""
CONNECTIONS = 10
MOST_STEPS_BACK = 20
"""That lead nowhere, in one list."""
_CENTER = re.compile(r"us[0-9]{1,3}")
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
WHERE_KEYS_ARE = (
    "Copy the whole key from Mailchimp (Profile, Extras, API keys): what follows its last hyphen, e.g. us21, is the "
    "data center of the account."
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Cursor:
    """A page of a list. ``rows``: the name under which its answer has the rows; ``own``: what is added to each of them;
    ``last``, ``first``: marks of the last and the first row of the page before, which this one has to go on from;
    ``back``: how often the list had to be gone back in because it did not."""

    path: str
    rows: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    offset: int = 0
    last: str = ""
    first: str = ""
    back: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """``asked``: Mailchimp's clock when the call was made, milliseconds since the epoch; the rows are as of then or
    later. ``total``: what Mailchimp counts, which is less than there is where flags include more. ``ends``: no page of
    the list follows, of those that :meth:`MailchimpApi.pages` gives."""

    cursor: Cursor
    rows: list[Row]
    asked: int
    total: int
    ends: bool = False


class MailchimpApi:
    """One account. Thread safe."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        self.integration_id = integration.integration_id
        self.connections = min(integration.sync_config.concurrent_requests, CONNECTIONS)
        self._integration, self._http = integration, http
        self._base: str | None = None
        self._lock = Lock()

    def now(self) -> int:
        """Mailchimp's clock, in the seconds that it counts."""
        return int(time.time() + self._http.ahead)

    def account(self) -> Row:
        return self._get("/", {"exclude_fields": "_links"})[0]

    def row(self, path: str) -> tuple[Row, int] | None:
        """A record by its path, and when it was asked for; None if there is none."""
        return self._find(path, {"exclude_fields": "_links"})

    def page(self, cursor: Cursor, count: int = PAGE) -> Page:
        """Empty where what the list belongs to is gone. Raises ``ProviderMisbehaved`` for an answer without rows, and
        ``RequestRefused`` where there is no such list though it belongs to nothing."""
        hidden = {"exclude_fields": f"{cursor.rows}._links,_links"}
        chosen = {} if "fields" in cursor.parameters else hidden
        more = cursor.parameters.get("exclude_fields")
        if more:
            chosen = {"exclude_fields": f"{hidden['exclude_fields']},{more}"}
        asked_for = {**cursor.parameters, **chosen, "count": str(count), "offset": str(cursor.offset)}
        found = self._find(cursor.path, asked_for)
        if found is None:
            return Page(cursor, [], self.now() * 1000, 0)
        body, asked = found
        rows, total = body.get(cursor.rows), body.get("total_items")
        if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
            raise self.misbehaved(cursor.path, f"came without `{cursor.rows}`")
        return Page(cursor, [{**each, **cursor.own} for each in rows], asked, total if isinstance(total, int) else 0)

    def following(self, page: Page, count: int = PAGE) -> Cursor | None:
        """The cursor of the next page, which begins with the last row of this one; None after a short page, whatever
        the total says.

        Rows that vanish while a list is read move the later ones forward: where the last row is not met again, what
        came before is read once more.
        """
        cursor, marks = page.cursor, [_mark(row) for row in page.rows]
        goes_on = not cursor.last or cursor.last in marks
        if len(marks) >= count and marks[0] == cursor.first:
            raise self.misbehaved(cursor.path, "sends the same page again and again")
        if not goes_on and cursor.offset > 0:
            if cursor.back >= MOST_STEPS_BACK:
                raise self.misbehaved(cursor.path, "changes while it is read")
            return replace(cursor, offset=max(0, cursor.offset - count // 2), first="", back=cursor.back + 1)
        if len(marks) < count:
            return None
        back = max(0, cursor.back - 1) if goes_on else cursor.back
        return replace(cursor, offset=cursor.offset + len(marks) - 1, last=marks[-1], first=marks[0], back=back)

    def paged(self, cursor: Cursor) -> tuple[Page, Cursor | None]:
        page = self.page(cursor)
        return page, self.following(page)

    def pages(self, cursors: Sequence[Cursor], failed: dict[Cursor, ProviderError]) -> Iterator[Page]:
        """Of several lists, as they arrive. One that Mailchimp refuses, or that makes no sense, keeps nobody from the
        others: it is ``failed``, by the cursor of the page that could not be read."""

        def fetch(cursor: Cursor) -> tuple[Page | None, Cursor | None]:
            try:
                page, following = self.paged(cursor)
                return replace(page, ends=following is None), following
            except (PermissionMissing, RequestRefused, ProviderMisbehaved) as error:
                failed[cursor] = error
                return None, None

        for page in read_lists(fetch, cursors, self.connections):
            if page is not None:
                yield page

    def all(self, cursor: Cursor) -> Iterator[Row]:
        """Every row of a list, page by page."""
        left: Cursor | None = cursor
        while left is not None:
            page, left = self.paged(left)
            yield from page.rows

    def ids(self, path: str, rows: str) -> list[str]:
        """Of a list's records, in its order."""
        cursor = Cursor(path, rows, {"fields": f"{rows}.id,total_items"})
        return [self.id(path, each.get("id")) for each in self.all(cursor)]

    def id(self, what: str, told: Any) -> str:
        """What may be part of a path. Raises ``ProviderMisbehaved`` for anything else."""
        text = str(told) if isinstance(told, str | int) and not isinstance(told, bool) else ""
        if not _ID.fullmatch(text):
            raise self.misbehaved(what, "has a record without an id")
        return text

    def misbehaved(self, what: str, how: str) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            f"Mailchimp's {what.strip('/')} {how}; it was not followed further.",
            integration_id=self.integration_id,
            remedy="The next sync tries again; if it lasts, tell Mailchimp's support.",
        )

    def _find(self, path: str, parameters: Mapping[str, str]) -> tuple[Row, int] | None:
        """None if there is none. Only what belongs to something can be missing: an account always has its lists,
        campaigns and reports, and without them everything would seem to be gone."""
        body, asked, status = self._ask(f"{self._api_url()}{path}", parameters, missing=path.count("/") > 1)
        return None if status == 404 else (body, asked)

    def _get(self, path: str, parameters: Mapping[str, str]) -> tuple[Row, int]:
        body, asked, _ = self._ask(f"{self._api_url()}{path}", parameters, missing=False)
        return body, asked

    def _ask(self, url: str, parameters: Mapping[str, str], *, missing: bool) -> tuple[Row, int, int]:
        asked = time.time()
        allow = (404,) if missing else ()
        response = self._http.request("GET", url, params=parameters or None, allow=allow, expect_json=True)
        if response.status == 404 and _title(response) is None:  # of something between us and Mailchimp
            raise self.misbehaved(
                httpx.URL(url).path.removeprefix("/3.0"), "is not found, but not in Mailchimp's words"
            )
        body = response.json() if response.status != 404 else {}
        return (body if isinstance(body, dict) else {}), int((asked + self._http.ahead) * 1000), response.status

    # Where the account is

    def _api_url(self) -> str:
        with self._lock:
            if self._base is None:
                center = self._center() if is_oauth(self._integration) else center_of(self._integration)
                given = self._integration.base_url
                self._base = f"{given or f'https://{center}.api.mailchimp.com'}".rstrip("/") + "/3.0"
            return self._base

    def _center(self) -> str:
        """Of a token's account. What is wrong with the token stands in an answer of status 200."""
        url = f"{login_url(self._integration)}{METADATA}"
        response = self._http.request("GET", url, expect_json=True)
        body = response.json()
        body = body if isinstance(body, dict) else {}
        if "error" in body:
            words = f"{body['error']}: {body.get('error_description', '')}".rstrip(": ")
            raise AuthenticationFailed(
                f"Mailchimp refused the token{repeated(self.integration_id, words, shown=response.shown)}.",
                integration_id=self.integration_id,
                remedy="Authorize the integration again by `churnguard integrations authorize mailchimp`.",
            )
        center = body.get("dc")
        if not isinstance(center, str) or not _CENTER.fullmatch(center):
            raise self.misbehaved(METADATA, "does not say where the account is")
        return center


def is_oauth(integration: IntegrationConfiguration) -> bool:
    return integration.credentials.api_key is None


def center_of(integration: IntegrationConfiguration) -> str:
    """The data center that a key names. Raises ``InvalidConfiguration`` for a key that names none."""
    key = integration.credentials.api_key
    center = key.get_secret_value().rpartition("-")[2] if key else ""
    if not _CENTER.fullmatch(center):
        raise InvalidConfiguration(
            "credentials.api_key does not end in Mailchimp's data center.",
            integration_id=integration.integration_id,
            remedy=WHERE_KEYS_ARE,
        )
    return center


def login_url(integration: IntegrationConfiguration) -> str:
    return str(integration.base_url or f"https://{LOGIN}").rstrip("/")


def credential_of(integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
    given = integration.credentials
    if given.api_key is not None:
        center_of(integration)
        return Basic("churnguard", given.api_key.get_secret_value())
    if given.access_token is None and given.credential_type != CredentialType.OAUTH2:
        raise InvalidConfiguration(
            "Mailchimp needs credentials.api_key.", integration_id=integration.integration_id, remedy=WHERE_KEYS_ARE
        )
    return app_of(integration, tokens)


def app_of(integration: IntegrationConfiguration, tokens: TokenKeeper) -> OAuth2Refresh:
    given = {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}
    return Lasting(
        tokens,
        f"{login_url(integration)}/oauth2/token",
        client_id=given.get("client_id", ""),
        client_secret=given.get("client_secret"),
    )


class Lasting(OAuth2Refresh):
    """Mailchimp's tokens last until somebody takes them back; ``expires_in`` is 0, and nothing renews them."""

    def _parse(self, answer: httpx.Response, previous: Token | None) -> Token:
        return replace(super()._parse(answer, previous), expires_at=None)

    @staticmethod
    def _sign(request: httpx.Request, token: Token) -> None:
        scheme = "OAuth" if request.url.path == METADATA else "Bearer"
        request.headers["Authorization"] = f"{scheme} {token.access_token}"


def refused_credentials(response: Response) -> bool:
    """Of an account that is switched off, whatever may be read in it."""
    return response.status == 403 and _title(response) in ("User Disabled", "Account Disabled")


def should_retry(response: Response) -> bool | None:
    """Some refusals for too many connections are a 403 without a word of Mailchimp's."""
    return True if response.status == 403 and _title(response) is None else None


def _title(response: Response) -> str | None:
    try:
        body = response.json()
    except ProviderUnavailable:
        return None
    told = body.get("title") if isinstance(body, dict) else None
    return told if isinstance(told, str) else None


def _mark(row: Row) -> str:
    """Of who or what a row is of, whatever else it says."""
    who = next((row[name] for name in ("id", "email_id", "merge_id") if row.get(name)), row)
    return hashlib.sha256(orjson.dumps(who, default=str)).hexdigest()[:16]


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def seconds_of(told: Any) -> int | None:
    """Of a time as Mailchimp writes it; None for its empty string."""
    try:
        return int(datetime.fromisoformat(told).timestamp()) if told else None
    except (TypeError, ValueError, OverflowError):
        return None
