"""Errors as problem+json (RFC 9457): one clear message, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import errors
from starlette.exceptions import HTTPException as StarletteHTTPException

from churnguard_pipelines.errors import AlreadyRunning, ChurnGuardError, DatabaseUnavailable, NotFound, TooBusy
from churnguard_pipelines.wrong_fields import problem

_STATUS: Mapping[type[ChurnGuardError], int] = {
    NotFound: 404,
    AlreadyRunning: 409,
    TooBusy: 429,
    DatabaseUnavailable: 503,
}
"""Any other is about what was asked for: 422."""
RETRY = {"Retry-After": "10"}
_UNSTORABLE = (
    errors.InvalidTextRepresentation,
    errors.UntranslatableCharacter,
    errors.CharacterNotInRepertoire,
    errors.NumericValueOutOfRange,
    errors.DatetimeFieldOverflow,
)
UNSTORABLE = "A text holds U+0000 or half a surrogate pair, or a number or a date is beyond what can be stored."
MOST_NAMED, MOST_CHARACTERS = 50, 200
"""Fields that are wrong, and of the name of each: a body has room for a hundred thousand."""
DESCRIBED: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "What is wrong, and what to do.",
        "content": {
            "application/problem+json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "title", "status"],
                    "properties": {
                        "type": {"const": "about:blank"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "errors": {
                            "description": "Each field that is wrong.",
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["field", "problem"],
                                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
                            },
                        },
                    },
                }
            }
        },
    }
}
"""For OpenAPI: every answer of ours that is none of the operation's own."""


def handle_errors(app: FastAPI) -> None:
    app.add_exception_handler(ChurnGuardError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UnicodeEncodeError, _unstorable)
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_exception_handler(sa.exc.DataError, _unstorable)


def not_found(what: str, name: str) -> HTTPException:
    """Also for what belongs to somebody else: nobody learns that it is there."""
    return HTTPException(404, f"There is no {what} {name!r}.")


def status_of(error: ChurnGuardError) -> int:
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)


def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ChurnGuardError)
    return _problem(status_of(error), str(error), headers=RETRY if isinstance(error, TooBusy) else None)


def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Names each field; never repeats its value, which may be a secret."""
    assert isinstance(error, RequestValidationError)
    if broken := next((each for each in error.errors() if each["type"] == "json_invalid"), None):
        return _problem(400, f"The body is no JSON: {broken['ctx']['error']}, at its character {broken['loc'][1]}.")
    fields = [
        {"field": ".".join(map(str, each["loc"][1:]))[:MOST_CHARACTERS] or "body", "problem": problem(each, ())}
        for each in error.errors()[:MOST_NAMED]
    ]
    return _problem(422, "; ".join(f"{each['field']}: {each['problem']}" for each in fields), errors=fields)


def is_unstorable(error: Exception) -> bool:
    """Requests can say what PostgreSQL cannot keep."""
    # psycopg's own class: a text with U+0000 that it did not even send
    return isinstance(error, UnicodeEncodeError) or (
        isinstance(error, sa.exc.DataError)
        and (isinstance(error.orig, _UNSTORABLE) or type(error.orig) is psycopg.DataError)
    )


def _unstorable(_: Request, error: Exception) -> JSONResponse:
    """Never repeats the value, which may be a secret."""
    if not is_unstorable(error):
        raise error
    return _problem(422, UNSTORABLE)


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
