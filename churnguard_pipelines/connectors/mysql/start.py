"""Finds where a binary log can be read from, and explains why it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pymysql

from churnguard_pipelines.connectors.mysql import events
from churnguard_pipelines.connectors.mysql.connection import as_ours
from churnguard_pipelines.connectors.mysql.position import BinlogPosition
from churnguard_pipelines.connectors.mysql.stream import BinlogStream
from churnguard_pipelines.engine.allowance import CONNECT_SECONDS, Exhausted
from churnguard_pipelines.engine.malformed import Malformed
from churnguard_pipelines.errors import PermissionMissing, ProviderMisbehaved, ProviderUnavailable, SourceChanged
from churnguard_pipelines.model import IntegrationConfiguration
from churnguard_pipelines.records import Position

_FATAL, _FORBIDDEN = 1236, 1227
_LOST = ("could not find", "first log file", "impossible position", "not found", "purged", "> file size", "truncated")
_REPLACED = ("same server_uuid", "same server_id", "same server id")


@contextmanager
def reading(integration: IntegrationConfiguration, at: BinlogPosition) -> Iterator[None]:
    """What the server says about the log at this place becomes our error."""
    name = integration.integration_id
    try:
        yield
    except Malformed as error:
        raise ProviderMisbehaved(
            f"the binary log {at.file} holds what cannot be read: {error}.",
            integration_id=name,
            remedy=f"If it lasts: `churnguard integrations reset {name}`, and the next sync reads all tables anew.",
        ) from error
    except (pymysql.Error, OSError) as error:
        code, message = error.args[0] if error.args else None, str(error).lower()
        if code == _FATAL and any(words in message for words in _REPLACED):
            raise ProviderUnavailable(
                "another reader of the same binary log has taken our place.",
                integration_id=name,
                remedy="If no session of ours has, another server uses our replica's id.",
            ) from None
        if code == _FATAL and any(words in message for words in _LOST):
            gone = f"the server does not have its binary log {at.file} at {at.position} any more"
            raise lost(integration, gone) from None
        if code == _FORBIDDEN:
            raise PermissionMissing(
                "the user may not read the binary log.",
                integration_id=name,
                remedy=f"Run `GRANT REPLICATION SLAVE ON *.* TO '{integration.credentials.username}'`.",
            ) from None
        raise as_ours(integration, error) from None
    except Exhausted as error:
        raise error.as_ours(integration, "MySQL") from None


def lost(integration: IntegrationConfiguration, what: str) -> SourceChanged:
    name = integration.integration_id
    return SourceChanged(
        f"{what}; changes may be missing.",
        integration_id=name,
        remedy=f"`churnguard integrations reset {name}`, and the next sync reads all tables anew. "
        "binlog_expire_logs_seconds says how long the server keeps its log.",
    )


def position_at(integration: IntegrationConfiguration, place: BinlogPosition) -> Position:
    """Asks for the log from there, which shows that we may, and when the server began that file."""
    deadline = time.monotonic() + CONNECT_SECONDS
    with reading(integration, place), closing(BinlogStream(integration, place)) as stream:
        while (left := deadline - time.monotonic()) > 0:
            event = stream.next()
            if event is None:
                stream.wait(left)
            elif event.kind == events.FORMAT:
                now = int(time.time())
                return {"file": place.file, "position": place.position, "created": event.moment, "moment": now}
    raise ProviderUnavailable(
        f"MySQL did not send its binary log within {CONNECT_SECONDS} s.",
        integration_id=integration.integration_id,
        remedy="The next sync tries again.",
    )
