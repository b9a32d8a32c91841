"""One request of a rule: what it is made of, where it may go, and what its answer's status means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

import httpx

from churnguard_pipelines.connectors.rest.paging import Place
from churnguard_pipelines.engine import exact_json
from churnguard_pipelines.engine.http import HttpClient, Response
from churnguard_pipelines.engine.retry import parse_retry_after
from churnguard_pipelines.errors import InvalidConfiguration, ProviderMisbehaved, ProviderUnavailable
from churnguard_pipelines.model import RuleIntegration
from churnguard_pipelines.rule_options import ESCAPED_PARENT, has_user

FIRST_POLL, SHORTEST_POLL, LONGEST_POLL, MOST_POLLING = 1.0, 0.1, 30.0, 600.0
"""Seconds before an answer that is being made is asked for again, doubled each time; the bounds, whatever the server
asks for; and all of them."""
LONGEST_PARENT = 2000
"""Characters of a parent's key in a URL."""
LONGEST_CURSOR = 32_768
"""Characters in a URL; servers take less, and it is kept in the checkpoint."""


class Requests:
    """Whatever a rule asks goes to the origin of its endpoint and nowhere else: so do its credentials."""

    def __init__(self, integration: RuleIntegration, http: HttpClient) -> None:
        self._integration = integration
        self._http = http
        self._rule = integration.rule

    def endpoint(self, parent: str | None = None) -> str:
        """Raises ``InvalidConfiguration`` for a user in the URL."""
        url = str(self._rule.endpoint_url)
        if has_user(url):
            raise InvalidConfiguration(
                "its endpoint_url holds a user or password.",
                integration_id=self._integration.integration_id,
                remedy="Give them in `authentication`, as `credential_type: basic_auth`.",
            )
        return url if parent is None else url.replace(ESCAPED_PARENT, quote(parent, safe=""))

    def ask(
        self, url: str, place: Place, more: Mapping[str, Any] | None = None, *, of_parent: bool = False
    ) -> tuple[str, Response | None]:
        """The URL that was asked and its answer; None where the rule says that its status means no records.

        ``more``: parameters beside the rule's own; those in the URL go first. ``of_parent``: it lists the parents.
        """
        rule = self._rule
        body = None if of_parent else rule.body
        if "url" in place:
            url = self._own(url, place["url"])
        else:
            query = {} if of_parent else {name: _text(value) for name, value in rule.parameters.items()}
            into_body = rule.incremental is not None and rule.incremental.into == "body"
            query |= {name: _text(value) for name, value in place.get("query", {}).items()}
            if not into_body:
                query |= {name: _text(value) for name, value in (more or {}).items()}
            url = _with_query(url, query)
            for name, value in {**place.get("body", {}), **(more or {} if into_body else {})}.items():
                body = _put(body or {}, name.split("."), value)
        headers = {name: str(value) for name, value in place.get("header", {}).items()}
        if body is not None:
            headers["content-type"] = "application/json"
        content = None if body is None else exact_json.dumps(body)
        method = "GET" if of_parent else rule.http_method
        return url, self._answer(method, url, headers, content)

    def sendable(self, asked: str, place: Place) -> Place:
        """A place that an answer from ``asked`` told, its URL whole. Raises ``ProviderMisbehaved`` for one that cannot
        be asked for, before it is kept."""
        if "url" in place:
            return {**place, "url": self._own(asked, place["url"])}
        for into in ("query", "body", "header"):
            for value in map(_text, place.get(into, {}).values()):
                if into == "header" and not _IN_A_HEADER.fullmatch(value):
                    raise self._misbehaved("its cursor cannot be sent in a header: it has other characters than those.")
                if "\0" in value or len(quote(value)) > LONGEST_CURSOR:
                    raise self._misbehaved("its cursor cannot be sent: it is too long, or holds a zero character.")
        return place

    def _answer(self, method: str, url: str, headers: Mapping[str, str], content: bytes | None) -> Response | None:
        allowed = [status for status in self._rule.responses if not 200 <= status < 300]
        began: float | None = None
        waited, pause = 0.0, FIRST_POLL
        while True:
            response = self._http.request(method, url, headers=headers, content=content, allow=allowed)
            action = self._rule.responses.get(response.status, _USUAL.get(response.status))
            if action == "empty":
                return None
            if action != "poll":
                return response
            began = response.received_at if began is None else began
            waited = max(waited, response.received_at - began)  # answers take time too
            if waited >= MOST_POLLING:
                raise ProviderUnavailable(
                    f"the endpoint has been working on its answer for {waited:.0f} s ({response.status}).",
                    integration_id=self._integration.integration_id,
                    remedy="The next sync asks again.",
                    status=response.status,
                )
            if location := response.headers.get("location"):
                method, url, content = "GET", self._own(url, location), None
            asked_pause = parse_retry_after(response.headers.get("retry-after"), response.answered_at)
            pause = pause if asked_pause is None else min(max(asked_pause, SHORTEST_POLL), LONGEST_POLL)
            self._http.wait(pause)
            waited, pause = waited + pause, min(pause * 2, LONGEST_POLL)

    def _own(self, asked: str, told: str) -> str:
        """The URL that the answer from ``asked`` told, of the same host: what a server names elsewhere gets neither a
        request nor our credentials. A server behind a proxy may not know that it is asked over TLS."""
        try:
            url = urljoin(asked, told)
            ours, theirs = urlsplit(asked), urlsplit(url)
            if theirs.scheme == "http" and ours.scheme == "https" and theirs.port in (None, 80, ours.port):
                theirs = theirs._replace(scheme="https", netloc=theirs.hostname or "")
                theirs = theirs._replace(netloc=ours.netloc if theirs.hostname == ours.hostname else theirs.netloc)
            same = (theirs.scheme, theirs.hostname, _port(theirs)) == (ours.scheme, ours.hostname, _port(ours))
            whole = urlunsplit(theirs)
            httpx.URL(whole)
        except (ValueError, httpx.InvalidURL):
            raise self._misbehaved("its next page is at what is no address.") from None
        if not same or has_user(url):
            raise self._misbehaved("its next page is at another host, which was not followed.")
        return whole

    def _misbehaved(self, what: str) -> ProviderMisbehaved:
        return ProviderMisbehaved(
            what,
            integration_id=self._integration.integration_id,
            remedy="Correct `pagination`, or set `endpoint_url` to the address the API really answers at.",
        )


