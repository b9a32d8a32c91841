"""The kinds of streams: a package each, and in ``sdk`` what their authors need. Others' are found by their entry
points: a stream of type ``custom`` names one in ``connection_config.source``."""

from __future__ import annotations

from churnguard_pipelines.errors import InvalidConfiguration
from churnguard_pipelines.model import StreamConfiguration, StreamType
from churnguard_pipelines.registry import Registry
from churnguard_pipelines.streams.sdk import StreamSource

_registry = Registry(__name__, __path__, StreamSource, {"sdk", "formats"}, "churnguard.streams", "stream source")  # type: ignore[type-abstract]


def source_class(stream: StreamConfiguration) -> type[StreamSource]:
    """Raises ``InvalidConfiguration`` naming the sources there are."""
    if stream.stream_type is not StreamType.CUSTOM:
        return _registry.find(stream.stream_type.value)
    name = stream.connection_config.get("source")
    if not isinstance(name, str) or name in {*StreamType}:
        raise InvalidConfiguration(
            "connection_config.source names no source of its own.",
            integration_id=stream.stream_id,
            remedy=f"There are: {', '.join(sorted({*_registry.providers} - {*StreamType}))}.",
        )
    return _registry.find(name)
