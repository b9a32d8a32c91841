"""The API's application, mounted at /api; its own description is at /api/docs."""

from fastapi import Depends, FastAPI

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.monitoring.monitor import Monitor
from webhook_gateway.api import alerts, dashboard, ingestion, integrations, streaming, system, webhooks
from webhook_gateway.api.concurrency import ConcurrencyLimit
from webhook_gateway.api.docs_page import add_docs
from webhook_gateway.api.problems import DESCRIBED, handle_errors
from webhook_gateway.api.rate import KeyRate


def create_api(engine: IntegrationEngine) -> FastAPI:
    settings = engine.store.settings
    limits = [
        Depends(ConcurrencyLimit()),
        *([Depends(KeyRate(engine.store))] if settings.api_rate_limiting_enabled else []),
    ]
    app = FastAPI(
        title="ChurnGuard Pipelines", docs_url=None, redoc_url=None, responses=DESCRIBED, dependencies=limits
    )  # fmt: skip
    app.state.engine = engine
    app.state.limits = limits  # the pages' too: who has used theirs up here gets no others there
    app.state.monitor = Monitor(engine.store, settings.dashboard_update_interval)
    for module in (integrations, webhooks, streaming, ingestion, dashboard, alerts, system):
        app.include_router(module.router)
    add_docs(app)
    handle_errors(app)
    return app
