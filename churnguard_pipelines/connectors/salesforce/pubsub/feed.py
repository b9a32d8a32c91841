"""Follows an organization's change events, all objects' in one order.

A position is ``{"replay", "since"}``. ``replay``: the opaque id of what was told last, in base64; null where there is
none (yet, or any more): it then goes on with what comes, and all that happened since is lost to it. ``since``: up to
when, by Salesforce's clock, everything was told.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from churnguard_pipelines.connectors.salesforce import soql
from churnguard_pipelines.connectors.salesforce.pubsub.change_events import ChangeEvent, Schema, Unreadable
from churnguard_pipelines.connectors.salesforce.pubsub.client import (
    ADDRESS,
    Client,
    Ended,
    Subscription,
    address_of,
    words_of,
)
from churnguard_pipelines.connectors.sdk.event_feed import EventBatch, EventFeed
from churnguard_pipelines.engine.addresses import guard_of
from churnguard_pipelines.engine.server_messages import repeated
from churnguard_pipelines.errors import (
    AuthenticationFailed,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
    RequestRefused,
)
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

CHANNEL = "/data/ChangeEvents"
"""Of all objects that are chosen under Change Data Capture."""
REACH = timedelta(minutes=15)
"""A change is stamped when it is made and told when its transaction ends, which may take as long."""
SILENCE = 330.0
"""Seconds without a word, where Salesforce sends one within 270, after which the connection is taken for dead."""
MOST_SCHEMAS = 500
PACE = 0.4
"""Seconds between batches at least."""
MOST_TOGETHER = 300
"""Events in a batch, about: as many records are asked for in one call."""

_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED)
_FORBIDDEN = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND)
_GRANT = (
    "Choose the objects under Setup → Change Data Capture, and give the integration's user “View All Data” (and “View "
    "All Users”, if User is one of them)."
)


class ChangeFeed(EventFeed):
    """``sign_in``: opens a client with a session that Salesforce takes now, renewed if need be; ``now``: Salesforce's
    clock."""

    def __init__(
        self,
        integration: IntegrationConfiguration,
        sign_in: Callable[[], Client],
        now: Callable[[], datetime],
        position: Position,
    ) -> None:
        self._integration_id = integration.integration_id
        self._shown = not guard_of(integration).restricted or address_of(integration) == ADDRESS
        self._sign_in = sign_in
        self._now = now
        self._schemas: dict[str, Schema] = {}
        self._replay = _replay_of(position)
        self._since = datetime.fromisoformat(position["since"])
        self._lost = self._replay is None
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._failure: Exception | None = None
        self._heard = self._handed_over = 0.0
        self._renewed = False  # since the last answer that was understood

    def read(self, timeout: float) -> EventBatch | None:
        try:
            answers = self._gathered(timeout)
            if answers:
                batch = self._batch(answers)
                self._renewed = False
                return batch
            self._refuse_silence()
        except grpc.RpcError as error:
            self.close()
            self._judge(error)
        except Ended:
            self.close()
            raise self._error(ProviderUnavailable, "has ended the subscription", "") from None
        return None

    def close(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        if self._client is not None:
            self._client.close()
        self._subscription = self._client = self._failure = None

    def _opened(self) -> Subscription:
        if self._subscription is None:
            self._client = self._sign_in()
            self._subscription = self._client.subscribe(CHANNEL, self._replay)
            self._heard = time.monotonic()
        return self._subscription

    def _gathered(self, timeout: float) -> list[Any]:
        """A change after some quiet comes at once; of many that follow each other, those of a while together, since
        each batch costs calls."""
        subscription = self._opened()
        if self._failure is not None:
            raise self._failure
        answer = subscription.read(timeout)
        found = [answer] if answer is not None else []
        enough = self._handed_over + PACE
        try:
            while found and sum(len(each.events) for each in found) < MOST_TOGETHER:
                left = enough - time.monotonic()
                if left <= 0 or (answer := subscription.read(left)) is None:
                    break
                found.append(answer)
        except (grpc.RpcError, Ended) as error:  # what came before is stored first
            self._failure = error
        if found:
            self._heard = time.monotonic()
        if any(each.events for each in found):
            self._handed_over = time.monotonic()
        return found

    def _batch(self, answers: Sequence[Any]) -> EventBatch:
        """Where an event cannot be understood, all may have changed."""
        lost, told = self._lost, []
        for answer in answers:
            for each in answer.events:
                try:
                    told.append(self._schema(each.event.schema_id).read(each.event.payload))
                except Unreadable:
                    lost = True
        at = datetime.fromtimestamp(told[-1].at / 1000, UTC) if told else None
        reach = self._since - REACH
        self._replay, self._lost = bytes(answers[-1].latest_replay_id), False
        self._since = min(at, self._now()) if at else self._now()  # what it says of times to come is never made up for
        return EventBatch(
            {"replay": base64.b64encode(self._replay).decode(), "since": soql.moment(self._since)},
            [_as_event(each) for each in told if each.ids],
            _gaps(told),
            reach if lost else None,
            at,
        )

    def _schema(self, id: str) -> Schema:
        """Kept: Salesforce gives every state of an object's fields another id."""
        if id not in self._schemas:
            if len(self._schemas) >= MOST_SCHEMAS:
                self._schemas.clear()
            assert self._client is not None
            try:
                text = self._client.schema(id)
            except grpc.RpcError as error:
                if words_of(error)[0] != grpc.StatusCode.NOT_FOUND:
                    raise
                raise Unreadable("a schema that is not there") from None
            self._schemas[id] = Schema(text)
        return self._schemas[id]

    def _refuse_silence(self) -> None:
        if time.monotonic() - self._heard > SILENCE:
            self.close()
            raise self._error(ProviderUnavailable, f"said nothing for {SILENCE:.0f} s", "")

    def _judge(self, error: grpc.RpcError) -> None:
        """Returns where it is worth going on at once."""
        code, words = words_of(error)
        if code == grpc.StatusCode.UNAUTHENTICATED and not self._renewed:
            self._renewed = True  # the session has ended; signing in renews it
            return
        if code == grpc.StatusCode.INVALID_ARGUMENT and "replayid" in words.lower() and self._replay is not None:
            self._replay, self._lost = None, True  # older than the three days that Salesforce keeps
            return
        if code == grpc.StatusCode.UNAUTHENTICATED:
            raise self._error(AuthenticationFailed, "does not take the session", words)
        if code in _FORBIDDEN:
            raise self._error(PermissionMissing, "gives no change events to the integration's user", words, _GRANT)
        if code in _REFUSED:
            raise self._error(RequestRefused, "refuses the subscription", words)
        raise self._error(ProviderUnavailable, f"has ended the subscription ({code.name.lower()})", words)

    def _error(self, kind: type[ProviderError], what: str, words: str, remedy: str | None = None) -> ProviderError:
        quote = repeated(self._integration_id, words, shown=self._shown)
        return kind(
            f"Salesforce's Pub/Sub API {what}{quote}.",
            integration_id=self._integration_id,
            remedy=remedy or "It is tried again; syncs go on as before.",
        )


