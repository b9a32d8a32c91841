"""One account of a served sandbox, for tests and benches that set it up and know what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from churnguard_pipelines.sandbox.mailchimp.api import Api
from churnguard_pipelines.sandbox.mailchimp.provider import Mailchimp

T = TypeVar("T")


class AccountHandle:
    """`api_key`: of a user who may see everything; `token`: of OAuth."""

    def __init__(self, mailchimp: Mailchimp, account: str) -> None:
        self.provider, self._account = mailchimp, account
        self.api_key, self.token = mailchimp.api_key(account), mailchimp.token(account)

    def act(self, action: Callable[[Api], T]) -> T:
        """`action(api)` under the lock."""
        with self.provider.world.lock:
            return action(self.provider.api(self._account))

    def api_key_without(self, *paths: str) -> str:
        """Of a user who may not see these parts of paths, e.g. "reports"."""
        return self.provider.api_key(self._account, *paths)

    def subscribe(self, url: str) -> None:
        """Events from now on go there."""
        with self.provider.world.lock:
            self.provider.subscribe(self._account, url)

    def all(self, path: str, rows: str, **parameters: Any) -> list[dict[str, Any]]:
        """Every row of a list, without its links."""

        def read(api: Api) -> list[dict[str, Any]]:
            given = {name: str(value) for name, value in parameters.items()} | {"exclude_fields": f"{rows}._links"}
            found: list[dict[str, Any]] = []
            while True:
                page = api.answer(path, given | {"count": "1000", "offset": str(len(found))})[rows]
                found += page
                if len(page) < 1000:
                    return found

        return self.act(read)
