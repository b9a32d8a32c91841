"""How a business's customers come to be in its audiences, and what it has sent them over the last year.

Members are the addresses that get the invoices, users of the product database (`user1@{customer}.example.com`) and, for
every fifth customer, somebody with a free-mail address whom no other system knows. Many are in both audiences. Each
customer's part follows from the seed and the customer alone, so it makes no difference when it is asked for.
"""

from __future__ import annotations

from random import Random

from churnguard_pipelines.sandbox.business.crm_history import mail_of, person
from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.business.instants import DAY, HOUR, add_months, utc_date
from churnguard_pipelines.sandbox.business.mailing import (
    Audience,
    Automation,
    Campaign,
    Category,
    Did,
    Group,
    Mailing,
    Member,
)

NEWS, PRODUCT = 1, 2
AUDIENCES = ((NEWS, "Newsletter"), (PRODUCT, "Product updates"))
FIELDS = {"first_name": "text", "last_name": "text", "phone": "phone", "company": "text", "seats": "number",
          "customer_since": "date"}  # fmt: skip
TAGS = ("Customer", "Trial", "Webinar 2025")
LANGUAGES = ("en", "de", "fr")
TOPICS = ("Releases", "Events", "Prices")
REASONS = ("NORMAL", "No longer interested", None)
URLS = ("https://example.com/news", "https://example.com/pricing?utm_source=mail")
MONTHS = 12


def catch_up(mailing: Mailing) -> None:
    """Everybody who became a customer since the last time joins."""
    customers = mailing.business.customers
    if not mailing.audiences:
        _open(mailing)
        _take(mailing, customers.after(mailing.business.anchor))
        _campaigns(mailing)
    _take(mailing, customers.after(mailing.business.now))


def _take(mailing: Mailing, end: int) -> None:
    for place in range(mailing.known, end):
        _join(mailing, mailing.business.customers.record(place))
    mailing.known = max(mailing.known, end)


def _open(mailing: Mailing) -> None:
    at = mailing.business.opened
    for number, name in AUDIENCES:
        home = mailing.audiences[number] = Audience(number, name, at + number, fields=dict(FIELDS))
        home.tags = {tag: Group(mailing.new_id(), tag, at, at) for tag in TAGS}
        home.segments = {
            f"Speak {each}": Group(mailing.new_id(), f"Speak {each}", at, at, each) for each in LANGUAGES[1:]
        }
        topics = {mailing.new_id(): topic for topic in TOPICS}
        home.categories = [Category(mailing.new_id(), "Topics", topics)]
    for running, title in ((True, "Welcome"), (False, "Win back")):
        made = Automation(mailing.new_id(), NEWS, title, at + DAY, running, {f"{title} {n}": 40 * n for n in (1, 2, 3)})
        mailing.automations[made.id] = made


def _join(mailing: Mailing, customer: Customer) -> None:
    rng = Random(f"{mailing.business.profile.name}/mail/{customer.id}")  # noqa: S311 - must come out the same again
    users = [f"user{number + 1}@{customer.id}.example.com" for number in range(rng.randrange(4))]
    who = person(rng)
    people = [(customer.email, who, 0.8, 0.5), *((each, person(rng), 0.4, 0.8) for each in users)]
    if customer.place % 5 == 0:
        stranger = person(rng)
        people.append((mail_of(rng, stranger), stranger, 1.0, 0.0))
    for email, named, news, product in people:
        values = {
            "first_name": named["first_name"], "last_name": named["last_name"], "phone": named["phone"],
            "company": customer.name, "seats": 1 + customer.place % 5,
            "customer_since": utc_date(customer.created).isoformat(),
        }  # fmt: skip
        for audience, share in ((NEWS, news), (PRODUCT, product)):
            # Another customer may have the same address
            if rng.random() < share and email.lower() not in mailing.audiences[audience].by_email:
                _member(mailing, audience, email, values, customer, rng)


def _member(
    mailing: Mailing, audience: int, email: str, values: dict[str, object], customer: Customer, rng: Random
) -> None:
    anchor, home = mailing.business.anchor, mailing.audiences[audience]
    if customer.created > anchor:
        mailing.subscribe(audience, email, at=customer.created, **values)
        return
    joined = rng.randint(customer.created, anchor)
    # Half of all members were never touched again
    changed = joined if rng.random() < 0.5 else rng.randint(joined, anchor)
    member = mailing.add(audience, email, joined, dict(values), changed)
    member.language, member.vip = rng.choice(LANGUAGES), rng.random() < 0.03
    member.tags = {tag: joined for tag in TAGS if rng.random() < 0.3}
    member.interests = {topic for topic in home.categories[0].interests if rng.random() < 0.3}
    luck = rng.random()
    if luck < 0.12:
        member.status = "unsubscribed" if luck < 0.09 else "cleaned"
        member.left_at = member.changed = rng.randint(joined, anchor)
        member.reason = rng.choice(REASONS) if luck < 0.09 else None
    elif luck < 0.16:
        member.archived = True


def _campaigns(mailing: Mailing) -> None:
    anchor = mailing.business.anchor
    rng = Random(f"{mailing.business.seed}/{mailing.business.profile.name}/mail")  # noqa: S311 - as above
    # The last one went out two days ago: what becomes of it is still under way
    months = [add_months(anchor - 2 * DAY, -number) for number in reversed(range(MONTHS))]
    for number, at in enumerate(months):
        for audience, every in ((NEWS, 1), (PRODUCT, 3)):
            if number % every == 0:
                title = f"{mailing.audiences[audience].name} {utc_date(at):%B %Y}"
                _sent(mailing, Campaign(mailing.new_id(), audience, title, title, at - DAY), at, rng)
    draft = Campaign(mailing.new_id(), NEWS, "Not sent yet", "Coming soon", anchor - DAY)
    mailing.campaigns[draft.id] = draft


def _sent(mailing: Mailing, campaign: Campaign, at: int, rng: Random) -> None:
    mailing.campaigns[campaign.id] = campaign
    campaign.sent_at = at
    for member in mailing.audiences[campaign.audience].members.values():
        if member.joined <= at and not member.archived and _had_not_left(member, at):
            campaign.sent[member.id] = member.email
            _react(mailing, campaign, member, at, rng)


def _had_not_left(member: Member, at: int) -> bool:
    return member.left_at is None or member.left_at >= at


def _react(mailing: Mailing, campaign: Campaign, member: Member, at: int, rng: Random) -> None:
    anchor, luck = mailing.business.anchor, rng.random()
    did: list[Did] = []
    if member.status == "cleaned" and member.left_at is not None and member.left_at < at + 31 * DAY:
        did.append(Did("bounce", min(at + rng.randrange(1, HOUR), anchor), kind="hard"))
        member.left_at = member.changed = did[0].at
    elif luck < 0.02:
        did.append(Did("bounce", min(at + rng.randrange(1, 2 * DAY), anchor), kind="soft"))
    elif luck < 0.35:
        opened = min(at + rng.randrange(60, 2 * DAY), anchor)
        did.append(Did("open", opened))
        if luck < 0.12:
            did.append(Did("click", min(opened + rng.randrange(5, HOUR), anchor), rng.choice(URLS)))
        if luck < 0.05:
            did.append(Did("open", min(opened + rng.randrange(HOUR, 9 * DAY), anchor)))
    if did:
        campaign.did[member.id] = sorted(did, key=lambda each: each.at)
    if member.status == "unsubscribed" and member.left_at is not None and member.left_at < at + 20 * DAY:
        campaign.left[member.id] = (member.left_at, member.reason)
