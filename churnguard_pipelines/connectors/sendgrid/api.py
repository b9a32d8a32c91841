"""SendGrid's v3 API: where it answers, whose data it shows, what its errors mean, and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

import orjson

from churnguard_pipelines.connectors.sendgrid import limits
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.errors import InvalidConfiguration, ProviderMisbehaved, ProviderUnavailable
from churnguard_pipelines.model import IntegrationConfiguration

HOST, EU_HOST = "api.sendgrid.com", "api.eu.sendgrid.com"
SUBUSER = "on_behalf_of"
"""The custom field that names a subuser whose data is read."""
_LONGEST_SUBUSER = 200
TRIES = 5
"""Reads of a list that is changed while it is read."""

Parameters = Mapping[str, str | int | list[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: the parsed JSON. ``asked``: SendGrid's clock when the call was made, milliseconds since the epoch: what
    the answer shows is as of then or later."""

    body: Any
    asked: int

    def rows(self, what: str, integration_id: str, name: str | None = None) -> list[Any]:
        """The list that the body is, or has under a name. Raises ``ProviderMisbehaved`` if it is none."""
        found = self.body if name is None else self.body.get(name) if isinstance(self.body, dict) else None
        if not isinstance(found, list):
            raise misbehaved(integration_id, what, f"came without `{name}`" if name else "came as no list")
        return found


class SendGridApi:
    """One account, or one of its subusers. Thread safe."""

    def __init__(self, integration: IntegrationConfiguration, http: HttpClient) -> None:
        self.integration_id = integration.integration_id
        self.connections = integration.sync_config.concurrent_requests
        self.http = http
        self._base = str(integration.base_url or f"https://{HOST}").rstrip("/")
        subuser = subuser_of(integration)
        self._headers = {"accept": "application/json"} | ({"on-behalf-of": subuser} if subuser else {})

    @property
    def now(self) -> int:
        """SendGrid's clock in milliseconds, never ahead of it by more than ours is."""
        return int((time.time() + self.http.ahead) * 1000)

    def get(self, path: str, parameters: Parameters | None = None) -> Answer:
        return self._ask("GET", path, parameters)

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        return self._ask("POST", path, None, orjson.dumps(body))

    def download(self, url: str, into: BinaryIO) -> None:
        self.http.download(url, into, own=self._base)

    def paged(
        self, path: str, name: str, size: int, parameters: Parameters | None = None
    ) -> Iterator[tuple[list[Any], int]]:
        """The pages of a list of marketing's or of templates, each with when it was asked for. Of the address of the
        next page only the token is taken."""
        token, seen = None, set()
        while True:
            asked: dict[str, str | int | list[str]] = {**(parameters or {}), "page_size": size}
            answer = self.get(path, asked | ({"page_token": token} if token else {}))
            yield answer.rows(path, self.integration_id, name), answer.asked
            metadata = answer.body.get("_metadata")
            following = metadata.get("next") if isinstance(metadata, dict) else None
            tokens = parse_qs(urlsplit(following).query).get("page_token") if isinstance(following, str) else None
            if not tokens:
                return
            token = tokens[-1]
            if token in seen:
                raise misbehaved(self.integration_id, path, "sends the same page again and again")
            seen.add(token)

    def by_offset(self, path: str, size: int, parameters: Parameters | None = None) -> Iterator[tuple[list[Any], int]]:
        """The pages of a list that has nothing better. Each begins with the last row of the one before, which is left
        out: where it does not, the list was changed meanwhile, and is read once more from its begin."""
        for _ in range(TRIES):
            last: list[Any] = []
            offset = 0
            while True:
                answer = self.get(path, {**(parameters or {}), "limit": size, "offset": offset})
                rows = answer.rows(path, self.integration_id)
                if rows[: len(last)] != last:
                    break
                yield rows[len(last) :], answer.asked
                if len(rows) < size:
                    return
                last, offset = rows[-1:], offset + len(rows) - 1
        raise misbehaved(self.integration_id, path, "changes while it is read")

    def _ask(self, method: str, path: str, parameters: Parameters | None, content: bytes | None = None) -> Answer:
        asked = time.time()
        headers = self._headers | ({"content-type": "application/json"} if content is not None else {})
        response = self.http.request(
            method, f"{self._base}/v3/{path}", params=parameters or None, content=content, headers=headers,
            expect_json=True, budget=_budget(path),
        )  # fmt: skip
        return Answer(response.json(), int((asked + self.http.ahead) * 1000))


def subuser_of(integration: IntegrationConfiguration) -> str | None:
    """Raises ``InvalidConfiguration`` for what cannot stand in a header."""
    given = integration.credentials.custom_fields.get(SUBUSER)
    if given is None:
        return None
    name = given.get_secret_value()
    if not name.isascii() or not name.isprintable() or not 0 < len(name.strip()) <= _LONGEST_SUBUSER:
        raise InvalidConfiguration(
            f"credentials.custom_fields.{SUBUSER} is no name of a subuser.",
            integration_id=integration.integration_id,
            remedy="Settings → Subuser Management shows the names.",
        )
    return name.strip()


def describe(response: Response) -> str | None:
    """SendGrid's own words: its errors are a list."""
    try:
        body = response.json()
    except ProviderUnavailable:
        return None
    errors = body.get("errors") if isinstance(body, dict) else None
    told = errors[0] if isinstance(errors, list) and errors else None
    message = told.get("message") if isinstance(told, dict) else None
    return message if isinstance(message, str) else None


def misbehaved(integration_id: str, what: str, how: str) -> ProviderMisbehaved:
    return ProviderMisbehaved(
        f"SendGrid's {what} {how}; it was not followed further.",
        integration_id=integration_id,
        remedy="The next sync tries again; if it lasts, tell SendGrid's support.",
    )


def _budget(path: str) -> str | None:
    family = path.partition("/")[0]
    return {"marketing": limits.MARKETING, "messages": limits.ACTIVITY}.get(family)
