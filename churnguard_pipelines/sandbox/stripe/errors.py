"""Refusals in Stripe's words: `{"error": {"type", "message", "code"?, "param"?, "doc_url"?}}`."""

from __future__ import annotations

from typing import Any

import orjson


class Refusal(Exception):
    """A request answered with an error status."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        *,
        type: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {}
        error: dict[str, Any] = {"message": message, "type": type}
        if code:
            error["code"] = code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param:
            error["param"] = param
        self.body = orjson.dumps({"error": error}, option=orjson.OPT_INDENT_2)


def masked(key: str) -> str:
    return key[:8] + "*" * max(0, len(key) - 12) + key[-4:] if len(key) > 12 else "*" * len(key)


def no_key() -> Refusal:
    return Refusal(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        "auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for "
        "details, or we can help at https://support.stripe.com/.",
    )


def unknown_key(key: str) -> Refusal:
    return Refusal(401, f"Invalid API Key provided: {masked(key)}")


def expired_key(key: str) -> Refusal:
    return Refusal(401, f"Expired API Key provided: {masked(key)}", "api_key_expired")


def permission_missing(key: str, account: str, permission: str) -> Refusal:
    return Refusal(
        403,
        f"The provided key '{masked(key)}' does not have the required permissions for this endpoint on "
        f"account '{account}'. Having the '{permission}' permission would allow this request to continue.",
    )


def unknown_account(key: str, account: str) -> Refusal:
    return Refusal(
        403,
        f"The provided key '{masked(key)}' does not have access to account '{account}' (or that account does not exist)"
        ". Application access may have been revoked.",
        "account_invalid",
    )


def unknown_url(method: str, path: str) -> Refusal:
    return Refusal(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
    )


def missing(noun: str, id: str, param: str = "id") -> Refusal:
    return Refusal(404, f"No such {noun}: '{id}'", "resource_missing", param)


def unknown_parameter(name: str) -> Refusal:
    return Refusal(400, f"Received unknown parameter: {name}", "parameter_unknown", name)


def not_an_integer(name: str, value: str) -> Refusal:
    return Refusal(400, f"Invalid integer: {value}", "parameter_invalid_integer", name)


def too_many_requests() -> Refusal:
    refusal = Refusal(
        429,
        "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.",
        "rate_limit",
    )
    refusal.headers["stripe-rate-limited-reason"] = "global-rate"
    return refusal
