"""Calls of the Pub/Sub API: one channel, over which topics are asked for and one of them is followed.

https://developer.salesforce.com/docs/platform/pub-sub-api/guide/pub-sub-features.html
"""

from __future__ import annotations

import queue
from typing import Any
from urllib.parse import urlsplit

import grpc

from churnguard_pipelines.connectors.salesforce.pubsub.messages import CUSTOM, LATEST, MESSAGES, SERVICE
from churnguard_pipelines.connectors.salesforce.signing import base_url
from churnguard_pipelines.engine.addresses import AddressGuard, guard_of
from churnguard_pipelines.engine.fair_threads import in_thread
from churnguard_pipelines.engine.tokens import Token
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import IntegrationConfiguration

ADDRESS = "https://api.pubsub.salesforce.com:7443"
CALL_SECONDS = 10.0
MOST_BYTES = 8 * 2**20  # of one answer; Salesforce sends 3 MB at most
PENDING = 100  # events asked for that have not come yet; Salesforce takes no greater number in one request
BUFFERED = 2  # answers that wait to be stored

Metadata = tuple[tuple[str, str], ...]


def connect(integration: IntegrationConfiguration, session: Token | None, organization: str | None) -> Client:
    """``session``: of the API's latest call; ``organization``: whose it is, if the user may know. Raises what the
    address guard does."""
    assert session is not None, "every credential of Salesforce's is a session in the end"
    organization = organization or session.access_token.partition("!")[0][:18]  # a session's id begins with it
    place = session.api_url or base_url(integration)
    metadata = (("accesstoken", session.access_token), ("instanceurl", place), ("tenantid", organization))
    return Client(_channel(address_of(integration), guard_of(integration)), metadata)


def address_of(integration: IntegrationConfiguration) -> str:
    given = integration.credentials.custom_fields.get("pubsub_url")
    return given.get_secret_value() if given else ADDRESS


def _channel(url: str, guard: AddressGuard) -> grpc.Channel:
    """To exactly the addresses that the guard has judged."""
    guard.check_url(url)
    parts = urlsplit(url)
    host, port, encrypted = parts.hostname or "", parts.port or 443, parts.scheme == "https"
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidConfiguration(
            "credentials.custom_fields.pubsub_url is no address.",
            integration_id=guard.integration_id,
            remedy=f"Write it as {ADDRESS}, or leave it out.",
        )
    found = guard.resolve(host, port)
    family = "ipv6" if ":" in found[0] else "ipv4"
    same = [each for each in found if (":" in each) == (family == "ipv6")]
    target = f"{family}:" + ",".join(f"[{each}]:{port}" if family == "ipv6" else f"{each}:{port}" for each in same)
    options = [
        ("grpc.max_receive_message_length", MOST_BYTES),
        ("grpc.default_authority", f"{host}:{port}"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),  # another integration's channel to the same address is not shared
    ]
    if not encrypted:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(
        target, grpc.ssl_channel_credentials(), [*options, ("grpc.ssl_target_name_override", host)]
    )


class Client:
    """``metadata``: proves who we are, as the API wants it with each call."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata) -> None:
        self._channel = channel
        self.metadata = metadata

    def topic(self, name: str) -> Any:
        """Raises ``grpc.RpcError``."""
        return self._call("GetTopic", MESSAGES["TopicRequest"](topic_name=name), "TopicInfo")

    def schema(self, id: str) -> str:
        """Raises ``grpc.RpcError``."""
        return str(self._call("GetSchema", MESSAGES["SchemaRequest"](schema_id=id), "SchemaInfo").schema_json)

    def subscribe(self, topic: str, after: bytes | None) -> Subscription:
        """``after``: the replay id of what came last; None for what comes from now on."""
        return Subscription(self._channel, self.metadata, topic, after)

    def close(self) -> None:
        self._channel.close()

    def _call(self, name: str, request: Any, answer: str) -> Any:
        send = self._channel.unary_unary(
            f"/{SERVICE}/{name}", request_serializer=_bytes, response_deserializer=MESSAGES[answer].FromString
        )
        return send(request, metadata=self.metadata, timeout=CALL_SECONDS)


class Subscription:
    """One Subscribe call. Asks for as many events as have been taken off: no more than ``PENDING`` are on their way."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata, topic: str, after: bytes | None) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: queue.Queue[Any] = queue.Queue(BUFFERED)
        self._closed = False
        preset = LATEST if after is None else CUSTOM
        self._ask(topic_name=topic, replay_preset=preset, replay_id=after or b"", num_requested=PENDING)
        subscribe = channel.stream_stream(
            f"/{SERVICE}/Subscribe",
            request_serializer=_bytes,
            response_deserializer=MESSAGES["FetchResponse"].FromString,
        )
        self._call = subscribe(iter(self._requests.get, None), metadata=metadata)
        in_thread("salesforce-pubsub", self._listen)

    def read(self, timeout: float) -> Any:
        """The next answer, None if none came in time. Raises ``grpc.RpcError`` once the call has ended."""
        try:
            answer = self._answers.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(answer, Exception):
            raise answer
        if answer.events:
            self._ask(num_requested=len(answer.events))
        return answer

    def close(self) -> None:
        self._closed = True
        self._call.cancel()
        self._requests.put(None)

    def _ask(self, **request: Any) -> None:
        self._requests.put(MESSAGES["FetchRequest"](**request))

    def _listen(self) -> None:
        try:
            for answer in self._call:
                self._put(answer)
            raise Ended
        except Exception as error:
            self._put(error)

    def _put(self, answer: Any) -> None:
        while not self._closed:
            try:
                self._answers.put(answer, timeout=0.5)
            except queue.Full:
                continue
            return


class Ended(Exception):
    """Salesforce has ended the subscription without an error."""


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString())


def words_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """What the call ended with, and Salesforce's own code and words."""
    trailing = dict(error.trailing_metadata() or ()) if hasattr(error, "trailing_metadata") else {}
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    said = error.details() if hasattr(error, "details") else ""
    return code, " ".join(filter(None, (str(trailing.get("error-code", "")), said or "")))
