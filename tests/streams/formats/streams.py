"""Streams as a test needs them, and what their format makes of messages."""

from __future__ import annotations

from typing import Any

from churnguard_pipelines.engine.addresses import AddressGuard, guard_of
from churnguard_pipelines.model import StreamConfiguration
from churnguard_pipelines.streams.formats import decoder_of
from churnguard_pipelines.streams.formats.decoder import Decoded, Decoder, Undecodable


def stream(data_format: str = "json", **fields: Any) -> StreamConfiguration:
    defaults: dict[str, Any] = {
        "stream_id": "acme-orders",
        "organization_id": "acme",
        "name": "Orders",
        "stream_type": "kafka",
        "topics": ["orders"],
        "data_format": data_format,
    }
    return StreamConfiguration.model_validate(defaults | fields)


def decoder(data_format: str = "json", *, guard: AddressGuard | None = None, **fields: Any) -> Decoder:
    made = stream(data_format, **fields)
    return decoder_of(made, guard or guard_of(made))


def one(decoder: Decoder, value: bytes) -> Decoded | Undecodable:
    (result,) = decoder.decode([value])
    return result


def document(decoder: Decoder, value: bytes) -> Any:
    result = one(decoder, value)
    assert isinstance(result, Decoded), result
    return result.document


def reason(decoder: Decoder, value: bytes) -> str:
    result = one(decoder, value)
    assert isinstance(result, Undecodable), result
    return result.reason
