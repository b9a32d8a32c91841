"""The paths below /3.0/: which rows each lists, which of them a request wants, and what of them it wants to see.

`since_…` is exclusive, `before_…` inclusive, both by the second. `count` is clamped at 1,000 without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from churnguard_pipelines.sandbox.business.mailing import Audience, Campaign, Category, Group, Mailing, Member
from churnguard_pipelines.sandbox.mailchimp import errors
from churnguard_pipelines.sandbox.mailchimp.ids import subscriber_hash, ten
from churnguard_pipelines.sandbox.mailchimp.render import Renderer, Row, links

MOST = 1000
DEFAULT = 10
_FLAGS = {"unsubscribed": "include_unsubscribed", "cleaned": "include_cleaned", "pending": "include_transactional"}
Parameters = Mapping[str, str]


class Api:
    """One account's. Used under the world's lock."""

    def __init__(self, account: str, mailing: Mailing) -> None:
        self._account, self._mailing = account, mailing
        self.render = Renderer(account, mailing)
        self._sorted: tuple[object, dict[tuple[int, bool], list[Member]]] = (None, {})

    def answer(self, path: str, parameters: Parameters) -> Row:
        """`path` without /3.0/. Refusal."""
        match path.strip("/").split("/"):
            case [""]:
                return self._shaped(self._account_row(), parameters)
            case ["ping"]:
                return {"health_status": "Everything's Chimpy!"}
            case ["lists"]:
                wanted = _within("date_created", parameters)
                homes = [each for each in self._mailing.audiences.values() if wanted(each.created)]
                return self._page("lists", homes, self.render.audience, parameters)
            case ["lists", id, *rest]:
                return self._list(self._audience(id), rest, parameters)
            case ["campaigns"]:
                wanted = _within("create_time", parameters)
                found = [each for each in self._mailing.campaigns.values() if wanted(each.created)]
                return self._page("campaigns", found, self.render.campaign, parameters)
            case ["campaigns", id]:
                return self._shaped(self.render.campaign(self._campaign(id)), parameters)
            case ["reports"]:
                sent = [each for each in self._mailing.campaigns.values() if each.sent_at is not None]
                return self._page("reports", sent, self.render.report, parameters)
            case ["reports", id, kind]:
                return self._report(self._campaign(id), kind, parameters)
            case ["automations"]:
                found_automations = list(self._mailing.automations.values())
                return self._page("automations", found_automations, self.render.automation, parameters)
            case ["automations", id, "emails"]:
                for each in self._mailing.automations.values():
                    if ten(self._account, "automation", each.id) == id:
                        rows = [
                            self.render.automation_email(each, place + 1, subject, sent)
                            for place, (subject, sent) in enumerate(each.emails.items())
                        ]
                        return self._shaped({"emails": rows, "total_items": len(rows)}, parameters)  # all, always
        raise errors.not_found()

    # Lists and what they have

    def _list(self, home: Audience, rest: Sequence[str], parameters: Parameters) -> Row:
        render = self.render
        list_id = render.list_id(home.id)
        match rest:
            case []:
                return self._shaped(render.audience(home), parameters)
            case ["members"]:
                wanted = self._members(home, parameters)
                return self._page("members", wanted, render.member, parameters, list_id=list_id)
            case ["members", id]:
                member = next((each for each in home.members.values() if subscriber_hash(each.email) == id), None)
                if member is None:
                    raise errors.not_found()
                return self._shaped(render.member(member), parameters)
            case ["segments"]:
                changed = _within("updated_at", parameters)
                groups = [each for each in (*home.tags.values(), *home.segments.values()) if changed(each.changed)]
                return self._page(
                    "segments", groups, lambda each: render.segment(home, each, self._of(home, each)), parameters,
                    list_id=list_id,
                )  # fmt: skip
            case ["segments", id, "members"]:
                group = self._group(home, id)
                there = [each for each in self._of(home, group) if not each.archived]
                shown = [each for each in there if _shown(each, parameters)]
                # What the flags add is in the rows but not in the total
                total = sum(each.status == "subscribed" for each in there)
                return self._page("members", shown, render.segment_member, parameters, total=total)
            case ["tag-search"]:
                named = [each for each in home.tags.values() if parameters.get("name", "").lower() in each.name.lower()]
                return self._page("tags", named, render.tag, parameters)
            case ["merge-fields"]:
                fields = list(enumerate(home.fields.items()))
                return self._page(
                    "merge_fields", fields, lambda each: render.merge_field(home, each[0], *each[1]), parameters,
                    list_id=list_id,
                )  # fmt: skip
            case ["interest-categories"]:
                return self._page(
                    "categories", home.categories, lambda each: render.category(home, each), parameters, list_id=list_id
                )
            case ["interest-categories", id, "interests"]:
                category = self._category(home, id)
                topics = list(category.interests.items())
                return self._page(
                    "interests", topics, lambda each: render.interest(home, category, *each), parameters,
                    list_id=list_id, category_id=id,
                )  # fmt: skip
        raise errors.not_found()

    def _members(self, home: Audience, parameters: Parameters) -> list[Member]:
        status = parameters.get("status")
        changed, opted_in = _within("last_changed", parameters), _within("timestamp_opt", parameters)
        found = [
            each for each in self._by_change(home, archived=status == "archived")
            if changed(each.changed) and opted_in(None if each.status == "pending" else each.joined)
            and (status in (None, "archived") or each.status == status)
        ]  # fmt: skip
        if parameters.get("sort_field") == "last_changed":
            return found[::-1] if parameters.get("sort_dir", "").upper() == "DESC" else found
        return sorted(found, key=lambda each: each.joined)

    def _by_change(self, home: Audience, archived: bool) -> list[Member]:
        """Kept until something happens."""
        state = (len(self._mailing.changes), self._mailing.known)
        if self._sorted[0] != state:
            self._sorted = (state, {})
        kept = self._sorted[1]
        if (home.id, archived) not in kept:
            members = [each for each in home.members.values() if each.archived is archived]
            kept[home.id, archived] = sorted(members, key=lambda each: (each.changed, each.id))
        return kept[home.id, archived]

    def _of(self, home: Audience, group: Group) -> Iterable[Member]:
        if group.language is None:
            return self._mailing.tagged(home.id, group.name)
        return self._mailing.in_segment(home.id, group.name)

    # Reports

    def _report(self, campaign: Campaign, kind: str, parameters: Parameters) -> Row:
        render, id = self.render, self.render.campaign_id(campaign.id)
        recipients = list(campaign.sent)
        match kind:
            case "email-activity":
                since = _instant("since", parameters["since"]) if "since" in parameters else 0
                return self._page(
                    "emails",
                    recipients,
                    lambda each: render.activity(campaign, each, since),
                    parameters,
                    campaign_id=id,
                )
            case "sent-to":
                return self._page(
                    "sent_to", recipients, lambda each: render.sent_to(campaign, each), parameters, campaign_id=id
                )
            case "unsubscribed":
                left = list(campaign.left)
                return self._page(
                    "unsubscribes", left, lambda each: render.unsubscribe(campaign, each), parameters, campaign_id=id
                )
        raise errors.not_found()

    # By id

    def _audience(self, id: str) -> Audience:
        for each in self._mailing.audiences.values():
            if self.render.list_id(each.id) == id:
                return each
        raise errors.not_found()

    def _campaign(self, id: str) -> Campaign:
        for each in self._mailing.campaigns.values():
            if self.render.campaign_id(each.id) == id:
                return each
        raise errors.not_found()

    def _group(self, home: Audience, id: str) -> Group:
        for each in (*home.tags.values(), *home.segments.values()):
            if str(self.render.group_id(each)) == id:
                return each
        raise errors.not_found()

    def _category(self, home: Audience, id: str) -> Category:
        for each in home.categories:
            if self.render.category_id(each) == id:
                return each
        raise errors.not_found()

    def _account_row(self) -> Row:
        return {
            "account_id": ten(self._account, "account") + "f0e1d2c3b4a5a6b7", "login_id": "80123", "role": "owner",
            "account_name": self._mailing.business.profile.title, "email": f"marketing@{self._account}.example.com",
            "total_subscribers": sum(len(each.members) for each in self._mailing.audiences.values()),
            "_links": links("Root"),
        }  # fmt: skip

    # What a request wants to see

    def _page(
        self, name: str, rows: Sequence[Any], render: Callable[[Any], Row], parameters: Parameters,
        total: int | None = None, **around: str,
    ) -> Row:  # fmt: skip
        offset = _number("offset", parameters, 0)
        count = min(_number("count", parameters, DEFAULT), MOST)
        shown = [render(each) for each in rows[offset : offset + count]]
        body = {name: shown, **around, "total_items": len(rows) if total is None else total, "_links": links("Root")}
        return self._shaped(body, parameters)

    def _shaped(self, body: Row, parameters: Parameters) -> Row:
        wanted, unwanted = parameters.get("fields"), parameters.get("exclude_fields")
        if wanted and unwanted:
            raise errors.invalid("fields and exclude_fields cannot be used together.")
        for path in (unwanted or "").split(","):
            _leave_out(body, path.split("."))
        return _only(body, [path.split(".") for path in wanted.split(",")]) if wanted else body


def _leave_out(within: Any, path: list[str]) -> None:
    if isinstance(within, list):
        for each in within:
            _leave_out(each, path)
    elif isinstance(within, dict):
        if len(path) == 1:
            within.pop(path[0], None)
        else:
            _leave_out(within.get(path[0]), path[1:])


def _only(within: Any, paths: list[list[str]]) -> Any:
    if isinstance(within, list):
        return [_only(each, paths) for each in within]
    if not isinstance(within, dict) or [] in paths:
        return within
    firsts = dict.fromkeys(path[0] for path in paths)
    return {
        name: _only(within[name], [path[1:] for path in paths if path[0] == name]) for name in firsts if name in within
    }


def _shown(member: Member, parameters: Parameters) -> bool:
    return member.status == "subscribed" or parameters.get(_FLAGS[member.status]) == "true"


def _within(name: str, parameters: Parameters) -> Callable[[int | None], bool]:
    """Whether a time is after `since_…` and not after `before_…`. What has no time is in no span of it."""
    since, before = (_bound(f"{edge}_{name}", parameters) for edge in ("since", "before"))
    if since is None and before is None:
        return lambda at: True
    return lambda at: at is not None and (since is None or at > since) and (before is None or at <= before)


def _bound(name: str, parameters: Parameters) -> int | None:
    return _instant(name, parameters[name]) if name in parameters else None


def _instant(name: str, given: str) -> int:
    try:
        return int(datetime.fromisoformat(given).timestamp())
    except ValueError:
        raise errors.invalid(f"{name}: Value must be a valid date-time.") from None


def _number(name: str, parameters: Parameters, default: int) -> int:
    given = parameters.get(name)
    if given is None:
        return default
    if not given.isdigit():
        raise errors.invalid(f"{name}: Value must be a positive integer.")
    return int(given)
