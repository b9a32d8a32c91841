"""A signed-in client of the simulated Salesforce."""

from __future__ import annotations

from typing import Any

import httpx

from churnguard_pipelines.sandbox.serve import Sandbox

DATA = "/services/data/v66.0"


def salesforce(sandbox: Sandbox, user: str = "acme") -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, headers={"authorization": f"Bearer 00Dsandbox_{user}"})


def query(api: httpx.Client, soql: str, resource: str = "query") -> list[dict[str, Any]]:
    """Every record, page by page."""
    found: list[dict[str, Any]] = []
    answer = api.get(f"{DATA}/{resource}", params={"q": soql})
    while True:
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["records"]
        if page["done"]:
            return found
        answer = api.get(page["nextRecordsUrl"])


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """(status, errorCode, message)"""
    assert answer.status_code >= 400, answer.text
    (error,) = answer.json()
    return answer.status_code, error["errorCode"], error["message"]


def names(api: httpx.Client, entity: str) -> list[str]:
    return [field["name"] for field in api.get(f"{DATA}/sobjects/{entity}/describe").json()["fields"]]
