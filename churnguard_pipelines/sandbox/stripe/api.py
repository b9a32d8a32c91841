"""Stripe's API over a business: authentication, lists with paging and filters, single objects, errors."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.entities import Entity, Event
from churnguard_pipelines.sandbox.business.record_list import RecordList
from churnguard_pipelines.sandbox.stripe import billing as stripe_billing
from churnguard_pipelines.sandbox.stripe import errors as stripe_errors
from churnguard_pipelines.sandbox.stripe.account import account, balance
from churnguard_pipelines.sandbox.stripe.events import KEPT
from churnguard_pipelines.sandbox.stripe.objects import Object
from churnguard_pipelines.sandbox.stripe.render import render
from churnguard_pipelines.sandbox.stripe.resources import BY_PATH, Resource, event_type_matches

PARAMETER = re.compile(r"^([a-z_]+)(?:\[([a-z0-9_]*)\])?$")
PAGING = ("limit", "starting_after", "ending_before", "expand")
RANGE = ("gt", "gte", "lt", "lte")
LONGEST_PAGE = 100
DEEPEST = 4  # levels of an expansion


@dataclass
class Parameters:
    """A query string taken apart: `a=1`, `a[]=1`, `a[0]=1` and `a[gte]=1`."""

    single: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)
    ranges: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, query: str) -> Parameters:
        parameters = cls()
        for name, value in parse_qsl(query, keep_blank_values=True):
            match = PARAMETER.match(name)
            if match is None:
                raise stripe_errors.unknown_parameter(name)
            base, inner = match.groups()
            if inner is None:
                parameters.single[base] = value
            elif inner == "" or inner.isdecimal():
                parameters.many.setdefault(base, []).append(value)
            else:
                parameters.ranges.setdefault(base, {})[inner] = value
        return parameters

    def allow(self, single: Sequence[str], many: Sequence[str] = ("expand",), ranges: Sequence[str] = ()) -> None:
        for given, allowed in ((self.single, single), (self.many, many), (self.ranges, ranges)):
            for name in given:
                if name not in allowed:
                    raise stripe_errors.unknown_parameter(name)

    def integer(self, name: str, value: str) -> int:
        if not re.fullmatch(r"-?\d{1,15}", value):
            raise stripe_errors.not_an_integer(name, value)
        return int(value)

    def limit(self) -> int:
        limit = self.integer("limit", self.single.get("limit", "10"))
        if not 1 <= limit <= LONGEST_PAGE:
            bound = "less than or equal to 100" if limit > LONGEST_PAGE else "greater than or equal to 1"
            message = f"This value must be {bound} (it currently is '{limit}')."
            raise stripe_errors.Refusal(400, message, "parameter_invalid_integer", "limit")
        return limit

    def created(self) -> tuple[int | None, int | None]:
        """[since, before) in seconds."""
        since: int | None = None
        before: int | None = None
        if "created" in self.single:
            since = self.integer("created", self.single["created"])
            before = since + 1
        for name, value in self.ranges.get("created", {}).items():
            if name not in RANGE:
                raise stripe_errors.unknown_parameter(f"created[{name}]")
            at = self.integer(f"created[{name}]", value)
            if name in ("gt", "gte"):
                since = max(at + (name == "gt"), at if since is None else since)
            else:
                end = at + (name == "lte")
                before = end if before is None else min(end, before)
        return since, before

    def expanded(self, within: str = "") -> frozenset[str]:
        """The paths to expand, in each entry of a list for `within` "data.". docs.stripe.com/expand#how-it-works"""
        paths = self.many.get("expand", ())
        if any(path.count(".") >= DEEPEST for path in paths):
            message = f"You cannot expand more than {DEEPEST} levels of a property."
            raise stripe_errors.Refusal(400, message, "property_expansion_max_depth", "expand")
        return frozenset(path.removeprefix(within) for path in paths if path.startswith(within))


@dataclass(frozen=True)
class Key:
    """An API key: whose objects it reads, and which lists it may not."""

    value: str
    business: Business
    forbidden: frozenset[str] = frozenset()


