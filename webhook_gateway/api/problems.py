"""Errors as problem+json (RFC 9457): one clear message, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from churnguard_pipelines.errors import ChurnGuardError, DatabaseUnavailable, NotFound

_STATUS: Mapping[type[ChurnGuardError], int] = {NotFound: 404, DatabaseUnavailable: 503}
"""Any other is about what was asked for: 422."""


def handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(ChurnGuardError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(StarletteHTTPException, _http)


def not_found(what: str, name: str) -> HTTPException:
    """Also for what belongs to somebody else: nobody learns that it is there."""
    return HTTPException(404, f"There is no {what} {name!r}.")


def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChurnGuardError)
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
    return _problem(status, str(error))


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Names each field; never repeats its value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    fields = [
        {"field": ".".join(map(str, each["loc"][1:])) or "body", "problem": each["msg"]} for each in error.errors()
    ]
    return _problem(422, "; ".join(f"{each['field']}: {each['problem']}" for each in fields), errors=fields)


def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return _problem(error.status_code, str(error.detail), headers=error.headers)


def _problem(
    status: int, title: str, *, errors: Sequence[Any] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, dict(headers or {}), media_type="application/problem+json")
