"""`/api/docs`: Swagger UI from our own package of its files. FastAPI's page would load it from elsewhere and start it
inline; this one works without internet and under a Content-Security-Policy that allows neither."""

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

PATH = "/docs"
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>ChurnGuard Pipelines: API</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/assets/swagger-ui.css"><div id="api"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></html>
"""
START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null})
"""
HEADERS = {
    # Swagger UI sets style attributes and draws its icons from data: URLs
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
}

_router = APIRouter(include_in_schema=False)


def add_docs(app: FastAPI) -> None:
    app.include_router(_router)
    app.mount(f"{PATH}/assets", StaticFiles(packages=[("fastapi_standalone_docs", "static/swagger")]))


@_router.get(PATH)
def page() -> Response:
    return HTMLResponse(PAGE, headers=HEADERS)


@_router.get(f"{PATH}/start.js")
def start() -> Response:
    return Response(START, media_type="text/javascript")
