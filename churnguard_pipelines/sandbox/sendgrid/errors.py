"""Refusals in SendGrid's words: a list of errors, of which each has a message, a field, and sometimes more."""

from __future__ import annotations

import orjson

from churnguard_pipelines.sandbox.answers import Answer


class Refusal(Exception):
    """A request answered with an error status."""

    def __init__(self, status: int, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message, self.field = message, field
        self.headers: dict[str, str] = {}

    @property
    def answer(self) -> Answer:
        body = {"errors": [{"message": self.message, "field": self.field, "help": None}]}
        return Answer(self.status, orjson.dumps(body), {"content-type": "application/json", **self.headers})


def no_credentials() -> Refusal:
    return Refusal(401, "authorization required")


def revoked() -> Refusal:
    return Refusal(401, "The provided authorization grant is invalid, expired, or revoked")


def forbidden() -> Refusal:
    """Of a scope that is missing, a plan that is too small, or an account that is another kind."""
    return Refusal(403, "access forbidden")


def not_found() -> Refusal:
    return Refusal(404, "resource not found")


def invalid(field: str, message: str) -> Refusal:
    return Refusal(400, message, field)


def too_many() -> Refusal:
    return Refusal(429, "too many requests")
