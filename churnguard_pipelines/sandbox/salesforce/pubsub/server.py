"""The gRPC service: GetTopic, GetSchema, Subscribe; on a loopback port of its own, without TLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import grpc

from churnguard_pipelines.sandbox.business.crm import Change, Crm
from churnguard_pipelines.sandbox.salesforce.errors import Refusal
from churnguard_pipelines.sandbox.salesforce.oauth import Grants
from churnguard_pipelines.sandbox.salesforce.objects import BY_NAME, SObject
from churnguard_pipelines.sandbox.salesforce.org import User
from churnguard_pipelines.sandbox.salesforce.pubsub.events import (
    PUBLISHED,
    Event,
    Layout,
    disturbed,
    events_of,
    topic_of,
)
from churnguard_pipelines.sandbox.salesforce.pubsub.messages import MESSAGES, PACKAGE
from churnguard_pipelines.sandbox.world import World

KEPT = 72 * 3_600_000  # milliseconds
MOST = 100  # events in one fetch
ALL = "/data/ChangeEvents"
CODES = "sfdc.platform.eventbus.grpc."
TOPICS = {topic_of(BY_NAME[name.lower()]): name for name in PUBLISHED}


class _Abort(Exception):
    def __init__(self, status: grpc.StatusCode, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, CODES + code


def _bad_replay() -> _Abort:
    return _Abort(
        grpc.StatusCode.INVALID_ARGUMENT,
        "subscription.fetch.replayid.validation.failed",
        "The Replay ID validation failed. Ensure that the Replay ID is valid.",
    )


@dataclass
class Disturbance:
    """From change number `since` on up to `until`, events are gaps, or one overflow an object."""

    how: Literal["gap", "overflow"]
    since: int
    until: int | None = None


@dataclass
class Feed:
    """What an organization publishes."""

    crm: Crm
    forgotten: int = 0  # events up to this number are out of reach
    disturbances: list[Disturbance] = field(default_factory=list)
    subscriptions: set[Subscription] = field(default_factory=set)
    schemas: dict[str, str] = field(default_factory=dict)
    _layouts: dict[tuple[Any, ...], Layout] = field(default_factory=dict)

    def wake(self, change: Change | None = None) -> None:
        for each in list(self.subscriptions):
            each.waker.set()

    @property
    def end(self) -> int:
        """The number of the next event."""
        return 2 * len(self.crm.changes)

    def earliest(self) -> int:
        old = self.crm.now - KEPT
        low = next((change.number for change in self.crm.changes if change.at >= old), len(self.crm.changes))
        return max(2 * low, self.forgotten)

    def events(self, since: int, most: int, wanted: str | None) -> tuple[list[Event], int]:
        """Up to `most` events from number `since` on, and the number up to which these are all."""
        found: list[Event] = []
        for place in range(since // 2, len(self.crm.changes)):
            for event in events_of(self.crm, self.crm.changes[place]):
                shown = self._shown(event)
                if event.number >= since and shown and wanted in (None, event.entity.name):
                    found.append(shown)
                    if len(found) == most:
                        return found, event.number + 1
        return found, self.end

    def _shown(self, event: Event) -> Event | None:
        place = event.number // 2
        for each in self.disturbances:
            if each.since <= place and (each.until is None or place < each.until):
                before = self.crm.changes[each.since : place]
                return disturbed(event, each.how, {e.entity.name for c in before for e in events_of(self.crm, c)})
        return event

    def layout(self, entity: SObject) -> Layout:
        key = (entity.name, *((each.name, each.type) for each in self.crm.fields[entity.kinds[0]]))
        if key not in self._layouts:
            made = self._layouts[key] = Layout(self.crm, entity)
            self.schemas[made.schema_id] = made.json
        return self._layouts[key]


class PubSub:
    """`keep_alive`: seconds after which a quiet subscription hears that it is. `target`: host:port."""

    def __init__(self, world: World, grants: Grants, port: int = 0, keep_alive: float = 270) -> None:
        self._world, self._grants = world, grants
        self.keep_alive = keep_alive
        self._feeds: dict[str, Feed] = {}
        self._numbers = count(1)
        self._closing = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(64, "salesforce-pubsub"))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        self._server.start()

    def close(self) -> None:
        self._closing.set()
        for feed in self._feeds.values():
            feed.wake()
        self._server.stop(0).wait()

    # What tests do to it

    def subscribers(self, account: str) -> int:
        with self._world.lock:
            return len(self._feed(account).subscriptions)

    def forget(self, account: str) -> None:
        """What happened so far is out of reach: replay ids of it are expired."""
        with self._world.lock:
            feed = self._feed(account)
            feed.forgotten = feed.end

    def disturb(self, account: str, how: Literal["gap", "overflow"]) -> None:
        """From now on only gap events, or overflow events, until `calm`."""
        with self._world.lock:
            feed = self._feed(account)
            feed.disturbances.append(Disturbance(how, len(feed.crm.changes)))

    def calm(self, account: str) -> None:
        with self._world.lock:
            feed = self._feed(account)
            for each in feed.disturbances:
                each.until = len(feed.crm.changes) if each.until is None else each.until

    def drop(self, account: str) -> None:
        """Every subscription breaks off, as when Salesforce restarts a server."""
        with self._world.lock:
            for each in self._feed(account).subscriptions:
                each.broken = True
                each.waker.set()

    # The service

    def _handlers(self) -> grpc.GenericRpcHandler:
        unary = {"GetTopic": (self._topic, "TopicRequest"), "GetSchema": (self._schema, "SchemaRequest")}
        made = {
            name: grpc.unary_unary_rpc_method_handler(
                self._guarded(call), MESSAGES[asks].FromString, lambda message: message.SerializeToString()
            )
            for name, (call, asks) in unary.items()
        }
        made["Subscribe"] = grpc.stream_stream_rpc_method_handler(
            self._subscribe, MESSAGES["FetchRequest"].FromString, lambda message: message.SerializeToString()
        )
        return grpc.method_handlers_generic_handler(f"{PACKAGE}.PubSub", made)

    def _guarded(self, call: Callable[[Any, User], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return call(request, self._who(context))
            except _Abort as abort:
                _end(context, abort)

        return answer

    def _who(self, context: grpc.ServicerContext) -> User:
        told = dict(context.invocation_metadata())
        missing = {"accesstoken", "instanceurl", "tenantid"} - set(told)
        try:
            if missing:
                raise Refusal(401, "", "")
            with self._world.lock:
                return self._grants.who(str(told["accesstoken"]))
        except Refusal:
            message = (
                "An authentication exception occurred. Provide valid authorization credentials via metadata headers."
            )
            raise _Abort(grpc.StatusCode.UNAUTHENTICATED, "service.auth.error", message) from None

    def _feed(self, account: str) -> Feed:
        crm = self._world.crm(account)
        if account not in self._feeds:
            self._feeds[account] = Feed(crm)
            crm.listeners.append(self._feeds[account].wake)
        return self._feeds[account]

    def _entity(self, topic: str, user: User) -> str | None:
        """The object of a topic, None for all of them."""
        name = TOPICS.get(topic)
        if topic != ALL and (name is None or name in user.without):
            message = f"The specified topic {topic} wasn't found. Check that the topic exists and that you have access."
            raise _Abort(grpc.StatusCode.NOT_FOUND, "topic.not.found", message)
        return name

    def _topic(self, request: Any, user: User) -> Any:
        name = self._entity(request.topic_name, user)
        with self._world.lock:
            feed = self._feed(user.account)
            schema = ""
            if name is not None:
                schema = feed.layout(BY_NAME[name.lower()]).schema_id
        return MESSAGES["TopicInfo"](
            topic_name=request.topic_name,
            tenant_guid=f"core/sandbox/{user.account}",
            can_publish=False,
            can_subscribe=True,
            schema_id=schema,
            rpc_id=self._rpc_id(),
        )

    def _schema(self, request: Any, user: User) -> Any:
        with self._world.lock:
            found = self._feed(user.account).schemas.get(request.schema_id)
        if found is None:
            raise _Abort(grpc.StatusCode.NOT_FOUND, "schema.not.found", "The schema ID wasn't found.")
        return MESSAGES["SchemaInfo"](schema_json=found, schema_id=request.schema_id, rpc_id=self._rpc_id())

    def _subscribe(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from Subscription(self, requests, context).responses()
        except _Abort as abort:
            _end(context, abort)

    def _rpc_id(self) -> str:
        return f"sandbox-rpc-{next(self._numbers)}"


class Subscription:
    """One Subscribe call: what it asked for and has not got, and where it is."""

    def __init__(self, service: PubSub, requests: Iterator[Any], context: grpc.ServicerContext) -> None:
        self._service, self._context = service, context
        self._user = service._who(context)
        self._requests = requests
        self.waker = threading.Event()
        self.broken = False
        self._pending = 0
        self._ended = False  # the client asks for nothing more
        self._problem: _Abort | None = None
        self._topic: str | None = None

    def responses(self) -> Iterator[Any]:
        first = next(self._requests, None)
        if first is None:
            return
        wanted = self._service._entity(first.topic_name, self._user)
        self._topic = first.topic_name
        self._take(first)
        with self._service._world.lock:
            feed = self._service._feed(self._user.account)
            at = self._start(feed, first)
            feed.subscriptions.add(self)
        threading.Thread(target=self._listen, daemon=True).start()
        quiet = time.monotonic()
        try:
            while self._context.is_active() and not self._service._closing.is_set():
                self.waker.clear()
                self._service._who(self._context)  # a session that ends takes its subscriptions along
                if self._problem is not None:
                    raise self._problem
                if self.broken:
                    raise _Abort(grpc.StatusCode.UNAVAILABLE, "service.unavailable", "Server shutting down")
                with self._service._world.lock:
                    events, at = feed.events(at, min(self._pending, MOST), wanted) if self._pending else ([], at)
                    told = [self._consumer(feed, event) for event in events]
                if told:
                    self._pending -= len(told)
                if told or time.monotonic() - quiet >= self._service.keep_alive:
                    quiet = time.monotonic()
                    yield MESSAGES["FetchResponse"](
                        events=told,
                        latest_replay_id=replay_id(at - 1),
                        rpc_id=self._service._rpc_id(),
                        pending_num_requested=self._pending,
                    )
                elif self._ended and not self._pending:
                    return
                else:
                    self.waker.wait(max(0.01, self._service.keep_alive - (time.monotonic() - quiet)))
        finally:
            feed.subscriptions.discard(self)

    def _start(self, feed: Feed, first: Any) -> int:
        if first.replay_preset == 0:
            return feed.end
        if first.replay_preset == 1:
            return feed.earliest()
        if len(first.replay_id) != 8:
            raise _bad_replay()
        at = int.from_bytes(first.replay_id, "big") - REPLAY + 1
        if not feed.earliest() <= at <= feed.end:
            raise _bad_replay()
        return at

    def _take(self, request: Any) -> None:
        if request.num_requested <= 0:
            message = "The number of events requested must be greater than zero."
            raise _Abort(grpc.StatusCode.INVALID_ARGUMENT, "subscription.fetch.requested.events.invalid", message)
        if request.topic_name not in ("", self._topic):
            message = "A stream subscribes to one topic."
            raise _Abort(grpc.StatusCode.INVALID_ARGUMENT, "subscription.fetch.topic.mismatch", message)
        self._pending += request.num_requested

    def _listen(self) -> None:
        try:
            for request in self._requests:
                self._take(request)
                self.waker.set()
        except _Abort as abort:
            self._problem = abort
        except grpc.RpcError:
            self._problem = None  # the client is gone
        self._ended = True
        self.waker.set()

    def _consumer(self, feed: Feed, event: Event) -> Any:
        layout = feed.layout(event.entity)
        produced = MESSAGES["ProducerEvent"](
            id=f"{event.number:032x}", schema_id=layout.schema_id, payload=layout.encode(event, feed.crm)
        )
        return MESSAGES["ConsumerEvent"](event=produced, replay_id=replay_id(event.number))


REPLAY = 1 << 40  # replay ids do not begin at nothing


def replay_id(number: int) -> bytes:
    return (number + REPLAY).to_bytes(8, "big")


def _end(context: grpc.ServicerContext, abort: _Abort) -> None:
    context.set_trailing_metadata((("error-code", abort.code),))
    context.abort(abort.status, str(abort))
