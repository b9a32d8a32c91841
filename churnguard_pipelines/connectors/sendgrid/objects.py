"""SendGrid's objects and their columns, each with how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from churnguard_pipelines.connectors.sdk import Object
from churnguard_pipelines.connectors.sdk.columns import columns


class Way(StrEnum):
    """How an object is read."""

    SUPPRESSED = "suppressed"
    STATISTICS = "statistics"
    LIST = "list"
    CONTACTS = "contacts"
    ACTIVITY = "activity"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Options:
    """``scope``: what a key needs for it; empty: nothing."""

    way: Way
    scope: str


METRICS = (
    "blocks bounce_drops bounces clicks deferred delivered invalid_emails opens processed requests spam_report_drops "
    "spam_reports unique_clicks unique_opens unsubscribe_drops unsubscribes"
)
OF_PROVIDERS = "blocks bounces deferred delivered drops processed requests spam_reports"
OF_MARKETING = (
    "bounce_drops bounces clicks delivered invalid_emails opens requests spam_report_drops spam_reports unique_clicks "
    "unique_opens unsubscribes"
)


def _within(name: str, metrics: str) -> str:
    return " ".join(f"{each}={name}.{each}" for each in metrics.split())


def _suppressed(name: str, texts: str = "") -> Object:
    options = Options(Way.SUPPRESSED, f"suppression.{name}.read")
    return Object(
        name, f"suppression/{name}", columns(TIMESTAMP="created", TEXT=texts), key="email", options=options
    )  # fmt: skip


def _statistics(name: str, path: str, scope: str, metrics: str, texts: str = "") -> Object:
    made = columns(DATE="date", TEXT=texts, BIGINT=_within("metrics", metrics))
    return Object(name, path, made, key="key", options=Options(Way.STATISTICS, scope), created_column="")


def _list(
    name: str, path: str, *, key: str = "id", scope: str = "marketing.read", created: str = "", **kinds: str
) -> Object:
    return Object(name, path, columns(**kinds), key=key, options=Options(Way.LIST, scope), created_column=created)


_OF_AUTOMATIONS = "automation_id=id step_id aggregation"
OBJECTS: tuple[Object, ...] = (
    _suppressed("bounces", "reason status"),
    _suppressed("blocks", "reason status"),
    _suppressed("invalid_emails", "reason"),
    _suppressed("spam_reports", "ip"),
    _suppressed("unsubscribes"),
    _list(
        "unsubscribe_groups", "asm/groups", scope="asm.groups.read", TEXT="name description", BOOLEAN="is_default",
        BIGINT="unsubscribes",
    ),
    _list(
        "group_unsubscribes", "asm/suppressions", key="key", scope="asm.groups.suppressions.read",
        TEXT="email group_name", BIGINT="group_id", TIMESTAMP="created_at",
    ),
    _statistics("global_stats", "stats", "stats.global.read", METRICS),
    _statistics("category_stats", "categories/stats", "categories.stats.read", METRICS, "category=name"),
    _statistics("subuser_stats", "subusers/stats", "subusers.stats.read", METRICS, "subuser=name"),
    _statistics(
        "mailbox_provider_stats", "mailbox_providers/stats", "mailbox_providers.stats.read", OF_PROVIDERS,
        "mailbox_provider=name",
    ),
    _list("subusers", "subusers", scope="subusers.read", TEXT="username email", BOOLEAN="disabled"),
    _list("lists", "marketing/lists", TEXT="name", BIGINT="contact_count"),
    _list(
        "segments", "marketing/segments/2.0", TEXT="name query_version", BIGINT="contacts_count",
        TIMESTAMP="created_at updated_at sample_updated_at", JSON="parent_list_ids status",
    ),
    Object(
        "contacts", "marketing/contacts/exports",
        columns(
            TEXT="email first_name last_name city state_province_region postal_code country phone_number unique_name",
            TIMESTAMP="created_at updated_at",
        ),
        key="contact_id", options=Options(Way.CONTACTS, "marketing.read"), created_column="",
    ),
    _list(
        "single_sends", "marketing/singlesends", TEXT="name status", BOOLEAN="is_abtest",
        TIMESTAMP="send_at created_at updated_at", JSON="categories",
    ),
    _list(
        "single_send_stats", "marketing/stats/singlesends", key="key",
        TEXT="single_send_id=id ab_variation ab_phase aggregation", BIGINT=_within("stats", OF_MARKETING),
    ),
    _list("automations", "marketing/stats/automations", BIGINT=_within("stats", OF_MARKETING)),
    Object(
        "automation_stats", "marketing/stats/automations",
        columns(DATE="date", TEXT=_OF_AUTOMATIONS, BIGINT=_within("stats", OF_MARKETING)),
        key="key", options=Options(Way.STATISTICS, "marketing.read"), created_column="",
    ),
    _list(
        "templates", "templates", scope="templates.read", TEXT="name generation", TIMESTAMP="updated_at",
        JSON="versions",
    ),
    Object(
        "messages", "messages",
        columns(
            TEXT="message_id from_email to_email subject status", BIGINT="opens_count clicks_count",
            TIMESTAMP="last_event_time",
        ),
        key="msg_id", options=Options(Way.ACTIVITY, "messages.read"), created_column="",
    ),
    Object(
        "events", "",
        columns(
            TEXT="event email message_id sg_message_id single_send_id=singlesend_id single_send_name=singlesend_name "
            "automation_id=mc_auto_id automation_name=mc_auto_name template_id=sg_template_id type status reason "
            "response bounce_classification url ip useragent",
            BIGINT="asm_group_id", BOOLEAN="sg_machine_open", TIMESTAMP="occurred_at", JSON="category",
        ),
        key="sg_event_id", options=Options(Way.EVENTS, ""), created_column="",
    ),
)  # fmt: skip
"""Every object that an account may have. ``events`` come by the event webhook and in no other way."""
