"""Records of a business's e-mail marketing as Mailchimp's API shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from churnguard_pipelines.sandbox.business.mailing import (
    Audience,
    Automation,
    Campaign,
    Category,
    Group,
    Mailing,
    Member,
)
from churnguard_pipelines.sandbox.mailchimp.ids import contact_id, iso, subscriber_hash, ten

Row = dict[str, Any]
TAGS = {"first_name": "FNAME", "last_name": "LNAME", "phone": "PHONE", "company": "COMPANY", "seats": "SEATS",
        "customer_since": "SINCE"}  # fmt: skip
FIRST_SEGMENT = 2_225_000


def links(*path: str) -> list[Row]:
    """A good part of every body, as long as nobody asks to leave it out."""
    base = "https://us21.api.mailchimp.com"
    return [
        {"rel": rel, "href": f"{base}/3.0/{'/'.join(path)}", "method": "GET",
         "targetSchema": f"{base}/schema/3.0/Definitions/{path[0]}/Response.json"}
        for rel in ("self", "parent")
    ]  # fmt: skip


def merge_tag(field: str) -> str:
    return TAGS.get(field, field.upper()[:10])


class Renderer:
    """Of one account."""

    def __init__(self, account: str, mailing: Mailing) -> None:
        self._account, self._mailing = account, mailing

    def list_id(self, audience: int) -> str:
        return ten(self._account, "list", audience)

    def campaign_id(self, campaign: int) -> str:
        return ten(self._account, "campaign", campaign)

    def interest_id(self, interest: int) -> str:
        return ten(self._account, "interest", interest)

    def audience(self, home: Audience) -> Row:
        by_status = Counter("archived" if each.archived else each.status for each in home.members.values())
        sent = [each.sent_at for each in self._mailing.campaigns.values() if each.audience == home.id and each.sent_at]
        id = self.list_id(home.id)
        return {
            "id": id, "web_id": 615_000 + home.id, "name": home.name,
            "contact": {"company": self._mailing.business.profile.title, "address1": "1 Main Street", "city": "Austin"},
            "permission_reminder": "You are receiving this email because you opted in via our website.",
            "use_archive_bar": True, "campaign_defaults": {"from_name": "Marketing", "language": "en"},
            "notify_on_subscribe": "", "notify_on_unsubscribe": "", "date_created": iso(home.created),
            "list_rating": 0, "email_type_option": False, "visibility": "prv", "double_optin": False,
            "has_welcome": False, "marketing_permissions": False, "modules": [],
            "stats": {
                "member_count": by_status["subscribed"], "unsubscribe_count": by_status["unsubscribed"],
                "cleaned_count": by_status["cleaned"], "campaign_count": len(sent),
                "campaign_last_sent": iso(max(sent, default=None)),
            },
            "_links": links("Lists", id),
        }  # fmt: skip

    def member(self, member: Member) -> Row:
        home = self._mailing.audiences[member.audience]
        tags = [{"id": self.group_id(home.tags[tag]), "name": tag} for tag in member.tags]
        row = self._member(member)
        row |= {
            "contact_id": contact_id(self._account, member.id), "web_id": 360_000_000 + member.id,
            "consents_to_one_to_one_messaging": True, "sms_phone_number": "", "source": "API - Generic",
            "tags_count": len(tags), "tags": tags,
        }  # fmt: skip
        return row

    def segment_member(self, member: Member) -> Row:
        """Without contact_id and tags."""
        return self._member(member)

    def _member(self, member: Member) -> Row:
        list_id, id = self.list_id(member.audience), subscriber_hash(member.email)
        status = "archived" if member.archived else member.status
        first, last = member.values.get("first_name") or "", member.values.get("last_name") or ""
        home = self._mailing.audiences[member.audience]
        chosen = {
            self.interest_id(each): each in member.interests
            for category in home.categories
            for each in category.interests
        }
        return {
            "id": id, "email_address": member.email, "unique_email_id": ten("email", member.email.lower()),
            "full_name": f"{first} {last}".strip(), "email_type": "html", "status": status,
            **({"unsubscribe_reason": member.reason} if status == "unsubscribed" and member.reason else {}),
            "merge_fields": {merge_tag(name): member.values.get(name, "") for name in home.fields},
            "interests": chosen, "stats": {"avg_open_rate": 0, "avg_click_rate": 0},
            "ip_signup": "", "timestamp_signup": iso(member.joined if member.status == "pending" else None),
            "ip_opt": "198.51.100.7", "timestamp_opt": iso(None if member.status == "pending" else member.joined),
            "member_rating": 2, "last_changed": iso(member.changed), "language": member.language, "vip": member.vip,
            "email_client": "", "location": {"latitude": 0, "longitude": 0, "country_code": "", "timezone": ""},
            "list_id": list_id, "_links": links("Lists", list_id, "members", id),
        }  # fmt: skip

    def group_id(self, group: Group) -> int:
        return FIRST_SEGMENT + group.id

    def segment(self, home: Audience, group: Group, members: Iterable[Member]) -> Row:
        list_id = self.list_id(home.id)
        row: Row = {
            "id": self.group_id(group), "name": group.name,
            "member_count": sum(each.reachable for each in members),
            "type": "static" if group.language is None else "saved",
            "created_at": iso(group.created), "updated_at": iso(group.changed), "list_id": list_id,
            "_links": links("Lists", list_id, "segments", str(self.group_id(group))),
        }  # fmt: skip
        if group.language is not None:
            condition = {"condition_type": "Language", "field": "language", "op": "is", "value": group.language}
            row["options"] = {"match": "all", "conditions": [condition]}
        return row

    def tag(self, group: Group) -> Row:
        return {"id": self.group_id(group), "name": group.name}

    def merge_field(self, home: Audience, place: int, name: str, kind: str) -> Row:
        list_id = self.list_id(home.id)
        return {
            "merge_id": place + 1, "tag": merge_tag(name), "name": name.replace("_", " ").title(), "type": kind,
            "required": False, "default_value": "", "public": False, "display_order": place + 2, "options": {},
            "help_text": "", "list_id": list_id, "_links": links("Lists", list_id, "merge-fields", str(place + 1)),
        }  # fmt: skip

    def category_id(self, category: Category) -> str:
        return ten(self._account, "category", category.id)

    def category(self, home: Audience, category: Category) -> Row:
        list_id, id = self.list_id(home.id), self.category_id(category)
        return {"list_id": list_id, "id": id, "title": category.title, "display_order": 0, "type": "checkboxes",
                "_links": links("Lists", list_id, "interest-categories", id)}  # fmt: skip

    def interest(self, home: Audience, category: Category, interest: int, name: str) -> Row:
        wanting = sum(interest in each.interests and each.reachable for each in home.members.values())
        list_id, id = self.list_id(home.id), self.interest_id(interest)
        return {
            "category_id": self.category_id(category), "list_id": list_id, "id": id, "name": name,
            "subscriber_count": str(wanting), "display_order": 1, "_links": links("Lists", list_id, id),
        }  # fmt: skip

    def campaign(self, campaign: Campaign) -> Row:
        id, sent = self.campaign_id(campaign.id), campaign.sent_at is not None
        return {
            "id": id, "web_id": 400_000 + campaign.id, "type": "regular", "create_time": iso(campaign.created),
            "archive_url": f"http://eepurl.com/{id}", "status": "sent" if sent else "save",
            "emails_sent": len(campaign.sent), "send_time": iso(campaign.sent_at), "content_type": "template",
            "recipients": {"list_id": self.list_id(campaign.audience), "list_is_active": True,
                           "list_name": self._mailing.audiences[campaign.audience].name, "segment_text": ""},
            "settings": {"subject_line": campaign.subject, "title": campaign.title, "from_name": "Marketing",
                         "reply_to": "marketing@example.com"},
            "tracking": {"opens": True, "html_clicks": True},
            **({"report_summary": self._summary(campaign)} if sent else {}),
            "_links": links("Campaigns", id),
        }  # fmt: skip

    def report(self, campaign: Campaign) -> Row:
        id, bounced = (
            self.campaign_id(campaign.id),
            Counter(each.kind for done in campaign.did.values() for each in done if each.action == "bounce"),
        )
        opens, clicks = self._times(campaign, "open"), self._times(campaign, "click")
        return {
            "id": id, "campaign_title": campaign.title, "type": "regular", "list_id": self.list_id(campaign.audience),
            "list_is_active": True, "list_name": self._mailing.audiences[campaign.audience].name,
            "subject_line": campaign.subject, "preview_text": "", "emails_sent": len(campaign.sent),
            "abuse_reports": 0, "unsubscribed": len(campaign.left), "send_time": iso(campaign.sent_at),
            "bounces": {"hard_bounces": bounced["hard"], "soft_bounces": bounced["soft"], "syntax_errors": 0},
            "opens": {"opens_total": len(opens), "unique_opens": self._unique(campaign, "open"),
                      "last_open": iso(max(opens, default=None))},
            "clicks": {"clicks_total": len(clicks), "unique_clicks": self._unique(campaign, "click"),
                       "last_click": iso(max(clicks, default=None))},
            "_links": links("Reports", id),
        }  # fmt: skip

    def _summary(self, campaign: Campaign) -> Row:
        return {"opens": len(self._times(campaign, "open")), "unique_opens": self._unique(campaign, "open"),
                "clicks": len(self._times(campaign, "click"))}  # fmt: skip

    @staticmethod
    def _times(campaign: Campaign, action: str) -> list[int]:
        return [each.at for done in campaign.did.values() for each in done if each.action == action]

    @staticmethod
    def _unique(campaign: Campaign, action: str) -> int:
        return sum(any(each.action == action for each in done) for done in campaign.did.values())

    def activity(self, campaign: Campaign, member: int, since: int) -> Row:
        """`since` leaves events out, never the recipient."""
        events: list[Row] = []
        for did in campaign.did.get(member, ()):
            if did.at <= since:
                continue
            event: Row = {"action": did.action, "timestamp": iso(did.at)}
            if did.action == "bounce":
                event["type"] = did.kind
            else:
                event |= {"ip": "203.0.113.9", **({"url": did.url} if did.url else {})}
            events.append(event)
        return {**self._recipient(campaign, member), "activity": events, "_links": links("Reports", "email-activity")}

    def sent_to(self, campaign: Campaign, member: int) -> Row:
        done = campaign.did.get(member, ())
        opened = [each.at for each in done if each.action == "open"]
        bounces = [each.kind for each in done if each.action == "bounce"]
        return {
            **self._recipient(campaign, member), **self._as_now(campaign, member),
            "status": "hard" if "hard" in bounces else "soft" if bounces else "sent",
            "open_count": len(opened), "last_open": iso(max(opened, default=None)), "absplit_group": "",
            "gmt_offset": 0, "_links": links("Reports", "sent-to"),
        }  # fmt: skip

    def unsubscribe(self, campaign: Campaign, member: int) -> Row:
        at, reason = campaign.left[member]
        return {**self._recipient(campaign, member), **self._as_now(campaign, member), "timestamp": iso(at),
                "reason": reason or "None given", "_links": links("Reports", "unsubscribed")}  # fmt: skip

    def _recipient(self, campaign: Campaign, member: int) -> Row:
        email = campaign.sent[member]
        return {
            "campaign_id": self.campaign_id(campaign.id), "list_id": self.list_id(campaign.audience),
            "list_is_active": True, "email_id": subscriber_hash(email), "email_address": email,
        }  # fmt: skip

    def _as_now(self, campaign: Campaign, member: int) -> Row:
        found = self._mailing.member(campaign.audience, member)
        home = self._mailing.audiences[campaign.audience]
        values = found.values if found else {}
        return {"vip": bool(found and found.vip),
                "merge_fields": {merge_tag(name): values.get(name, "") for name in home.fields}}  # fmt: skip

    def automation(self, automation: Automation) -> Row:
        id = ten(self._account, "automation", automation.id)
        return {
            "id": id, "create_time": iso(automation.created), "start_time": iso(automation.created + 60),
            "status": "sending" if automation.running else "paused", "emails_sent": sum(automation.emails.values()),
            "recipients": {"list_id": self.list_id(automation.audience), "list_is_active": True},
            "settings": {"title": automation.title, "from_name": "Marketing"}, "_links": links("Automations", id),
        }  # fmt: skip

    def automation_email(self, automation: Automation, position: int, subject: str, sent: int) -> Row:
        workflow = ten(self._account, "automation", automation.id)
        return {
            "id": ten(workflow, position), "web_id": 500_000 + automation.id * 10 + position, "workflow_id": workflow,
            "position": position, "delay": {"amount": position, "type": "day"},
            "create_time": iso(automation.created), "start_time": iso(automation.created + 60),
            "status": "sending" if automation.running else "paused", "emails_sent": sent,
            "send_time": iso(automation.created + 60), "settings": {"subject_line": subject, "title": subject},
            "_links": links("Automations", workflow, "emails"),
        }  # fmt: skip
