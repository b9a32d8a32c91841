"""How messages become documents, a module per format."""

from __future__ import annotations

from churnguard_pipelines.engine.addresses import AddressGuard
from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import DataFormat, StreamConfiguration
from churnguard_pipelines.streams.formats.decoder import Decoder
from churnguard_pipelines.streams.formats.json import JsonDecoder


def decoder_of(stream: StreamConfiguration, guard: AddressGuard) -> Decoder:
    """Asks nobody yet. ``guard``: where the stream's schema registry may be. Raises ``InvalidConfiguration`` for
    options that cannot be."""
    match stream.data_format:
        case DataFormat.JSON:
            return JsonDecoder()
        case _:
            raise InvalidConfiguration(
                f"messages in {stream.data_format} cannot be read.", integration_id=stream.stream_id
            )
