"""Lets things happen in a CRM: one at a time, drawn by chance that follows from the seed and how often it was asked."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.business.crm_history import USERS, activity_values, mail_of, person
from churnguard_pipelines.sandbox.business.crm_schema import ASSOCIATED, INDUSTRIES, LABELS, PLANS, TICKET_STATUSES

CHANGING = ("company", "contact", "deal", "ticket", "lead", "task", "workspace")


def happen(crm: Crm) -> None:
    """One thing; a new contact where nobody fits."""
    crm.happened += 1
    rng = Random(f"{crm.business.seed}/{crm.business.profile.name}/crm/{crm.happened}")  # noqa: S311 - as above
    thing = rng.choices(list(THINGS), list(THINGS.values()))[0]
    if not thing(crm, rng):
        _new_contact(crm, rng)


def some(crm: Crm, rng: Random, kind: str, archived: bool = False) -> Record | None:
    """A record, found by a few looks at random."""
    ids = crm.tables[kind]
    last = max(ids, default=0)
    for _ in range(40 if last else 0):
        record = ids.get(rng.randint(1, last))
        if record is not None and record.archived is archived and record.merged_into is None:
            return record
    return None


def _new_company(crm: Crm, rng: Random) -> bool:
    name = f"Walk-in {rng.choice(INDUSTRIES)} {crm.happened}"
    crm.create("company", name=name, type="Prospect", employees=rng.randrange(500), owner=rng.randint(1, USERS))
    return True


def _new_contact(crm: Crm, rng: Random) -> bool:
    who = person(rng)
    company = some(crm, rng, "company")
    made = crm.create("contact", **who, email=mail_of(rng, who), **({"company": company.id} if company else {}))
    if company:
        crm.associate(("contact", made), ("company", company.id), "Primary")
    return True


def _new_activity(crm: Crm, rng: Random) -> bool:
    contact = some(crm, rng, "contact")
    company = some(crm, rng, "company")
    if contact is None or company is None:
        return False
    kind = rng.choice(("task", "meeting", "call", "email", "note"))
    made = crm.create(kind, **activity_values(rng, kind, crm.now, company.id, contact.id))
    crm.associate((kind, made), ("company", company.id) if kind == "note" else ("contact", contact.id))
    return True


def _new_deal(crm: Crm, rng: Random) -> bool:
    company, product = some(crm, rng, "company"), some(crm, rng, "product")
    if company is None or product is None:
        return False
    name, price = product.values["name"], product.values["price"]
    deal = crm.create("deal", name=f"Upsell {crm.happened}", company=company.id, pipeline=1, stage=1, amount=price)
    crm.associate(("deal", deal), ("company", company.id))
    line = crm.create("line_item", deal=deal, product=product.id, name=name, quantity=1.0, price=price, amount=price)
    crm.associate(("line_item", line), ("deal", deal))
    return True


def _update(crm: Crm, rng: Random) -> bool:
    record = some(crm, rng, rng.choice(CHANGING))
    if record is None:
        return False
    values: dict[str, Any]
    match record.kind:
        case "company":
            values = {"employees": rng.randrange(5000), "plan": rng.choice((*PLANS, None))}
        case "contact":
            values = {"title": f"Title {crm.happened}", "nps": rng.choice((None, 3, 9))}
        case "deal":
            stages = [s.id for s in crm.records("stage") if s.values["pipeline"] == record.values["pipeline"]]
            values = {"stage": rng.choice(stages), "amount": float(rng.randrange(100_000))}
        case "ticket":
            status = rng.choice(TICKET_STATUSES)
            values = {"status": status, "closed_at": crm.now if status == "Closed" else None}
        case "workspace":
            values = {"seats": rng.randrange(1, 50), "last_login": crm.now}
        case "task":
            values = {"status": rng.choice(("In progress", "Completed")), "body": f"Line one\nline {crm.happened}"}
        case _:
            values = {"title": f"Title {crm.happened}"}
    crm.update(record.kind, record.id, **values)
    return True


def _merge(crm: Crm, rng: Random) -> bool:
    kind = rng.choice(("company", "contact", "lead"))
    winner, loser = some(crm, rng, kind), some(crm, rng, kind)
    if winner is None or loser is None or winner is loser:
        return False
    crm.merge(kind, winner.id, loser.id)
    return True


def _delete(crm: Crm, rng: Random) -> bool:
    if record := some(crm, rng, rng.choice((*CHANGING, "line_item", "campaign_member", "note"))):
        crm.delete(record.kind, record.id)
    return record is not None


def _undelete(crm: Crm, rng: Random) -> bool:
    if record := some(crm, rng, rng.choice(CHANGING), archived=True):
        crm.undelete(record.kind, record.id)
    return record is not None


def _purge(crm: Crm, rng: Random) -> bool:
    if record := some(crm, rng, rng.choice(("contact", "task")), archived=rng.random() < 0.5):
        crm.purge(record.kind, record.id)
    return record is not None


def _associate(crm: Crm, rng: Random) -> bool:
    """A link that was not there, or another label for one that was; nothing else changes."""
    ends = rng.choice(ASSOCIATED[:5])
    source, target = some(crm, rng, ends[0]), some(crm, rng, ends[1])
    if source is None or target is None:
        return False
    crm.associate((ends[0], source.id), (ends[1], target.id), rng.choice((None, *LABELS.get(ends, ()))))
    return True


def _dissociate(crm: Crm, rng: Random) -> bool:
    kind, to = rng.choice(ASSOCIATED[:5])
    source = some(crm, rng, kind)
    linked = crm.associated(kind, source.id, to) if source else []
    if source is None or not linked:
        return False
    crm.dissociate((kind, source.id), (to, rng.choice(linked)[0]))
    return True


def _recalculate(crm: Crm, rng: Random) -> bool:
    """Only a calculated field changes."""
    if record := some(crm, rng, "company"):
        crm.recalculate("company", record.id, health=round(rng.random(), 3))
    return record is not None


THINGS: dict[Callable[[Crm, Random], bool], float] = {
    _new_company: 6,
    _new_contact: 10,
    _new_activity: 10,
    _new_deal: 6,
    _update: 34,
    _merge: 3,
    _delete: 8,
    _undelete: 5,
    _purge: 1,
    _associate: 8,
    _dissociate: 5,
    _recalculate: 4,
}