def unfollowed(client: Client, objects: Sequence[str]) -> dict[str, str]:
    """Why an object's changes are not told, by its name. Raises ``ProviderUnavailable``."""
    found: dict[str, str] = {}
    for name in objects:
        own = name.endswith("__c")
        try:
            if client.topic(f"/data/{name.removesuffix('c') if own else name}ChangeEvent").can_subscribe:
                continue
        except grpc.RpcError as error:
            code, _ = words_of(error)
            if code not in (*_FORBIDDEN, grpc.StatusCode.INVALID_ARGUMENT):
                raise ProviderUnavailable(f"Salesforce's Pub/Sub API does not answer ({code.name.lower()}).") from None
        found[name] = "it has no change events for the integration's user, so syncs alone read it."
    return found


def _gaps(told: list[ChangeEvent]) -> dict[str, datetime]:
    """Objects of which too much changed to say what, and since when."""
    found: dict[str, datetime] = {}
    for each in told:
        if not each.ids:
            at = datetime.fromtimestamp(each.at / 1000, UTC) - REACH
            found[each.object] = min(at, found.get(each.object, at))
    return found


def _as_event(each: ChangeEvent) -> Mapping[str, Any]:
    return {"object": each.object, "change": each.doing, "ids": each.ids, "at": each.at, "changed": each.changed}


def _replay_of(position: Position) -> bytes | None:
    """None for one that cannot be read: all is lost since then."""
    told = position.get("replay")
    try:
        return base64.b64decode(told, validate=True) if told else None
    except (binascii.Error, ValueError):
        return None
