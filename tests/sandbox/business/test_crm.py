"""The CRM of a simulated business: who is in it, how it changes, and that it comes out the same again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from churnguard_pipelines.sandbox.business.crm import Crm, Record
from churnguard_pipelines.sandbox.business.crm_schema import SCHEMA, Field
from churnguard_pipelines.sandbox.serve import Account, Sandbox, serve
from tests.sandbox.conftest import ANCHOR

SEED = 7


def everything(account: Account) -> dict[str, Any]:
    def read(crm: Crm) -> dict[str, Any]:
        records = {kind: [(r.id, r.modified, r.archived_at, r.merged_into, r.values) for r in crm.tables[kind].values()]
                   for kind in SCHEMA}  # fmt: skip
        links = [(a.source, a.target, a.label, a.archived_at) for a in crm.associations.values()]
        return {**records, "links": links, "changes": crm.changes}

    return account.read_crm(read)


def one(account: Account, kind: str, id: int) -> Record:
    found = account.read_crm(lambda crm: crm.get(kind, id))
    assert found is not None
    return found


def test_the_same_commands_give_the_same_crm_after_a_restart(tmp_path: Path) -> None:
    with serve(tmp_path, seed=SEED, anchor=ANCHOR, scale=0.02) as sandbox:
        account = sandbox.account("acme")
        account.tick(20)
        account.crm_tick(150)
        account.tick(30)  # customers who are in the CRM before anything else happens there
        before = everything(account)
    with serve(tmp_path) as sandbox:
        assert everything(sandbox.account("acme")) == before


def test_everything_happens_sooner_or_later(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    account.crm_tick(500)
    done = account.read_crm(lambda crm: Counter(change.doing for change in crm.changes))
    assert set(done) == {
        "create", "update", "delete", "undelete", "merge", "purge", "associate", "dissociate", "recalculate",
    }  # fmt: skip


def test_the_companies_are_stripes_customers_spelled_otherwise(world: Sandbox) -> None:
    account = world.account("acme")
    customers = {customer["id"]: customer for customer in account.objects("customers")}
    companies = account.read_crm(lambda crm: list(crm.records("company")))
    known = [(each.values["name"], customers[each.values["customer_id"]]["name"]) for each in companies
             if each.values.get("customer_id") in customers]  # fmt: skip
    assert len(known) > 0.6 * len(customers)
    assert any(ours != theirs for ours, theirs in known)
    assert any(ours == theirs for ours, theirs in known)
    emails = account.read_crm(lambda crm: [contact.values["email"] for contact in crm.records("contact")])
    assert {"gmail.com", "gmx.de"} <= {email.partition("@")[2] for email in emails}
    assert {customer["email"] for customer in customers.values()} & set(emails)
    assert any(email.startswith("user1@cus_") for email in emails), "a user of the product database"


def test_some_companies_were_merged_and_several_contacts_are_of_one(world: Sandbox) -> None:
    account = world.account("globex")
    merged = account.read_crm(lambda crm: [c for c in crm.records("company", archived=True) if c.merged_into])
    assert merged
    per_company = account.read_crm(lambda crm: Counter(c.values["company"] for c in crm.records("contact")))
    assert max(per_company.values()) > 2


def test_a_new_customer_comes_into_the_crm_and_is_told_of(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    account.read_crm(lambda crm: None)
    account.advance(60)
    id = account.insert_customer(name="Late Ltd")
    changes = account.read_crm(lambda crm: crm.changes)
    made = next(each for each in changes if each.kind == "company" and each.doing == "create")
    assert "late ltd" in made.fields["name"].lower()
    assert made.fields.get("customer_id") in (id, None)


def test_an_association_and_a_calculated_field_move_no_date(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    company = account.crm("create", kind="company", name="Here")
    contact = account.crm("create", kind="contact", last_name="There")
    then = one(account, "company", company).modified
    account.advance(60)
    account.crm("associate", ("contact", contact), ("company", company), label="Primary")
    account.crm("recalculate", kind="company", id=company, health=0.5)
    assert one(account, "company", company).modified == one(account, "contact", contact).modified == then
    assert account.read_crm(lambda crm: crm.associated("company", company, "contact")) == [(contact, "Primary")]
    account.crm("dissociate", ("contact", contact), ("company", company))
    assert account.read_crm(lambda crm: crm.associated("contact", contact, "company")) == []
    account.crm("update", kind="company", id=company, employees=3)
    assert one(account, "company", company).modified == then + 60_000


def test_a_merge_moves_what_referred_to_the_loser(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    kept, lost = (account.crm("create", kind="company", name=name) for name in ("Kept", "Lost"))
    contact = account.crm("create", kind="contact", last_name="Theirs", company=lost)
    account.crm("associate", ("contact", contact), ("company", lost), label="Primary")
    account.crm("merge", kind="company", winner=kept, loser=lost)
    assert one(account, "company", lost).merged_into == kept
    assert one(account, "contact", contact).values["company"] == kept
    assert account.read_crm(lambda crm: crm.associated("contact", contact, "company")) == [(kept, "Primary")]


def test_parts_go_and_come_with_the_whole_and_a_purge_leaves_nothing(sandbox: Sandbox) -> None:
    account = sandbox.account("acme")
    deal = account.crm("create", kind="deal", name="Big")
    line = account.crm("create", kind="line_item", deal=deal, quantity=1.0)
    account.crm("delete", kind="deal", id=deal)
    assert one(account, "line_item", line).archived
    account.crm("undelete", kind="deal", id=deal)
    assert not one(account, "line_item", line).archived
    account.crm("purge", kind="deal", id=deal)
    assert account.read_crm(lambda crm: (crm.get("deal", deal), crm.get("line_item", line))) == (None, None)


def test_fields_come_go_and_change_their_type_while_the_account_lives(tmp_path: Path) -> None:
    with serve(tmp_path, seed=SEED, anchor=ANCHOR, scale=0) as sandbox:
        account = sandbox.account("acme")
        account.crm("add_field", kind="company", made=Field("tier", "text", "Tier"))
        company = account.crm("create", kind="company", name="Here", tier="gold")
        assert one(account, "company", company).values["tier"] == "gold"
        account.crm("retype_field", kind="company", name="tier", type="number")
        account.crm("update", kind="company", id=company, tier=1.0)
    with serve(tmp_path) as sandbox:
        account = sandbox.account("acme")
        assert one(account, "company", company).values["tier"] == 1.0
        account.crm("remove_field", kind="company", name="tier")
        assert "tier" not in one(account, "company", company).values
        assert sandbox.account("globex").read_crm(lambda crm: crm.field("company", "tier")) is None
