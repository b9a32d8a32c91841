"""The e-mail marketing of a simulated business: audiences, their members, campaigns, and what the recipients did.

It belongs to no provider: each simulated e-mail tool renders these records in its own words. Everything follows from
the business's seed and the commands given, in their order. Instants are seconds. What changes in life goes through
`world.World.do`, which remembers it over a restart.

    member = mailing.subscribe(1, "ada@example.com", first_name="Ada")    the id of the new (or returning) member
    mailing.update(1, member, company="Northwind"); mailing.change_address(1, member, "ada@example.org")
    mailing.unsubscribe(1, member, campaign=4); mailing.clean(1, member)
    mailing.archive(1, member); mailing.unarchive(1, member); mailing.purge(1, member)
    mailing.tag(1, member, "VIP"); mailing.untag(1, member, "VIP"); mailing.choose(1, member, 3, True)
    campaign = mailing.draft(1, "May news"); mailing.send(campaign)
    mailing.open(campaign, member); mailing.click(campaign, member, url); mailing.bounce(campaign, member, "soft")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from churnguard_pipelines.sandbox.business.company import Business

Status = Literal["subscribed", "unsubscribed", "cleaned", "pending"]
Action = Literal["open", "click", "bounce"]
Doing = Literal[
    "subscribe", "unsubscribe", "update", "change_address", "clean", "archive", "unarchive", "purge",
    "draft", "edit", "send", "drop_campaign", "open", "click", "bounce",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Member:
    """A person in one audience; the same address may be in several. `values`: names of `Audience.fields`."""

    id: int
    audience: int
    email: str
    joined: int
    changed: int
    values: dict[str, Any]
    status: Status = "subscribed"
    archived: bool = False
    left_at: int | None = None  # unsubscribed or cleaned
    reason: str | None = None
    vip: bool = False
    language: str = "en"
    tags: dict[str, int] = field(default_factory=dict)  # name -> when it was given
    interests: set[int] = field(default_factory=set)

    @property
    def reachable(self) -> bool:
        return self.status == "subscribed" and not self.archived


@dataclass(slots=True, eq=False)
class Audience:
    """`tags` and `segments` by name; a segment holds those whose language it is."""

    id: int
    name: str
    created: int
    members: dict[int, Member] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)  # name -> type: text, phone, number, date
    tags: dict[str, Group] = field(default_factory=dict)
    segments: dict[str, Group] = field(default_factory=dict)
    categories: list[Category] = field(default_factory=list)
    by_email: dict[str, Member] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Group:
    """A tag or a segment. Its `changed` moves when its definition does, not when its members do."""

    id: int
    name: str
    created: int
    changed: int
    language: str | None = None  # of a segment


@dataclass(slots=True, eq=False)
class Category:
    id: int
    title: str
    interests: dict[int, str]


@dataclass(slots=True, eq=False)
class Did:
    """What a recipient did, or what came back."""

    action: Action
    at: int
    url: str | None = None
    kind: str | None = None  # of a bounce: hard, soft


@dataclass(slots=True, eq=False)
class Campaign:
    """`sent` maps the recipients' member ids to the addresses that it went to, in the order it was sent."""

    id: int
    audience: int
    title: str
    subject: str
    created: int
    sent_at: int | None = None
    sent: dict[int, str] = field(default_factory=dict)
    did: dict[int, list[Did]] = field(default_factory=dict)
    left: dict[int, tuple[int, str | None]] = field(default_factory=dict)  # who unsubscribed: when, why


