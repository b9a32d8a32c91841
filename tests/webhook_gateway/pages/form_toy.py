"""A connector that declares all that a form can show, and a person who fills it in."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from churnguard_pipelines.connectors.sdk import ConnectionReport, ObjectAccess, SignIn
from churnguard_pipelines.connectors.sdk.access import Access, Entry, app_entries
from churnguard_pipelines.engine.auth import Bearer, Credential, OAuth2Refresh, TokenKeeper
from churnguard_pipelines.errors import PermissionMissing
from churnguard_pipelines.model import CredentialType, IntegrationConfiguration
from churnguard_pipelines.store.postgres.database import Store
from tests.connectors.toy import Toy
from tests.webhook_gateway.dashboard.conftest import engine_on, served
from webhook_gateway.api.app import create_api
from webhook_gateway.dashboard.authentication import Authentication
from webhook_gateway.dashboard.bodies import BoundedBodies
from webhook_gateway.dashboard.edge import Edge
from webhook_gateway.dashboard.login import Login
from webhook_gateway.pages.app import create_pages

CANARIES = ("canary-key", "canary-app-secret", "canary-access", "canary-refresh")


class FormToy(Toy):
    access = (
        Access(
            "key", "A key", CredentialType.API_KEY,
            (
                Entry("api_key", "on its page", secret=True),
                Entry("region", "where the account is, eu if left out", optional=True, choices=("eu", "us")),
                Entry("remarks", "in several lines", optional=True, long=True),
            ),
        ),
        Access(
            "sign_in", "Sign in at the toy", CredentialType.OAUTH2,
            (*app_entries("on its page"), Entry("sign_in_at", "its server")), signs_in=True,
        ),
    )  # fmt: skip

    @classmethod
    def credential(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> Credential:
        given = integration.credentials.api_key or integration.credentials.access_token
        return Bearer(given.get_secret_value() if given else "nothing")

    @classmethod
    def sign_in(cls, integration: IntegrationConfiguration, tokens: TokenKeeper) -> SignIn:
        own = {name: value.get_secret_value() for name, value in integration.credentials.custom_fields.items()}
        client = OAuth2Refresh(
            tokens, f"{own['sign_in_at']}/token", client_id=own["client_id"], client_secret=own["client_secret"]
        )
        return SignIn(f"{own['sign_in_at']}/authorize", client, ("contacts.read",))

    def check(self) -> ConnectionReport:
        return ConnectionReport(
            self.integration.integration_id, self.identity(), tuple(self._access(item.path) for item in self.objects)
        )

    def _access(self, path: str) -> ObjectAccess:
        try:
            self._get(path)
        except PermissionMissing as error:
            return ObjectAccess(path[1:], False, error.message, "Grant it there.")
        return ObjectAccess(path[1:], True)


@contextmanager
def site(store: Store) -> Iterator[str]:
    """Our pages, the API and the login behind the door, without Dagster; the address."""
    api, login = create_api(engine_on(store)), Login(store, secure=False, provider=None)
    rooms = Starlette(
        routes=[
            Route("/login", login.page, methods=["GET"]),
            Route("/login", login.sign_in, methods=["POST"]),
            Mount("/api", api),
            Mount("/", create_pages(api, secure=False)),
        ]
    )
    with served(Edge(Authentication(BoundedBodies(rooms), store), secure=False)) as url:
        yield url


class Person:
    """At a browser that is signed in with a key; no page may show them a secret."""

    def __init__(self, url: str, key: str) -> None:
        self._browser = httpx.Client(
            base_url=url, headers={"Origin": url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}, timeout=60
        )
        self._browser.post("/login", data={"key": key})

    def opens(self, address: str) -> httpx.Response:
        return self._shown(self._browser.get(address, follow_redirects=True))

    def sends(self, address: str, **fields: str | list[str]) -> httpx.Response:
        return self._shown(self._browser.post(address, data=fields, follow_redirects=True))

    def _shown(self, answer: httpx.Response) -> httpx.Response:
        for each in (*answer.history, answer):
            for canary in CANARIES:
                assert canary not in each.text, each.url
                assert canary not in str(each.headers), each.url
        return answer


def words(answer: httpx.Response) -> str:
    """What a page says, without its markup."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def draft_of(answer: httpx.Response) -> str:
    """The draft that a page is about."""
    found = re.search(r'name="draft" value="([^"]+)"|(?:drafts/|draft=)([\w-]+)', answer.text)
    assert found, answer.text
    return found[1] or found[2]
