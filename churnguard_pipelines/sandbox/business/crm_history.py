"""How a business's customers come to be in its CRM: spelled otherwise, with several contacts, some of them twice.

The companies of the CRM are the customers of the simulated Stripe (`company.customer_id`, for four of five) and
prospects that never bought; contacts are the address that gets the invoices, users of the product database
(`user1@{customer}.example.com`) and people with free-mail addresses. Each customer's part follows from the seed and the
customer alone, so it makes no difference when it is asked for.
"""

from __future__ import annotations

from random import Random
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.business.crm_schema import (
    COMPETITORS,
    INDUSTRIES,
    LABELS,
    LEAD_STATUSES,
    PLANS,
    PRIORITIES,
    SOURCES,
    TASK_STATUSES,
    TICKET_STATUSES,
)
from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.business.instants import DAY, utc_date

FIRST_NAMES = ("Ada", "Björn", "Chloé", "Dmitri", "Emeka", "Fatima", "Grace", "Hiro", "Inés", "Jan", "Keiko", "Łukasz")
LAST_NAMES = (
    "Lovelace",
    "Ångström",
    "Dupont",
    "O'Neil",
    "van der Berg",
    "Müller",
    "Smith",
    "Tanaka",
    "García",
    "Nowak",
)
TITLES = ("CEO", "Head of Finance", "Engineer", "Operations", "Head of Data", "Office manager")
CITIES = (("Berlin", "DE"), ("Paris", "FR"), ("Osaka", "JP"), ("Austin", "US"), ("Leeds", "GB"), ("Toronto", "CA"))
FREE_MAIL = ("gmail.com", "outlook.com", "gmx.de", "yahoo.co.jp")
SPELLINGS = ("{}", "{}", "{}", "{}, Inc.", "{} GmbH", "The {}", " {}")
USERS = 8
ACTIVITIES = ("task", "task", "meeting", "call", "email", "note")


def catch_up(crm: Crm) -> None:
    """Everybody who became a customer since the last time comes into the CRM."""
    if not crm.tables["user"]:
        _open(crm)
    customers = crm.business.customers
    end = customers.after(crm.business.now)
    for place in range(crm.known, end):
        customer = customers.record(place)
        _Part(crm, customer).write()
    crm.known = end