def parent_name(key: Any) -> str | None:
    """A parent's key as it goes into a URL; None for what is no step of a path of its own, and thus no key."""
    if type(key) not in (str, int) or key in ("", ".", ".."):
        return None
    name = str(key)
    return name if len(quote(name)) <= LONGEST_PARENT else None


def no_parent(integration: RuleIntegration) -> ProviderMisbehaved:
    parent = integration.rule.parent
    return ProviderMisbehaved(
        f"no parent record has a `{parent.key if parent else ''}` that can be part of a URL.",
        integration_id=integration.integration_id,
        remedy="Correct `parent.key` or `parent.data_path`.",
    )


_IN_A_HEADER = re.compile(r"[\x20-\x7e]*")
_USUAL = {202: "poll", 204: "empty"}


def _port(parts: Any) -> int | None:
    found: int | None = parts.port
    return found or {"http": 80, "https": 443}.get(parts.scheme)


def _with_query(url: str, query: Mapping[str, str]) -> str:
    if not query:
        return url
    parts = urlsplit(url)
    own = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in query]
    return urlunsplit(parts._replace(query=urlencode([*own, *query.items()])))


def _put(body: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy with the value at the path, e.g. ``variables.after``."""
    name, *rest = path
    below = body.get(name)
    return {**body, name: _put(below if isinstance(below, dict) else {}, rest, value) if rest else value}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
