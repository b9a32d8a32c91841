"""The application of our pages, mounted at /. Picture of the installation, engine and limits are the API's."""

import sqlalchemy as sa
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as StarletteHTTPException

from churnguard_pipelines.errors import ChurnGuardError
from webhook_gateway.api.problems import UNSTORABLE, is_unstorable, status_of
from webhook_gateway.dashboard.principal import SCOPE
from webhook_gateway.pages import (
    alerts,
    integration,
    new_integration,
    organizations,
    overview,
    records,
    streams,
    webhooks,
)
from webhook_gateway.pages.rendering import STATIC, compile_templates, rendered

PAGES = (overview, alerts, new_integration, integration, records, webhooks, streams, organizations)
"""In the order in which their paths are tried."""
HEADINGS = {403: "Not allowed", 404: "Not found", 405: "Not found", 422: "Not found", 429: "Too many requests"}


def create_pages(api: FastAPI, *, secure: bool) -> FastAPI:
    """``secure``: whether browsers reach us by HTTPS; then our cookies go nowhere else."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=api.state.limits)
    app.state.engine, app.state.monitor, app.state.secure = api.state.engine, api.state.monitor, secure
    for module in PAGES:
        app.include_router(module.router)
    app.mount("/static", StaticFiles(directory=STATIC))
    compile_templates()
    for kind in (ChurnGuardError, RequestValidationError, StarletteHTTPException, sa.exc.DataError, UnicodeEncodeError):
        app.add_exception_handler(kind, _refused)
    return app


def _refused(request: Request, error: Exception) -> Response:
    """A page that says why, and what to do."""
    status, message, remedy = 404, "There is no such page.", None
    if isinstance(error, ChurnGuardError):
        status, message, remedy = status_of(error), error.message, error.remedy
    elif isinstance(error, StarletteHTTPException):
        status, message = error.status_code, str(error.detail)
    elif is_unstorable(error):
        status, message = 422, UNSTORABLE
    elif not isinstance(error, RequestValidationError):
        raise error
    if SCOPE not in request.scope:  # at an address that is open to everybody, and has no page for this
        return PlainTextResponse(message, status)
    heading = HEADINGS.get(status, "That did not work")
    return rendered(request, "error.html", status, heading=heading, text=message, remedy=remedy, raised=[])