def key_in(headers: Mapping[str, str]) -> str:
    """The API key of a request: `Bearer key`, or `Basic` with the key as the user's name."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            value = b64decode(value, validate=True).decode().partition(":")[0]
        except ValueError:
            value = ""
    if not value.strip() or scheme.lower() not in ("bearer", "basic"):
        raise stripe_errors.no_key()
    return value.strip()


def answer(key: Key, path: str, query: str, now: int) -> bytes:
    """The body of `GET path?query`. Refusal where Stripe would refuse."""
    business = key.business
    parameters = Parameters.parse(query)
    parts = path.removeprefix("/v1/").split("/")
    if path == "/v1/account":
        parameters.allow(("expand",))
        return orjson.dumps(account(business))
    if path == "/v1/balance":
        _permit(key, "balance", "rak_balance_read")
        parameters.allow(("expand",))
        return orjson.dumps(balance(business, now))
    if path == "/v1/subscription_items":
        return _subscription_items(key, parameters)
    if len(parts) == 3 and (parts[0], parts[2]) == ("invoices", "lines"):
        return _invoice_lines(key, parts[1], parameters)
    taken = 2 if parts[0] == "checkout" else 1
    resource = BY_PATH.get("/".join(parts[:taken]))
    if resource is None or len(parts) > taken + 1:
        raise stripe_errors.unknown_url("GET", path)
    _permit(key, resource.path, resource.permission)
    if len(parts) == taken:
        return _list(business, resource, parameters, now)
    return _single(business, resource, parts[taken], parameters, now)


def _permit(key: Key, path: str, permission: str) -> None:
    if path in key.forbidden:
        raise stripe_errors.permission_missing(key.value, key.business.profile.account, permission)


def _shown(record: Entity, now: int, expand: Collection[str]) -> Any:
    return orjson.Fragment(record.body) if isinstance(record, Event) else render(record, now, expand)


def _single(business: Business, resource: Resource, id: str, parameters: Parameters, now: int) -> bytes:
    parameters.allow(("expand",))
    record = resource.records(business).get(id)
    if record is None or (isinstance(record, Event) and record.created < now - KEPT):
        raise stripe_errors.missing(resource.noun, id)
    if record.deleted:
        if resource.path == "customers":
            return orjson.dumps({"id": id, "object": "customer", "deleted": True})
        raise stripe_errors.missing(resource.noun, id)
    return orjson.dumps(_shown(record, now, parameters.expanded()))


def _list(business: Business, resource: Resource, parameters: Parameters, now: int) -> bytes:
    many = ("expand", "types") if resource.path == "events" else ("expand",)
    parameters.allow((*PAGING, "created", *resource.filters), many, ("created",))
    limit = parameters.limit()
    listed = resource.records(business)
    low, high = listed.places(*parameters.created())
    if resource.path == "events":
        low = max(low, listed.places(now - KEPT, None)[0])
    wanted = _wanted(resource, parameters)
    after, before = parameters.single.get("starting_after"), parameters.single.get("ending_before")
    if after and before:
        message = "Received both starting_after and ending_before parameters. Please pass in only one."
        raise stripe_errors.Refusal(400, message, "parameters_exclusive")
    if before:
        low = max(low, _place(listed, resource, before, "ending_before") + 1)
        records = listed.up(low, high, wanted, limit + 1)
        records, has_more = records[-limit:], len(records) > limit
    else:
        if after:
            high = min(high, _place(listed, resource, after, "starting_after"))
        records = listed.down(low, high, wanted, limit + 1)
        records, has_more = records[:limit], len(records) > limit
    expand = parameters.expanded("data.")
    return _page(f"/v1/{resource.path}", [_shown(record, now, expand) for record in records], has_more)


def _place(listed: RecordList[Any], resource: Resource, id: str, parameter: str) -> int:
    record = listed.get(id)
    if record is None or record.deleted:
        raise stripe_errors.missing(resource.noun, id, parameter)
    return int(record.place)


def _wanted(resource: Resource, parameters: Parameters) -> Callable[[Any], bool]:
    tests = [(test, parameters.single[name]) for name, test in resource.filters.items() if name in parameters.single]
    if resource.path == "subscriptions" and "status" not in parameters.single:
        return lambda record: record.status != "canceled" and all(test(record, value) for test, value in tests)
    if types := parameters.many.get("types"):
        return lambda record: any(event_type_matches(wanted, record.type) for wanted in types)
    if not tests:
        return lambda record: True
    return lambda record: all(test(record, value) for test, value in tests)


def _page(url: str, data: list[Any], has_more: bool) -> bytes:
    return orjson.dumps({"object": "list", "data": data, "has_more": has_more, "url": url})


def _subscription_items(key: Key, parameters: Parameters) -> bytes:
    _permit(key, "subscriptions", "rak_subscription_read")
    parameters.allow((*PAGING, "subscription"))
    id = parameters.single.get("subscription")
    if not id:
        raise stripe_errors.Refusal(400, "Missing required param: subscription.", "parameter_missing", "subscription")
    subscription = key.business.subscriptions.get(id)
    if subscription is None:
        raise stripe_errors.missing("subscription", id, "subscription")
    entries = [stripe_billing.subscription_item(subscription, item) for item in subscription.items]
    return _entries("/v1/subscription_items", entries, parameters)


def _invoice_lines(key: Key, id: str, parameters: Parameters) -> bytes:
    _permit(key, "invoices", "rak_invoice_read")
    parameters.allow(PAGING)
    invoice = key.business.invoices.get(id)
    if invoice is None or invoice.deleted:
        raise stripe_errors.missing("invoice", id)
    entries = [stripe_billing.line(line, invoice.id, invoice.currency) for line in invoice.lines]
    return _entries(f"/v1/invoices/{id}/lines", entries, parameters)


def _entries(url: str, entries: list[Object], parameters: Parameters) -> bytes:
    """A page of a list inside an object, in the object's own order."""
    first, limit = 0, parameters.limit()
    if after := parameters.single.get("starting_after"):
        places = [place for place, entry in enumerate(entries) if entry["id"] == after]
        if not places:
            raise stripe_errors.missing("line item", after, "starting_after")
        first = places[0] + 1
    return _page(url, entries[first : first + limit], first + limit < len(entries))
