"""Refusals in HubSpot's words. https://developers.hubspot.com/docs/api-reference/error-handling"""

from __future__ import annotations

from itertools import count
from typing import Any

import orjson

MANY_ERRORS = 207
_numbers = count(1)


def correlation_id() -> str:
    return f"0000face-0000-4000-8000-{next(_numbers):012x}"


class Refusal(Exception):
    """A request answered with an error status. Of the body's fields only `status` and `message` are always there."""

    def __init__(self, status: int, message: str, category: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {"content-type": "application/json;charset=utf-8"}
        body = {"status": "error", "message": message, "correlationId": correlation_id(), **more}
        if category:
            body["category"] = category
        self.body = orjson.dumps(body)


def no_credentials() -> Refusal:
    return Refusal(
        401,
        "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more "
        "details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
        "INVALID_AUTHENTICATION",
    )


def expired(since_ms: int, at: str) -> Refusal:
    return Refusal(
        401,
        f"The OAuth token used to make this call expired {max(0, since_ms // 1000)} second(s) ago.",
        "EXPIRED_AUTHENTICATION",
        context={"expire time": [at]},
    )


def malformed_token() -> Refusal:
    """The edge cannot tell from such a token where the account is hosted, so that no HubSpot answers."""
    refusal = Refusal(530, "error code: 1016")
    refusal.headers = {"content-type": "text/plain; charset=UTF-8", "server": "cloudflare"}
    refusal.body = b"error code: 1016"
    return refusal


def missing_scopes(*scopes: str) -> Refusal:
    return Refusal(
        403,
        "This app hasn't been granted all required scopes to make this call. Read more about required scopes here: "
        "https://developers.hubspot.com/scopes.",
        "MISSING_SCOPES",
        errors=[
            {
                "message": "One or more of the following scopes are required.",
                "context": {"requiredGranularScopes": list(scopes)},
            }
        ],
        links={"scopes": "https://developers.hubspot.com/scopes"},
    )


def bad_grant(status: str, message: str) -> Refusal:
    """What the token endpoint says; its `status` is the error."""
    refusal = Refusal(400, message)
    refusal.body = orjson.dumps({"status": status, "message": message, "correlationId": correlation_id()})
    return refusal


def invalid(message: str, **more: Any) -> Refusal:
    return Refusal(400, message, "VALIDATION_ERROR", **more)


def search_problem() -> Refusal:
    """All that search says of a query which it does not take."""
    return Refusal(400, "There was a problem with the request.")


def not_found(id: object) -> Refusal:
    return Refusal(
        404,
        "Object not found.  objectId are usually numeric.",
        "OBJECT_NOT_FOUND",
        context={"id": [str(id)]},
    )


def unknown_type(name: str) -> Refusal:
    return Refusal(400, f"Unable to infer object type from: {name}", "VALIDATION_ERROR", context={"type": [name]})


def no_resource() -> Refusal:
    return Refusal(404, "resource not found")


def url_too_long() -> Refusal:
    """From the web server in front, which speaks HTML."""
    refusal = Refusal(414, "Request-URI Too Large")
    refusal.headers = {"content-type": "text/html", "server": "cloudflare"}
    refusal.body = b"<html><head><title>414 Request-URI Too Large</title></head><body></body></html>"
    return refusal


def internal_error() -> Refusal:
    return Refusal(500, "internal error")


def rate_limited(policy: str, retry_after: int | None) -> Refusal:
    refusal = Refusal(
        429,
        f"You have reached your {policy.lower()} limit.",
        errorType="RATE_LIMIT",
        policyName=policy,
        groupName=f"publicapi:{policy.lower()}",
    )
    if retry_after is not None:
        refusal.headers["retry-after"] = str(retry_after)
    return refusal


def limited_at_the_edge(retry_after: int) -> Refusal:
    """Cloudflare's own 429: RFC 9457 with the seconds in the body and no header.
    https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-1xxx-errors/"""
    refusal = Refusal(429, "You are being rate limited")
    refusal.headers = {"content-type": "application/json", "server": "cloudflare"}
    refusal.body = orjson.dumps(
        {
            "type": "https://developers.cloudflare.com/support/troubleshooting/http-status-codes/"
            "cloudflare-1xxx-errors/error-1015/",
            "title": "Error 1015: You are being rate limited",
            "status": 429,
            "detail": "You are being rate-limited by the website owner's configuration.",
            "error_code": 1015,
            "error_name": "rate_limited",
            "error_category": "rate_limit",
            "cloudflare_error": True,
            "retryable": True,
            "retry_after": retry_after,
        }
    )
    return refusal