@dataclass(slots=True, eq=False)
class Automation:
    """Sends its e-mails to who joins. `emails`: subject -> how many went out."""

    id: int
    audience: int
    title: str
    created: int
    running: bool
    emails: dict[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened in life (never in the history before the anchor)."""

    number: int
    at: int
    doing: Doing
    audience: int
    member: Member | None = None
    campaign: Campaign | None = None
    before: str | None = None  # the old address


class Mailing:
    """Not thread-safe: the world's lock is held around every use."""

    def __init__(self, business: Business) -> None:
        self.business = business
        self.audiences: dict[int, Audience] = {}
        self.campaigns: dict[int, Campaign] = {}
        self.automations: dict[int, Automation] = {}
        self.changes: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self.known = 0  # customers of the business up to this place have joined
        self.happened = 0  # how often chance was asked
        self._last = 0

    @property
    def now(self) -> int:
        return self.business.now

    def new_id(self) -> int:
        """Counts from 1 over everything."""
        self._last += 1
        return self._last

    def member(self, audience: int, id: int) -> Member | None:
        return self.audiences[audience].members.get(id)

    def tagged(self, audience: int, tag: str) -> Iterator[Member]:
        return (each for each in self.audiences[audience].members.values() if tag in each.tags)

    def in_segment(self, audience: int, segment: str) -> Iterator[Member]:
        language = self.audiences[audience].segments[segment].language
        return (each for each in self.audiences[audience].members.values() if each.language == language)

    # Members

    def add(self, audience: int, email: str, at: int, values: dict[str, Any], changed: int | None = None) -> Member:
        """A member of the history: nobody is told. The address is new to the audience."""
        home = self.audiences[audience]
        member = Member(self.new_id(), audience, email, at, at if changed is None else changed, values)
        home.members[member.id] = home.by_email[email.lower()] = member
        return member

    def subscribe(self, audience: int, email: str, *, at: int | None = None, **values: Any) -> int:
        """Somebody joins, or comes back: a known address keeps its member."""
        at = self.now if at is None else at
        member = self.audiences[audience].by_email.get(email.lower())
        if member is None:
            member = self.add(audience, email, at, values)
        else:
            member.values |= values
            member.status, member.archived, member.left_at, member.reason = "subscribed", False, None, None
            member.changed = at
        self._tell("subscribe", member, at=at)
        return member.id

    def update(self, audience: int, member: int, **values: Any) -> None:
        """`language` and `vip` are the member's own, other names fields of the audience."""
        found = self._member(audience, member)
        for name in ("language", "vip"):
            if name in values:
                setattr(found, name, values.pop(name))
        found.values |= values
        self._touch("update", found)

    def change_address(self, audience: int, member: int, email: str) -> None:
        """Nothing where another member has the address."""
        found = self._member(audience, member)
        home = self.audiences[audience].by_email
        if email.lower() in home:
            return
        before = found.email
        home[email.lower()] = home.pop(before.lower())
        found.email = email
        self._touch("change_address", found, before=before)

    def unsubscribe(self, audience: int, member: int, campaign: int | None = None, reason: str | None = None) -> None:
        found = self._member(audience, member)
        found.status, found.left_at, found.reason = "unsubscribed", self.now, reason
        if campaign is not None and member in self.campaigns[campaign].sent:
            self.campaigns[campaign].left[member] = (self.now, reason)
        self._touch("unsubscribe", found)

    def clean(self, audience: int, member: int) -> None:
        """The address bounced for good."""
        found = self._member(audience, member)
        found.status, found.left_at = "cleaned", self.now
        self._touch("clean", found)

    def archive(self, audience: int, member: int) -> None:
        found = self._member(audience, member)
        found.archived = True
        self._touch("archive", found)

    def unarchive(self, audience: int, member: int) -> None:
        found = self._member(audience, member)
        found.archived = False
        self._touch("unarchive", found)

    def purge(self, audience: int, member: int) -> None:
        """Gone for good, for privacy. Reports of what was sent keep their rows."""
        found = self._member(audience, member)
        home = self.audiences[audience]
        del home.members[member], home.by_email[found.email.lower()]
        self._tell("purge", found)

    def tag(self, audience: int, member: int, name: str) -> None:
        """Makes the tag where there is none. Who has which tags is no change of a member."""
        home, found = self.audiences[audience], self._member(audience, member)
        if name not in home.tags:
            home.tags[name] = Group(self.new_id(), name, self.now, self.now)
        found.tags[name] = self.now

    def untag(self, audience: int, member: int, name: str) -> None:
        self._member(audience, member).tags.pop(name, None)

    def drop_tag(self, audience: int, name: str) -> None:
        """No member is changed."""
        home = self.audiences[audience]
        del home.tags[name]
        for member in home.members.values():
            member.tags.pop(name, None)

    def rename_field(self, audience: int, old: str, new: str) -> None:
        """No member is changed, though all show their values by the new name."""
        home = self.audiences[audience]
        home.fields = {new if name == old else name: kind for name, kind in home.fields.items()}
        for member in home.members.values():
            member.values = {new if name == old else name: value for name, value in member.values.items()}

    def choose(self, audience: int, member: int, interest: int, wanted: bool) -> None:
        found = self._member(audience, member)
        (found.interests.add if wanted else found.interests.discard)(interest)
        self._touch("update", found)

    # Campaigns and what follows from them

    def draft(self, audience: int, title: str) -> int:
        made = Campaign(self.new_id(), audience, title, title, self.now)
        self.campaigns[made.id] = made
        self._say("draft", audience, campaign=made)
        return made.id

    def edit(self, campaign: int, subject: str) -> None:
        found = self.campaigns[campaign]
        found.subject = subject
        self._say("edit", found.audience, campaign=found)

    def send(self, campaign: int) -> None:
        """To everybody of its audience who is reachable. Nothing where it was sent before."""
        found = self.campaigns[campaign]
        if found.sent_at is None:
            found.sent_at = self.now
            members = self.audiences[found.audience].members.values()
            found.sent = {each.id: each.email for each in members if each.reachable}
            self._say("send", found.audience, campaign=found)

    def drop_campaign(self, campaign: int) -> None:
        found = self.campaigns.pop(campaign)
        self._say("drop_campaign", found.audience, campaign=found)

    def open(self, campaign: int, member: int) -> None:
        self._did(campaign, member, Did("open", self.now))

    def click(self, campaign: int, member: int, url: str) -> None:
        self._did(campaign, member, Did("click", self.now, url))

    def bounce(self, campaign: int, member: int, kind: str) -> None:
        self._did(campaign, member, Did("bounce", self.now, kind=kind))

    def _did(self, campaign: int, member: int, what: Did) -> None:
        found = self.campaigns[campaign]
        assert member in found.sent, f"campaign {campaign} did not go to {member}"
        found.did.setdefault(member, []).append(what)
        self._say(what.action, found.audience, self.member(found.audience, member), found)

    # Within

    def _member(self, audience: int, id: int) -> Member:
        found = self.member(audience, id)
        assert found is not None, f"no member {id} in audience {audience}"
        return found

    def _touch(self, doing: Doing, member: Member, before: str | None = None) -> None:
        member.changed = max(self.now, member.changed)
        self._tell(doing, member, before=before)

    def _tell(self, doing: Doing, member: Member, at: int | None = None, before: str | None = None) -> None:
        self._say(doing, member.audience, member, at=at, before=before)

    def _say(
        self,
        doing: Doing,
        audience: int,
        member: Member | None = None,
        campaign: Campaign | None = None,
        at: int | None = None,
        before: str | None = None,
    ) -> None:
        at = self.now if at is None else at
        change = Change(len(self.changes), at, doing, audience, member, campaign, before)
        self.changes.append(change)
        for listener in self.listeners:
            listener(change)
