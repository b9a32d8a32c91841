"""The API's application, mounted at /api; its own description is at /api/docs."""

from fastapi import FastAPI

from churnguard_pipelines.api import IntegrationEngine
from webhook_gateway.api import integrations, system, webhooks
from webhook_gateway.api.problems import handle_errors


def create_api(engine: IntegrationEngine) -> FastAPI:
    app = FastAPI(title="ChurnGuard Pipelines", docs_url="/docs", redoc_url=None, openapi_url="/openapi.json")
    app.state.engine = engine
    for module in (integrations, webhooks, system):
        app.include_router(module.router)
    handle_errors(app)
    return app
