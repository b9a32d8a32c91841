"""The demo's streams: what people do in the product of each business."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx

from churnguard_pipelines.cli.demo.broker import Broker, server_program
from churnguard_pipelines.cli.demo.comparison import Compared
from churnguard_pipelines.cli.terminal import out
from churnguard_pipelines.errors import NotFound
from churnguard_pipelines.model import StreamConfiguration, StreamType

if TYPE_CHECKING:
    from churnguard_pipelines.store.postgres.database import Store

DRAINED_WITHIN_SECONDS = 300


class UsageStreams:
    """A stream per organization, from Kafka where there is one, else from a broker that is started for them."""

    def __init__(self, store: Store, organization_ids: Sequence[str]) -> None:
        self._store = store
        self._organization_ids = organization_ids
        self._broker: Broker | None = None
        self.url: str | None = None
        """Where the products publish, as the simulation takes it; None where there is no broker."""

    def start(self) -> None:
        """Raises ``ChurnGuardError`` if the broker does not start."""
        settings = self._store.settings
        if settings.kafka_bootstrap_servers:
            self.url = f"kafka://{settings.kafka_bootstrap_servers}"
        elif program := server_program():
            self._broker = Broker(settings.home, program)
            self.url = self._broker.start()

    def stop(self) -> None:
        if self._broker is not None:
            self._broker.stop()

    def register(self, actor: str) -> None:
        """At the broker's present address. Raises what asking it raises."""
        if self.url is not None:
            for organization_id in self._organization_ids:
                self._register(usage_stream(organization_id, self.url), actor)

    def drain(self, sandbox_url: str) -> None:
        """Read what has been published so far, as a session does."""
        from churnguard_pipelines.syncing.session import Session
        from churnguard_pipelines.syncing.streams.kind import KINDS

        if self.url is None:
            return
        published = {name: _published(sandbox_url, name)["events"] for name in self._organization_ids}
        kind = KINDS[usage_stream(self._organization_ids[0], self.url).stream_type]
        session = Session(self._store, "demo", kind(self._store), linger=DRAINED_WITHIN_SECONDS)
        thread = threading.Thread(target=session.run, name="demo-streams")
        thread.start()
        try:
            deadline = time.monotonic() + DRAINED_WITHIN_SECONDS
            while time.monotonic() < deadline and thread.is_alive():
                if all(self._stored(name)[0] >= events for name, events in published.items()):
                    return
                time.sleep(0.2)
        finally:
            session.stop()
            thread.join()

    def compared(self, sandbox_url: str) -> Iterator[Compared]:
        """What is stored, beside what the products say that they have published: as many, and the same ids."""
        if self.url is None:
            out.print("No streams of product usage: they need Valkey or Redis, or churnguard-pipelines[demo].")
            return
        for organization_id in self._organization_ids:
            (stored, digest), published = self._stored(organization_id), _published(sandbox_url, organization_id)
            same = digest == published["ids_sha256"]
            rows = [("usage_events", stored, published["events"])]
            yield Compared("Stream of product usage", organization_id, rows, same)

    def _register(self, wanted: StreamConfiguration, actor: str) -> None:
        from churnguard_pipelines.store.control.streams import STREAMS
        from churnguard_pipelines.syncing.streams import managing

        try:
            known = STREAMS.get(self._store, wanted.stream_id).configuration
        except NotFound:
            known = None
        if known is not None and known.stream_type != wanted.stream_type:  # Kafka came, or went
            managing.remove(self._store, wanted.stream_id, actor=actor, purge=True)
            known = None
        if known is None:
            managing.create(self._store, wanted, actor=actor)
        elif known.connection_config != wanted.connection_config:
            self._follow(wanted, actor)

    def _follow(self, moved: StreamConfiguration, actor: str) -> None:
        """The broker's port was taken. It is the same one, with all that it had: what was read of it stays read."""
        from churnguard_pipelines.store.control.streams import STREAMS
        from churnguard_pipelines.store.ingest import checkpoints
        from churnguard_pipelines.syncing.streams import managing

        at = {"connection_config": moved.connection_config}
        managing.change(self._store, moved.stream_id, at, actor=actor)
        with self._store.operator() as connection:
            found = checkpoints.of_integration(connection, moved.organization_id, moved.stream_id)
        positions = {name: checkpoint.position for name, checkpoint in found.items()}
        with managing.opened_source(moved) as source:
            identity = source.identity()
        to = "the same place at another address"
        STREAMS.seek(self._store, moved.stream_id, positions, identity, to=to, actor=actor, others=False)

    def _stored(self, organization_id: str) -> tuple[int, str]:
        """How many events, and a digest of their ids as the product makes it."""
        from churnguard_pipelines.store.raw.tables import quoted
        from churnguard_pipelines.syncing.streams.target import table_of

        stream = usage_stream(organization_id, self.url or "")
        statement = f"""
            SELECT count(*),
                   encode(sha256(convert_to(coalesce(string_agg(id, %s ORDER BY id COLLATE "C"), ''), 'UTF8')), 'hex')
              FROM (SELECT extra->>'id' AS id FROM {quoted(table_of(stream).name)}
                     WHERE organization_id = %s AND integration_id = %s) AS events"""
        with self._store.organization(organization_id) as connection:
            events, digest = connection.exec_driver_sql(statement, ("\n", organization_id, stream.stream_id)).one()
        return events, digest


def usage_stream(organization_id: str, url: str) -> StreamConfiguration:
    """``url``: as the product is told it; Kafka is the installation's."""
    kafka = url.startswith("kafka://")
    return StreamConfiguration.model_validate(
        {
            "stream_id": f"{organization_id}-usage",
            "organization_id": organization_id,
            "name": "Product usage (simulated)",
            "stream_type": StreamType.KAFKA if kafka else StreamType.REDIS,
            "topics": [f"{organization_id}.product_usage"],
            "processing_mode": "exactly_once",
            "connection_config": {} if kafka else {"url": url},
            "field_mappings": {
                "event": "event",
                "customer_id": "customer_id",
                "user": "user_email",
                "plan": "plan",
                "seats": "seats:bigint",
                "occurred_at": "occurred_at:timestamptz",
            },
        }
    )


def _published(sandbox_url: str, organization_id: str) -> Any:
    return httpx.get(f"{sandbox_url}/_books/{organization_id}/usage", timeout=60).raise_for_status().json()
