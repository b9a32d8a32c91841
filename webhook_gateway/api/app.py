"""The API's application, mounted at /api; its own description is at /api/docs."""

from fastapi import Depends, FastAPI, Security
from fastapi.security import HTTPBearer

from churnguard_pipelines.api import IntegrationEngine
from churnguard_pipelines.monitoring.monitor import Monitor
from webhook_gateway.api import alerts, dashboard, ingestion, integrations, streaming, system, webhooks
from webhook_gateway.api.concurrency import ConcurrencyLimit
from webhook_gateway.api.docs_page import add_docs
from webhook_gateway.api.problems import DESCRIBED, handle_errors
from webhook_gateway.api.rate import KeyRate

DESCRIPTION = """What the command line does, for programs. An error is `application/problem+json`: one sentence, and
what to do. Bodies are JSON; ids match `^[A-Za-z0-9_-]{1,64}$`; moments are ISO 8601 with a time zone."""
KEY = "An API key, made by `churnguard api-keys create NAME`. A login in the same browser does as well."


def create_api(engine: IntegrationEngine) -> FastAPI:
    settings = engine.store.settings
    limits = [
        Depends(ConcurrencyLimit()),
        *([Depends(KeyRate(engine.store))] if settings.api_rate_limiting_enabled else []),
    ]
    # For the description only: who asks is known before a request comes here.
    described = Security(HTTPBearer(auto_error=False, scheme_name="API key", description=KEY))
    app = FastAPI(
        title="ChurnGuard Pipelines", description=DESCRIPTION, docs_url=None, redoc_url=None, responses=DESCRIBED,
        dependencies=[described, *limits],
    )  # fmt: skip
    app.state.engine = engine
    app.state.limits = limits  # the pages' too: who has used theirs up here gets no others there
    app.state.monitor = Monitor(engine.store, settings.dashboard_update_interval)
    for module in (integrations, webhooks, streaming, ingestion, dashboard, alerts, system):
        app.include_router(module.router)
    add_docs(app)
    handle_errors(app)
    return app