def date_of(at: int) -> str:
    """The UTC date of an instant in milliseconds."""
    return utc_date(at // 1000).isoformat()


def person(rng: Random) -> dict[str, Any]:
    phone = f"+1 555 {rng.randrange(1000, 9999)}"
    names = {"first_name": rng.choice(FIRST_NAMES), "last_name": rng.choice(LAST_NAMES)}
    return {**names, "title": rng.choice(TITLES), "phone": phone, "source": rng.choice(SOURCES)}


def mail_of(rng: Random, who: dict[str, Any]) -> str:
    """A free-mail address."""
    letters = "".join(c for c in f"{who['first_name']}.{who['last_name']}".lower() if c.isascii() and c in LETTERS)
    return f"{letters}{rng.randrange(1, 10_000)}@{rng.choice(FREE_MAIL)}"


LETTERS = "abcdefghijklmnopqrstuvwxyz."


def _open(crm: Crm) -> None:
    """The people who sell, what they sell, and the ways they sell it."""
    at = crm.business.opened * 1000
    title = crm.business.profile.name
    for number in range(USERS):
        first, last = FIRST_NAMES[number], LAST_NAMES[number]
        email = f"{first.lower()}@{title}.example.com".encode("ascii", "ignore").decode()
        crm.add("user", at, {"first_name": first, "last_name": last, "email": email, "title": "Sales",
                             "active": number != USERS - 1})  # fmt: skip
    for position, (label, of, stages) in enumerate(PIPELINES):
        pipeline = crm.add("pipeline", at, {"label": label, "of": of, "position": position})
        for place, (name, probability, closed) in enumerate(stages):
            values = {"label": name, "pipeline": pipeline.id, "position": place, "probability": float(probability)}
            crm.add("stage", at, {**values, "closed": closed, "won": closed and probability == 100})
    for number, product in enumerate(crm.business.catalog.products):
        values = {"name": product.name, "sku": f"SKU-{number:03d}", "family": "Software", "active": True}
        crm.add("product", at, {**values, "price": 10.0 * (number + 1), "description": product.description})
    for number, kind in enumerate(("Webinar", "Conference", "Email", "Advertisement")):
        begun = at + number * 90 * DAY * 1000
        crm.add("campaign", begun, {
            "name": f"{kind} {utc_date(begun // 1000).year}", "type": kind, "status": "Completed", "active": number > 1,
            "start": date_of(begun), "end": date_of(begun + 30 * DAY * 1000), "budget": 2500.0 * (number + 1),
            "owner": 1 + number % USERS,
        })  # fmt: skip


PIPELINES = (
    ("New business", "deal", (
        ("Prospecting", 10, False), ("Proposal", 50, False), ("Negotiation", 90, False),
        ("Closed won", 100, True), ("Closed lost", 0, True),
    )),
    ("Renewal", "deal", (("Upcoming", 60, False), ("Renewed", 100, True), ("Churned", 0, True))),
    ("Support", "ticket", tuple((name, 0, name == "Closed") for name in TICKET_STATUSES)),
)  # fmt: skip


class _Part:
    """What the CRM knows of one customer."""

    def __init__(self, crm: Crm, customer: Customer) -> None:
        self._crm, self._customer = crm, customer
        self._rng = Random(f"{crm.business.profile.name}/{customer.id}")  # noqa: S311 - must come out the same again
        self._from = customer.created * 1000
        self._till = max(self._from, crm.business.anchor * 1000)
        self._living = customer.created > crm.business.anchor  # all that is known was entered at once
        self._owner = self._rng.randrange(1, USERS + 1)
        self._site = self._customer.email.partition("@")[2]

    def write(self) -> None:
        rng = self._rng
        company = self._company(self._customer)
        contacts = self._contacts(company)
        for number in range(rng.randrange(1, 4)):
            self._deal(company, contacts, number)
        for _ in range(rng.randrange(3)):
            self._ticket(company, rng.choice(contacts))
        for kind in rng.sample(ACTIVITIES, rng.randrange(1, 4)):
            self._activity(kind, company, rng.choice(contacts))
        self._lead(company, contacts[0])
        if rng.random() < 0.4:
            self._contract(company)
        self._workspace(company)
        if rng.random() < 0.25:
            self._contacts(self._company(None))
        if self._living:
            return
        if rng.random() < 0.06:
            self._twice(company)
        if rng.random() < 0.05:
            gone = contacts[-1]
            gone.archived_at = gone.modified = self._late()

    def _add(self, kind: str, values: dict[str, Any], at: int | None = None) -> Record:
        at = self._moment() if at is None else at
        # Half of all records were never touched again
        modified = at if self._rng.random() < 0.5 else self._rng.randint(at, self._till)
        record = self._crm.add(kind, at, {name: value for name, value in values.items() if value is not None}, modified)
        record.created_by = record.modified_by = self._owner
        if self._living:
            self._crm.announce(record)
        return record

    def _moment(self) -> int:
        return self._rng.randint(self._from, self._till)

    def _late(self) -> int:
        """Within the last 60 days."""
        return self._rng.randint(max(self._from, self._till - 60 * DAY * 1000), self._till)

    def _link(self, source: Record, target: Record, label: str | None = None) -> None:
        at = max(source.created, target.created)
        made = self._crm.link((source.kind, source.id), (target.kind, target.id), label, at)
        if self._living:
            self._crm.announce(made)

    def _place(self) -> dict[str, Any]:
        city, country = self._rng.choice(CITIES)
        street = f"{self._rng.randrange(1, 200)} Main Street\nFloor {self._rng.randrange(1, 9)}"
        return {"street": street, "city": city, "postal_code": str(self._rng.randrange(10_000, 99_999)),
                "country": country}  # fmt: skip

    def _company(self, customer: Customer | None) -> Record:
        rng = self._rng
        name = self._customer.name if customer else f"Prospect {rng.choice(INDUSTRIES)} {self._customer.place}"
        values = {
            "name": rng.choice(SPELLINGS).format(name.upper() if rng.random() < 0.1 else name),
            "domain": self._site if customer else None,
            "industry": rng.choice(INDUSTRIES),
            "type": "Customer" if customer else "Prospect",
            "employees": rng.randrange(1, 5000),
            "annual_revenue": rng.choice((None, 1.5e5, 9.0e7, round(rng.uniform(1e4, 1e8), 2))),
            "phone": f"+49 30 {rng.randrange(10_000, 99_999)}",
            "description": rng.choice((None, 'Said: "call back", twice', "Two lines,\nthe second with a comma")),
            "owner": self._owner,
            "customer_id": customer.id if customer and rng.random() < 0.8 else None,
            "plan": rng.choice(PLANS) if customer else None,
            "renewal_date": date_of(self._till + rng.randrange(365) * DAY * 1000) if customer else None,
            "health": round(rng.random(), 3),
            **self._place(),
        }
        if self._crm.business.profile.name == "acme":
            values["churn_risk"] = round(rng.uniform(0, 100), 1)
        elif rng.random() < 0.5:
            values["region"] = rng.choice(("DACH", "BeNeLux", "Nordics"))
        return self._add("company", values, self._from)

    def _contacts(self, company: Record) -> list[Record]:
        rng = self._rng
        bought = company.values["type"] == "Customer"
        addresses = [self._customer.email.upper() if rng.random() < 0.1 else self._customer.email] if bought else []
        seats = 1 + self._customer.place % 5
        users = rng.randrange(0, min(seats, 3) + 1) if bought else 0
        addresses += [f"user{number + 1}@{self._customer.id}.example.com" for number in range(users)]
        people: list[Record] = []
        for address in [*addresses, None][: 4 if rng.random() < 0.5 or not addresses else len(addresses)]:
            who = person(rng)
            values = {
                **who, **self._place(), "email": address or mail_of(rng, who), "company": company.id,
                "owner": self._owner, "opted_out": rng.random() < 0.1,
                "nps": rng.randrange(11) if rng.random() < 0.3 else None,
                "last_seen": self._moment() if bought and rng.random() < 0.5 else None,
            }  # fmt: skip
            people.append(self._add("contact", values))
            self._link(people[-1], company, "Primary")
        return people

    def _deal(self, company: Record, contacts: list[Record], number: int) -> None:
        rng, crm = self._rng, self._crm
        pipeline = 1 if number == 0 else 2
        stages = [each for each in crm.records("stage") if each.values["pipeline"] == pipeline]
        lines = [(rng.randrange(1, len(crm.tables["product"]) + 1), rng.randrange(1, 20)) for _ in range(2)]
        prices = [crm.tables["product"][product].values["price"] for product, _ in lines]
        amount = sum(price * quantity for price, (_, quantity) in zip(prices, lines, strict=True))
        stage = rng.choice(stages)
        deal = self._add("deal", {
            "name": f"{company.values['name'].strip()} {'new' if number == 0 else f'renewal {number}'}",
            "amount": amount, "close_date": date_of(self._moment()), "pipeline": pipeline, "stage": stage.id,
            "company": company.id, "owner": self._owner, "days_open": rng.randrange(90),
            "campaign": rng.randrange(1, 5) if rng.random() < 0.2 else None,
            "competitors": ";".join(rng.sample(COMPETITORS, 2)) if rng.random() < 0.2 else None,
        })  # fmt: skip
        self._link(deal, company)
        for contact in rng.sample(contacts, rng.randrange(min(len(contacts), 2) + 1)):
            self._link(deal, contact, rng.choice((None, *LABELS["deal", "contact"])))
        for price, (product, quantity) in zip(prices, lines, strict=True):
            name = crm.tables["product"][product].values["name"]
            values = {"deal": deal.id, "product": product, "name": name, "quantity": float(quantity), "price": price}
            self._link(self._add("line_item", {**values, "amount": price * quantity}, deal.created), deal)
        if stage is not stages[0] and not self._living:
            moved = {"deal": deal.id, "field": "stage", "old": stages[0].id, "new": stage.id, "by": self._owner}
            crm.add("deal_change", deal.modified, moved)

    def _ticket(self, company: Record, contact: Record) -> None:
        rng = self._rng
        at = self._moment()
        status = rng.choice(TICKET_STATUSES)
        ticket = self._add("ticket", {
            "number": f"{len(self._crm.tables['ticket']) + 1001:08d}", "status": status,
            "subject": rng.choice(("Cannot log in", "Invoice is wrong", "Export fails")),
            "description": 'It says "error",\r\nand then nothing', "priority": rng.choice(PRIORITIES),
            "source": rng.choice(("Phone", "Email", "Web")), "company": company.id, "contact": contact.id,
            "owner": self._owner, "closed_at": rng.randint(at, self._till) if status == "Closed" else None,
        }, at)  # fmt: skip
        self._link(ticket, company)
        self._link(ticket, contact)

    def _activity(self, kind: str, company: Record, contact: Record) -> None:
        activity = self._add(kind, activity_values(self._rng, kind, self._moment(), company.id, contact.id))
        self._link(activity, company if kind == "note" else contact)

    def _lead(self, company: Record, contact: Record) -> None:
        rng = self._rng
        converted = rng.random() < 0.3
        who = contact.values if converted else person(rng)
        values = {name: who.get(name) for name in ("first_name", "last_name", "title", "phone", "source")}
        values |= {
            "email": who.get("email") or mail_of(rng, who),
            "company_name": company.values["name"] if converted else f"Lead {self._customer.place}",
            "status": LEAD_STATUSES[2] if converted else rng.choice(LEAD_STATUSES[:2]),
            "converted": converted, "owner": self._owner,
            "converted_company": company.id if converted else None,
            "converted_contact": contact.id if converted else None,
        }  # fmt: skip
        lead = self._add("lead", values)
        if rng.random() < 0.5:
            member = {"lead": lead.id} if rng.random() < 0.5 else {"contact": contact.id}
            status = rng.choice(("Sent", "Responded"))
            self._add("campaign_member", {"campaign": rng.randrange(1, 5), "status": status, **member})

    def _contract(self, company: Record) -> None:
        number = f"{len(self._crm.tables['contract']) + 101:08d}"
        self._add("contract", {"number": number, "company": company.id, "status": "Activated", "months": 12,
                               "start": date_of(self._from), "owner": self._owner})  # fmt: skip

    def _workspace(self, company: Record) -> None:
        rng, place = self._rng, self._customer.place
        workspace = self._add("workspace", {
            "name": self._customer.name, "number": place + 1, "seats": 1 + place % 5, "plan": rng.choice(PLANS),
            "company": company.id, "last_login": self._moment() if rng.random() < 0.8 else None,
        })  # fmt: skip
        self._link(workspace, company)

    def _twice(self, company: Record) -> None:
        """Somebody had entered the company a second time; some of these were merged since."""
        values = {"name": company.values["name"].strip().lower(), "type": "Customer", "owner": self._owner}
        double = self._add("company", {**values, "domain": self._site})
        if self._rng.random() < 0.7:
            at = max(double.created, self._late())
            double.archived_at = double.merged_at = double.modified = at
            double.merged_into = company.id
            company.modified = max(company.modified, at)


def activity_values(rng: Random, kind: str, at: int, company: int, contact: int) -> dict[str, Any]:
    values: dict[str, Any] = {"company": company, "contact": contact, "owner": rng.randrange(1, USERS + 1)}
    values["body"] = rng.choice(("They will think about it", "Wants <b>more</b> seats & a discount", "Zażółć\n日本語"))
    if kind != "note":
        values["subject"] = rng.choice(("Follow up", "Quarterly review", "Onboarding"))
    if kind == "task":
        return {**values, "status": rng.choice(TASK_STATUSES), "priority": rng.choice(PRIORITIES), "due": date_of(at)}
    if kind == "meeting":
        return {**values, "start": at, "end": at + 1_800_000, "location": rng.choice(("Video", "Their office"))}
    if kind == "call":
        return {**values, "at": at, "direction": rng.choice(("INBOUND", "OUTBOUND")),
                "duration": rng.randrange(3_600) * 1000}  # fmt: skip
    if kind == "email":
        return {**values, "at": at, "direction": rng.choice(("EMAIL", "INCOMING_EMAIL"))}
    return {**values, "at": at}
