"""Mailchimp's objects and their columns, each with how it is read."""

from __future__ import annotations

from dataclasses import dataclass

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.columns import columns
from churnguard_pipelines.records import TIMESTAMP

HOUR = 3600


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Listed whole at ``path``, where ``{…}`` stands for each record of another object. ``rows``: the name of the rows
    in an answer; ``own``: what of the path is added to a row; ``every``: seconds between two reads, where one takes
    many calls; ``parameters``: of every call; ``filtered``: the name of the time that the list can be filtered by."""

    rows: str
    own: tuple[str, ...] = ()
    every: int = 0
    parameters: tuple[tuple[str, str], ...] = ()
    filtered: str | None = None


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """Read by ``last_changed``, those that are archived apart."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What recipients of a campaign did: read where its report has changed. ``events``: rows are recipients, who have
    the records inside; ``gate``: of the report, what moves with them."""

    rows: str
    gate: tuple[str, ...]
    events: bool = False
    hidden: str | None = None


_LIST, _SEGMENT = "list_id", "segment_id"
_RECENCY = (
    "opens.last_open", "opens.opens_total", "clicks.last_click", "clicks.clicks_total", "bounces.hard_bounces",
    "bounces.soft_bounces", "bounces.syntax_errors", "emails_sent",
)  # fmt: skip
_RELATION = (("fields", "members.id,members.email_address,members.status,total_items"),
             *((f"include_{each}", "true") for each in ("cleaned", "transactional", "unsubscribed")))  # fmt: skip
_SENT = "campaign_id list_id email_id email_address"


def _of_lists(name: str, rows: str, path: str, created: str = "", **kinds: str) -> Object:
    return Object(
        name, f"/lists/{{list_id}}/{path}", columns(**kinds), key="key", options=ListOptions(rows, own=(_LIST,)),
        created_column=created,
    )  # fmt: skip


OBJECTS: tuple[Object, ...] = (
    Object(
        "lists", "/lists",
        columns(
            TEXT="name visibility", TIMESTAMP="date_created",
            BIGINT="member_count=stats.member_count unsubscribe_count=stats.unsubscribe_count "
            "cleaned_count=stats.cleaned_count campaign_count=stats.campaign_count",
            JSON="stats",
        ),
        options=ListOptions("lists", filtered="date_created"), created_column="date_created",
    ),
    Object(
        "members", "/lists/{list_id}/members",
        columns(
            TEXT="list_id subscriber_hash=id contact_id email_address full_name status language source "
            "unsubscribe_reason",
            BOOLEAN="vip", BIGINT="member_rating",
            TIMESTAMP="timestamp_signup timestamp_opt last_changed", JSON="merge_fields interests tags stats",
        ),
        key="key", options=MemberOptions(), created_column="timestamp_opt",
    ),
    _of_lists("merge_fields", "merge_fields", "merge-fields", TEXT="list_id merge_id tag name type",
              BOOLEAN="required"),
    _of_lists("interest_categories", "categories", "interest-categories", TEXT="list_id category_id=id title type"),
    Object(
        "interests", "/lists/{list_id}/interest-categories/{category_id}/interests",
        columns(TEXT="list_id category_id interest_id=id name", BIGINT="subscriber_count"),
        key="key", options=ListOptions("interests", own=(_LIST, "category_id")), created_column="",
    ),
    _of_lists("segments", "segments", "segments", created="created_at",
              TEXT="list_id segment_id=id name type", BIGINT="member_count", TIMESTAMP="created_at updated_at",
              JSON="options"),
    _of_lists("tags", "tags", "tag-search", TEXT="list_id tag_id=id name"),
    Object(
        "segment_members", "/lists/{list_id}/segments/{segment_id}/members",
        columns(TEXT="list_id segment_id subscriber_hash=id email_address status"),
        key="key", options=ListOptions("members", own=(_LIST, _SEGMENT), every=HOUR, parameters=_RELATION),
        created_column="",
    ),
    Object(
        "campaigns", "/campaigns",
        columns(
            TEXT="type status list_id=recipients.list_id subject_line=settings.subject_line title=settings.title",
            BIGINT="emails_sent", TIMESTAMP="create_time send_time", JSON="recipients settings report_summary",
        ),
        options=ListOptions("campaigns", filtered="create_time"), created_column="create_time",
    ),
    Object(
        "reports", "/reports",
        columns(
            TEXT="list_id campaign_title subject_line type",
            BIGINT="emails_sent abuse_reports unsubscribed opens_total=opens.opens_total "
            "unique_opens=opens.unique_opens clicks_total=clicks.clicks_total unique_clicks=clicks.unique_clicks "
            "hard_bounces=bounces.hard_bounces soft_bounces=bounces.soft_bounces",
            TIMESTAMP="send_time last_open=opens.last_open last_click=clicks.last_click",
            JSON="opens clicks bounces",
        ),
        options=ListOptions("reports"), created_column="send_time",
    ),
    Object(
        "email_activity", "/reports/{campaign_id}/email-activity",
        columns(TEXT=f"{_SENT} action type url ip", TIMESTAMP="timestamp"),
        key="key", options=ReportOptions("emails", _RECENCY, events=True), created_column="timestamp",
    ),
    Object(
        "sent_to", "/reports/{campaign_id}/sent-to",
        columns(TEXT=f"{_SENT} status absplit_group", BIGINT="open_count", TIMESTAMP="last_open"),
        key="key", options=ReportOptions("sent_to", _RECENCY, hidden="sent_to.merge_fields,sent_to.vip"),
        created_column="",
    ),
    Object(
        "unsubscribes", "/reports/{campaign_id}/unsubscribed",
        columns(TEXT=f"{_SENT} reason", TIMESTAMP="timestamp"), key="key",
        options=ReportOptions(
            "unsubscribes", ("unsubscribed",), hidden="unsubscribes.merge_fields,unsubscribes.vip"
        ),
        created_column="timestamp",
    ),
    Object(
        "automations", "/automations",
        columns(
            TEXT="status list_id=recipients.list_id title=settings.title", BIGINT="emails_sent",
            TIMESTAMP="create_time start_time", JSON="recipients settings",
        ),
        options=ListOptions("automations"), created_column="create_time",
    ),
    Object(
        "automation_emails", "/automations/{workflow_id}/emails",
        columns(
            TEXT="workflow_id status subject_line=settings.subject_line", BIGINT="position emails_sent",
            TIMESTAMP="create_time start_time send_time", JSON="settings delay",
        ),
        options=ListOptions("emails", own=("workflow_id",)), created_column="create_time",
    ),
)  # fmt: skip


def moments(item: Object) -> tuple[tuple[str, ...], ...]:
    """The paths of an object's times."""
    return tuple(tuple(each.source_path.split(".")) for each in item.columns if each.type is TIMESTAMP)
