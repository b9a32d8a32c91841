"""One portal of a served sandbox, for tests and benches that set it up, change it and know what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from churnguard_pipelines.sandbox.hubspot.access import SCOPES
from churnguard_pipelines.sandbox.hubspot.limits import Limits
from churnguard_pipelines.sandbox.hubspot.objects import rendered
from churnguard_pipelines.sandbox.hubspot.portal import Portal
from churnguard_pipelines.sandbox.hubspot.provider import CLIENT, HubSpot, change_limits, private_token

T = TypeVar("T")


class PortalHandle:
    """`token`: of the private app that may read everything. `client_id`, `client_secret`: of the public app."""

    def __init__(self, hubspot: HubSpot, account: str) -> None:
        self._hubspot, self._account = hubspot, account
        self.token = private_token(account)
        self.client_id, self.client_secret = CLIENT.id, CLIENT.secret
        self.id = self.act(lambda portal: portal.id)

    def act(self, action: Callable[[Portal], T]) -> T:
        """`action(portal)` under the lock. What it changes is not remembered over a restart."""
        with self._hubspot.world.lock:
            return action(self._hubspot.portal(self._account))

    # Tokens

    def token_without(self, *scopes: str) -> str:
        """Of another private app, which lacks these scopes."""
        token = private_token(self._account, scopes)
        self._hubspot.api.access.private_app(self.id, token, set(SCOPES) - set(scopes))
        return token

    def install(self, *, without: tuple[str, ...] = ()) -> str:
        """The public app is signed in once more; gives its refresh token."""
        return self._hubspot.api.access.install(CLIENT.id, self.id, set(SCOPES) - set(without))

    def revoke(self, token: str) -> None:
        """A private app's token, or a public app by its refresh token."""
        self._hubspot.api.access.revoke(token)

    def expire_tokens(self) -> None:
        """Every access token of OAuth, of every portal, has just run out."""
        self._hubspot.api.expire_tokens()

    def retire(self, version: str) -> None:
        """The dated version of the API answers no more."""
        self._hubspot.api.versions.discard(version)

    # Limits

    @property
    def limits(self) -> Limits:
        return self.act(lambda portal: portal.limits)

    def limit(self, **changes: Any) -> None:
        """`limit(searches=None, index_delay=3)`; see `limits.Limits`."""
        self.act(lambda portal: change_limits(portal.limits, changes))

    def unlimited(self) -> None:
        """As many requests as one likes."""
        self.limit(per_interval=None, per_interval_oauth=None, searches=None, daily=None)

    @property
    def refused(self) -> int:
        """How many requests were answered 429."""
        return self.act(lambda portal: self._hubspot.api.quota(portal).refused)

    # Reading

    def objects(self, type: str, *, archived: bool = False) -> list[dict[str, Any]]:
        """Every record, with every property, in the order of the ids."""

        def read(portal: Portal) -> list[dict[str, Any]]:
            table = portal.table(type)
            names = [each.name for each in table.properties.values() if each.archived_at is None]
            return [rendered(portal, each, names, []) for each in table.after(0) if portal.listed(each, archived)]

        return self.act(read)

    def associations(self, source: str, target: str) -> set[tuple[int, int, int]]:
        """(id, id, type id) of all associations between records that are not archived."""

        def read(portal: Portal) -> set[tuple[int, int, int]]:
            one, other = portal.table(source), portal.table(target)
            return {
                (record.id, id, kind.id)
                for record in one.records.values()
                if record.archived_at is None
                for id, kinds in portal.associations.of(one.type.name, record.id, other.type.name)
                if id in other.records and other.records[id].archived_at is None
                for kind in kinds
            }

        return self.act(read)

    # Webhooks

    def webhooks(self, url: str, secret: str) -> None:
        """The portal's events from now on go to `url`, signed with the app's secret."""
        self._hubspot.subscribe(self.act(lambda portal: portal), url, secret)

    @property
    def delivered(self) -> int:
        """How many events somebody has taken, of every portal; one that came twice counts twice."""
        return self._hubspot.webhooks.delivered
