"""Lets things happen in a business's mailings: one at a time, drawn by chance that follows from the seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from churnguard_pipelines.sandbox.business.crm_history import mail_of, person
from churnguard_pipelines.sandbox.business.mailing import Audience, Campaign, Mailing, Member
from churnguard_pipelines.sandbox.business.mailing.history import LANGUAGES, REASONS, TAGS, URLS


def happen(mailing: Mailing) -> None:
    """One thing; somebody joins where nobody fits."""
    mailing.happened += 1
    rng = Random(f"{mailing.business.seed}/{mailing.business.profile.name}/mail/{mailing.happened}")  # noqa: S311 - must come out the same again
    thing = rng.choices(list(THINGS), list(THINGS.values()))[0]
    if not thing(mailing, rng):
        _join(mailing, rng)


def _home(mailing: Mailing, rng: Random) -> Audience:
    return rng.choice(list(mailing.audiences.values()))


def _some(mailing: Mailing, rng: Random, *, archived: bool = False) -> Member | None:
    """A member, found by a few looks at random."""
    members = list(_home(mailing, rng).members.values())
    for _ in range(20 if members else 0):
        found = rng.choice(members)
        if found.archived is archived:
            return found
    return None


def _mail(mailing: Mailing, rng: Random) -> tuple[Campaign, int] | None:
    """One of the last sent campaigns, and a recipient of it."""
    sent = [each for each in mailing.campaigns.values() if each.sent][-3:]
    if not sent:
        return None
    campaign = rng.choice(sent)
    return campaign, rng.choice(list(campaign.sent))


def _join(mailing: Mailing, rng: Random) -> bool:
    who = person(rng)
    values = {name: who[name] for name in ("first_name", "last_name", "phone")}
    mailing.subscribe(_home(mailing, rng).id, mail_of(rng, who), **values)
    return True


def _come_back(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng, archived=rng.random() < 0.5):
        mailing.subscribe(member.audience, member.email)
    return member is not None


def _update(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng, archived=rng.random() < 0.1):
        values = {"company": f"Company {mailing.happened}", "language": rng.choice(LANGUAGES)}
        mailing.update(member.audience, member.id, **values)
    return member is not None


def _move(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng):
        mailing.change_address(member.audience, member.id, f"moved{mailing.happened}@example.org")
    return member is not None


def _tag(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng):
        tag = rng.choice((*TAGS, f"Batch {mailing.happened // 50}"))
        (mailing.untag if tag in member.tags else mailing.tag)(member.audience, member.id, tag)
    return member is not None


def _choose(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng):
        topic = rng.choice(list(mailing.audiences[member.audience].categories[0].interests))
        mailing.choose(member.audience, member.id, topic, topic not in member.interests)
    return member is not None


def _leave(mailing: Mailing, rng: Random) -> bool:
    found = _mail(mailing, rng)
    member = mailing.member(found[0].audience, found[1]) if found else None
    if found is None or member is None or member.status != "subscribed":
        return False
    mailing.unsubscribe(member.audience, member.id, found[0].id, rng.choice(REASONS))
    return True


def _clean(mailing: Mailing, rng: Random) -> bool:
    found = _mail(mailing, rng)
    member = mailing.member(found[0].audience, found[1]) if found else None
    if found is None or member is None:
        return False
    mailing.bounce(found[0].id, member.id, "hard")
    mailing.clean(member.audience, member.id)
    return True


def _archive(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng):
        mailing.archive(member.audience, member.id)
    return member is not None


def _unarchive(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng, archived=True):
        mailing.unarchive(member.audience, member.id)
    return member is not None


def _purge(mailing: Mailing, rng: Random) -> bool:
    if member := _some(mailing, rng, archived=rng.random() < 0.5):
        mailing.purge(member.audience, member.id)
    return member is not None


def _draft(mailing: Mailing, rng: Random) -> bool:
    mailing.draft(_home(mailing, rng).id, f"Campaign {mailing.happened}")
    return True


def _send(mailing: Mailing, rng: Random) -> bool:
    drafts = [each for each in mailing.campaigns.values() if each.sent_at is None]
    if drafts:
        mailing.send(rng.choice(drafts).id)
    return bool(drafts)


def _drop(mailing: Mailing, rng: Random) -> bool:
    drafts = [each for each in mailing.campaigns.values() if each.sent_at is None]
    if drafts:
        mailing.drop_campaign(rng.choice(drafts).id)
    return bool(drafts)


def _open(mailing: Mailing, rng: Random) -> bool:
    if found := _mail(mailing, rng):
        mailing.open(found[0].id, found[1])
    return found is not None


def _click(mailing: Mailing, rng: Random) -> bool:
    if found := _mail(mailing, rng):
        mailing.open(found[0].id, found[1])
        mailing.click(found[0].id, found[1], rng.choice(URLS))
    return found is not None


def _bounce(mailing: Mailing, rng: Random) -> bool:
    if found := _mail(mailing, rng):
        mailing.bounce(found[0].id, found[1], "soft")
    return found is not None


THINGS: dict[Callable[[Mailing, Random], bool], float] = {
    _join: 12,
    _come_back: 4,
    _update: 16,
    _move: 4,
    _tag: 8,
    _choose: 4,
    _leave: 6,
    _clean: 3,
    _archive: 4,
    _unarchive: 3,
    _purge: 2,
    _draft: 3,
    _send: 2,
    _drop: 1,
    _open: 18,
    _click: 8,
    _bounce: 2,
}
