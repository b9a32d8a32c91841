"""The API's paths: which endpoint answers, in which version, and with which scope.

Every family stands under its old path and under dated ones: /crm/v3/objects/contacts and /crm/objects/2026-03/contacts
are one endpoint. https://developers.hubspot.com/docs/developer-tooling/platform/versioning
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import orjson

from churnguard_pipelines.sandbox.answers import Answer
from churnguard_pipelines.sandbox.hubspot import definitions, errors, links, marketing_api, objects
from churnguard_pipelines.sandbox.hubspot.access import Access
from churnguard_pipelines.sandbox.hubspot.limits import Quota
from churnguard_pipelines.sandbox.hubspot.portal import Portal, Table
from churnguard_pipelines.sandbox.hubspot.requests import Request
from churnguard_pipelines.sandbox.hubspot.search import Searches

PREFIXES = ("/crm/", "/crm-object-schemas/", "/oauth/", "/marketing/", "/account-info/", "/form-integrations/")
VERSIONS = ("2025-09", "2026-03", "2026-09")
_SCHEMA_SCOPES = {
    "contacts": "crm.schemas.contacts.read",
    "companies": "crm.schemas.companies.read",
    "deals": "crm.schemas.deals.read",
}
Made = tuple[int, Any]


@dataclass
class _Account:
    portal: Portal
    quota: Quota
    searches: Searches


@dataclass
class Api:
    """Every portal of a sandbox. `versions`: the dated ones that answer; one that is taken out is retired."""

    access: Access = field(default_factory=Access)
    versions: set[str] = field(default_factory=lambda: set(VERSIONS))
    _accounts: dict[int, _Account] = field(default_factory=dict)

    def add(self, portal: Portal) -> None:
        self._accounts[portal.id] = _Account(portal, Quota(portal.limits), Searches(portal))

    def expire_tokens(self) -> None:
        self.access.expire_all(_wall())

    def quota(self, portal: Portal) -> Quota:
        return self._accounts[portal.id].quota

    def portal_of(self, headers: Mapping[str, str]) -> Portal | None:
        """Whose token it is, where it is one."""
        try:
            return self._accounts[self.access.app(headers, _wall()).portal].portal
        except errors.Refusal:
            return None

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Its Date is the portal's present, or the wall clock's where no portal answers."""
        now = _wall()
        try:
            if path.startswith("/oauth/"):
                answer = self._sign_in(method, path, query, body)
            else:
                app = self.access.app(headers, now)
                account = self._accounts[app.portal]
                now = account.portal.clock()
                request = Request(method, (), path, Request.query_of(query), body, account.portal, app)
                answer = self._answer(request, account, len(path) + len(query))
        except errors.Refusal as refusal:
            answer = Answer(refusal.status, refusal.body, dict(refusal.headers))
        answer.headers["date"] = formatdate(now // 1000, usegmt=True)
        answer.headers["x-hubspot-correlation-id"] = errors.correlation_id()
        return answer

    def _answer(self, request: Request, account: _Account, length: int) -> Answer:
        """What was asked for, or why not, with what is left of the budgets. Refusal where it came to nothing."""
        if length > account.portal.limits.longest_url:
            raise errors.url_too_long()
        left = account.quota.spend(request.app.name, request.app.oauth, request.asked)
        try:
            request.path = self._canonical(request.asked)
            status, made = _route(request, account)
            answer = Answer(status, orjson.dumps(made), {"content-type": "application/json;charset=utf-8"})
        except errors.Refusal as refusal:
            answer = Answer(refusal.status, refusal.body, dict(refusal.headers))
        answer.headers.update(left)
        return answer

    def _canonical(self, path: str) -> tuple[str, ...]:
        """The path's segments in v3's order, v4's for associations. Refusal where there is no such version."""
        parts = tuple(part for part in path.split("/") if part)
        if parts[0] == "crm-object-schemas" and len(parts) > 2:
            self._known(parts[1])
            return ("crm", "v3", *parts[2:])
        if parts[0] == "account-info" and len(parts) > 2:
            self._known(parts[1])
            return ("account-info", "v3", *parts[2:])
        if parts[0] in ("crm", "marketing") and len(parts) > 2 and parts[1] not in ("v3", "v4"):
            self._known(parts[2])
            version = "v4" if parts[1] == "associations" else "v3"
            return (parts[0], version, parts[1], *parts[3:])
        return parts

    def _known(self, version: str) -> None:
        if version != "v3" and version not in self.versions:
            raise errors.no_resource()

    # Signing in

    def _sign_in(self, method: str, path: str, query: str, body: bytes) -> Answer:
        """The token endpoint, what a token is, and the page on which a user consents: here everyone does."""
        parts = path.strip("/").split("/")
        if method == "POST" and parts[-1] == "token":
            form = dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
            return Answer(200, orjson.dumps(self.access.token(form, _wall())))
        if method == "GET" and len(parts) == 4 and parts[2] == "access-tokens":
            return Answer(200, orjson.dumps(self.access.about(parts[3], _wall())))
        if method == "DELETE" and len(parts) == 4 and parts[2] == "refresh-tokens":
            self.access.revoke(parts[3])
            return Answer(204, b"")
        if method == "GET" and parts[-1] == "authorize":
            portal = int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else next(iter(self._accounts))
            where = self.access.authorize(portal, dict(parse_qsl(query, keep_blank_values=True)), _wall())
            return Answer(302, b"", {"location": where})
        raise errors.no_resource()


def _wall() -> int:
    """Tokens age by the clock on the wall, whatever the simulated business's says."""
    return int(time.time() * 1000)


def _route(request: Request, account: _Account) -> Made:
    family, *rest = request.path
    if family == "crm" and len(rest) > 1:
        return _crm(request, account, rest[1], rest[2:])
    if request.method == "GET":
        if family == "marketing" and len(rest) > 1:
            return 200, _marketing(request, rest[1], rest[2:])
        if family == "account-info":
            return 200, _account_info(request, account, rest[1:])
        if family == "form-integrations" and rest[:3] == ["v1", "submissions", "forms"] and len(rest) == 4:
            request.app.need("forms")
            return 200, marketing_api.submissions(request, rest[3])
    raise errors.no_resource()


def _crm(request: Request, account: _Account, name: str, rest: list[str]) -> Made:
    portal, app, method = request.portal, request.app, request.method
    match method, name, rest:
        case "GET", "objects", [kind, id, "associations", other]:
            return 200, links.of_one(request, _readable(request, kind), id, portal.table(other))
        case _, "objects", [kind, *more]:
            return _objects(request, account, _readable(request, kind), more)
        case "POST", "associations", [one, other, "batch", "read"]:
            return links.associated(request, _readable(request, one), _readable(request, other))
        case "GET", "associations", [one, other, "labels"]:
            return 200, links.labels(portal, _readable(request, one), _readable(request, other))
        case "GET", "properties", [kind]:
            return 200, definitions.properties(request, _described(request, kind))
        case "GET", "properties", [kind, wanted]:
            return 200, definitions.one_property(_described(request, kind), wanted)
        case "GET", "pipelines", [kind]:
            return 200, definitions.pipelines(portal, _readable(request, kind))
        case "GET", "pipelines", [kind, id, *stages]:
            return 200, definitions.pipeline(portal, _readable(request, kind), id, bool(stages))
        case "GET", "owners", []:
            app.need("crm.objects.owners.read")
            return 200, definitions.owners(request)
        case "GET", "owners", [id]:
            app.need("crm.objects.owners.read")
            return 200, definitions.owner(portal, id)
        case "GET", "schemas", []:
            app.need("crm.schemas.custom.read")
            return 200, definitions.schemas(portal)
        case "GET", "schemas", [kind]:
            app.need("crm.schemas.custom.read")
            return 200, definitions.schema(portal, portal.table(kind))
        case "POST", "lists", ["search"]:
            app.need("crm.lists.read")
            return 200, links.lists(request)
        case "GET", "lists", [id]:
            app.need("crm.lists.read")
            return 200, links.one_list(portal, id)
        case "GET", "lists", [id, "memberships", *_]:
            app.need("crm.lists.read")
            return 200, links.members(request, id)
    raise errors.no_resource()


def _objects(request: Request, account: _Account, table: Table, rest: list[str]) -> Made:
    match request.method, rest:
        case "GET", []:
            return 200, objects.listed(request, table)
        case "POST", ["batch", "read"]:
            return objects.batch(request, table)
        case "POST", ["search"]:
            return 200, objects.searched(request, table, account.searches)
        case "GET", [id]:
            return 200, objects.one(request, table, id)
    raise errors.no_resource()


def _marketing(request: Request, name: str, rest: list[str]) -> Any:
    app = request.app
    match name, rest:
        case "forms", []:
            app.need("forms")
            return marketing_api.forms(request)
        case "emails", []:
            app.need("content")
            return marketing_api.emails(request)
        case "emails", ["statistics", "list"]:
            app.need("content")
            return marketing_api.statistics(request)
        case "emails", [id]:
            app.need("content")
            return marketing_api.email(request, id)
        case "emails", [id, "statistics"]:
            app.need("content")
            return marketing_api.email_statistics(request, id)
        case "campaigns", []:
            app.need("marketing.campaigns.read")
            return marketing_api.campaigns(request)
        case "campaigns", [id]:
            app.need("marketing.campaigns.read")
            return marketing_api.campaign(request, id)
        case "marketing-events", []:
            app.need("crm.objects.marketing_events.read")
            return marketing_api.events(request)
        case "marketing-events", [id]:
            app.need("crm.objects.marketing_events.read")
            return marketing_api.event(request, id)
    raise errors.no_resource()


def _account_info(request: Request, account: _Account, rest: list[str]) -> Any:
    match rest:
        case ["details"]:
            return definitions.account(request.portal)
        case ["api-usage", "daily", "private-apps"]:
            return definitions.usage(request.portal, account.quota)
    raise errors.no_resource()


def _readable(request: Request, kind: str) -> Table:
    table = request.portal.table(kind)
    request.app.need(table.type.scope)
    return table


def _described(request: Request, kind: str) -> Table:
    """Whoever may read a type's records may read what they look like, too."""
    table = request.portal.table(kind)
    schema = _SCHEMA_SCOPES.get(table.type.name)
    request.app.need(table.type.scope, *([schema] if schema else []))
    return table
