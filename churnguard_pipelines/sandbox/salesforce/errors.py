"""Refusals in Salesforce's words: `[{"message", "errorCode"}]`, and OAuth's `{"error", "error_description"}`."""

from __future__ import annotations

import orjson


class Refusal(Exception):
    """A request answered with an error status."""

    def __init__(self, status: int, code: str, message: str, fields: list[str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        error = {"message": message, "errorCode": code, **({"fields": fields} if fields is not None else {})}
        self.body = orjson.dumps([error])


class OAuthRefusal(Refusal):
    def __init__(self, code: str, description: str, status: int = 400) -> None:
        super().__init__(status, code, description)
        self.body = orjson.dumps({"error": code, "error_description": description})


def invalid_session() -> Refusal:
    return Refusal(401, "INVALID_SESSION_ID", "Session expired or invalid")


def no_header() -> Refusal:
    return Refusal(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE")


def request_limit() -> Refusal:
    return Refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")


def not_found() -> Refusal:
    return Refusal(404, "NOT_FOUND", "The requested resource does not exist")


def wrong_method(method: str, allowed: str) -> Refusal:
    return Refusal(405, "METHOD_NOT_ALLOWED", f"HTTP Method '{method}' not allowed. Allowed are {allowed}")


def retired() -> Refusal:
    return Refusal(410, "UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL")


def too_long() -> Refusal:
    return Refusal(414, "URI_TOO_LONG", "URI Too Long")


def header_too_large() -> Refusal:
    return Refusal(431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "Request Header Fields Too Large")


def mistyped(name: str, kind: str, quoted: bool, query: str) -> Refusal:
    quotes = "should" if quoted else "should not"
    message = f"value of filter criterion for field '{name}' must be of type {kind} and {quotes} be enclosed in quotes"
    return Refusal(400, "INVALID_FIELD", _at(query) + message)


def _at(query: str) -> str:
    return f"\n{query[:120]}\n^\nERROR at Row:1:Column:1\n"


def malformed(message: str) -> Refusal:
    return Refusal(400, "MALFORMED_QUERY", message)


def invalid_type(name: str, query: str) -> Refusal:
    return Refusal(
        400,
        "INVALID_TYPE",
        f"{_at(query)}sObject type '{name}' is not supported. If you are attempting to use a "
        "custom object, be sure to append the '__c' after the entity name. Please reference your WSDL or the describe "
        "call for the appropriate names.",
    )


def invalid_field(name: str, entity: str, query: str) -> Refusal:
    return Refusal(
        400,
        "INVALID_FIELD",
        f"{_at(query)}No such column '{name}' on entity '{entity}'. If you are attempting "
        "to use a custom field, be sure to append the '__c' after the custom field name. Please reference your WSDL or "
        "the describe call for the appropriate names.",
    )


def not_filterable(name: str) -> Refusal:
    return Refusal(400, "INVALID_FIELD", f"field '{name}' can not be filtered in a query call")


def not_sortable(name: str) -> Refusal:
    return Refusal(400, "INVALID_FIELD", f"field '{name}' can not be sorted in a query call")


def insufficient_access() -> Refusal:
    return Refusal(
        403,
        "INSUFFICIENT_ACCESS",
        "The user does not have access to this object or the required permission to perform this operation.",
    )


def invalid_locator() -> Refusal:
    return Refusal(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
