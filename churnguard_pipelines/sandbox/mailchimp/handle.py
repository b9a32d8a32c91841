"""One account of a served sandbox, for tests and benches that set it up and know what it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from churnguard_pipelines.sandbox.mailchimp.api import Api
from churnguard_pipelines.sandbox.mailchimp.provider import Mailchimp

T = TypeVar("T")


class MailchimpAccount:
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

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All that an object of the API has now, wherever it is listed, with the ids that its path has."""
        match name:
            case "lists" | "campaigns" | "reports" | "automations":
                return self.all(name, name)
            case "members":
                lists = [each["id"] for each in self.rows("lists")]
                return [
                    row
                    for each in lists
                    for more in ({}, {"status": "archived"})
                    for row in self.all(f"lists/{each}/members", "members", **more)
                ]
            case "segment_members":
                flags = {f"include_{each}": "true" for each in ("cleaned", "unsubscribed", "transactional")}
                return [
                    {**row, "segment_id": str(each["id"])}
                    for each in self.rows("segments")
                    for row in self.all(f"lists/{each['list_id']}/segments/{each['id']}/members", "members", **flags)
                ]
            case "interests":
                return [
                    row
                    for each in self.rows("interest_categories")
                    for row in self.all(f"lists/{each['list_id']}/interest-categories/{each['id']}/interests", name)
                ]
            case "automation_emails":
                return [
                    row
                    for each in self.rows("automations")
                    for row in self.all(f"automations/{each['id']}/emails", "emails")
                ]
            case "email_activity" | "sent_to" | "unsubscribes":
                path, of = _OF_REPORTS[name]
                return [row for each in self.rows("reports") for row in self.all(f"reports/{each['id']}/{path}", of)]
        path, of = _OF_LISTS[name]
        return [
            {**row, "list_id": each["id"]}
            for each in self.rows("lists")
            for row in self.all(f"lists/{each['id']}/{path}", of)
        ]


_OF_REPORTS = {
    "email_activity": ("email-activity", "emails"), "sent_to": ("sent-to", "sent_to"),
    "unsubscribes": ("unsubscribed", "unsubscribes"),
}  # fmt: skip
_OF_LISTS = {
    "merge_fields": ("merge-fields", "merge_fields"), "interest_categories": ("interest-categories", "categories"),
    "segments": ("segments", "segments"), "tags": ("tag-search", "tags"),
}  # fmt: skip
