"""ChurnGuard Pipelines: customer data of SaaS companies, per tenant, exactly once, in one PostgreSQL warehouse.

    from churnguard_pipelines import IntegrationEngine, IntegrationConfiguration, IntegrationCredentials

Everything here is imported on first use, so that ``import churnguard_pipelines`` and ``churnguard --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from churnguard_pipelines.api import IntegrationEngine, StreamingManager, SyncStatus
    from churnguard_pipelines.model import (
        APIIngestionRule,
        DataFormat,
        DataSyncMode,
        IntegrationConfiguration,
        IntegrationCredentials,
        IntegrationType,
        Organization,
        ProcessingMode,
        StreamConfiguration,
        StreamType,
        SyncConfiguration,
    )

__version__ = "0.1.0"

__all__ = [
    "APIIngestionRule",
    "DataFormat",
    "DataSyncMode",
    "IntegrationConfiguration",
    "IntegrationCredentials",
    "IntegrationEngine",
    "IntegrationType",
    "Organization",
    "ProcessingMode",
    "StreamConfiguration",
    "StreamType",
    "StreamingManager",
    "SyncConfiguration",
    "SyncStatus",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "api" if name in ("IntegrationEngine", "StreamingManager", "SyncStatus") else "model"
    return getattr(import_module(f"{__name__}.{module}"), name)
