"""Refusals in Mailchimp's words: problem details (RFC 7807). https://mailchimp.com/developer/marketing/docs/errors/"""

from __future__ import annotations

import orjson

from churnguard_pipelines.sandbox.answers import Answer

TYPE = "https://mailchimp.com/developer/marketing/docs/errors/"
INSTANCE = "995c5cb0-3280-4a6e-808b-3b096d0bb219"


class Refusal(Exception):
    def __init__(self, status: int, title: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail = status, title, detail

    def answer(self) -> Answer:
        body = {
            "type": TYPE, "title": self.title, "status": self.status, "detail": self.detail, "instance": INSTANCE,
        }  # fmt: skip
        return Answer(self.status, orjson.dumps(body), {"content-type": "application/problem+json; charset=utf-8"})


def invalid_key() -> Refusal:
    detail = "Your API key may be invalid, or you've attempted to access the wrong datacenter."
    return Refusal(401, "API Key Invalid", detail)


def missing_key() -> Refusal:
    return Refusal(401, "API Key Missing", "Your request did not include an API key.")


def disabled() -> Refusal:
    return Refusal(403, "User Disabled", "This account has been disabled.")


def forbidden() -> Refusal:
    return Refusal(403, "Forbidden", "You are not permitted to access this resource.")


def not_found() -> Refusal:
    return Refusal(404, "Resource Not Found", "The requested resource could not be found.")


def not_allowed() -> Refusal:
    return Refusal(405, "Method Not Allowed", "The requested method and resource are not compatible.")


def invalid(detail: str) -> Refusal:
    return Refusal(400, "Invalid Resource", detail)


def too_many_connections() -> Refusal:
    detail = "You have exceeded the limit of 10 simultaneous connections."
    return Refusal(429, "Too Many Requests", detail)


def broken() -> Refusal:
    return Refusal(500, "InternalServerError", "An unexpected internal error occurred.")
