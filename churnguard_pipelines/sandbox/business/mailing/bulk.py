"""The e-mail marketing of the account `bulk`: as many members as it has customers, and many small campaigns."""

from __future__ import annotations

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.crm_history import FIRST_NAMES, LAST_NAMES
from churnguard_pipelines.sandbox.business.instants import DAY
from churnguard_pipelines.sandbox.business.mailing import Audience, Campaign, Did, Mailing
from churnguard_pipelines.sandbox.business.mailing.history import FIELDS, NEWS

CAMPAIGNS, RECIPIENTS = 3000, 5
SETTLED = 30 * DAY


def bulk_mailing(business: Business) -> Mailing:
    """Everybody joined at another moment; nothing changes there."""
    mailing = Mailing(business)
    home = mailing.audiences[NEWS] = Audience(NEWS, "Everybody", business.opened, fields=dict(FIELDS))
    for number, customer in enumerate(business.customers):
        values = {"first_name": FIRST_NAMES[number % 12], "last_name": LAST_NAMES[number % 10], "seats": number % 5,
                  "company": customer.name}  # fmt: skip
        mailing.add(NEWS, customer.email, customer.created, values)
    first = [(each.id, each.email) for each in list(home.members.values())[:RECIPIENTS]]
    for number in range(CAMPAIGNS if first else 0):
        at = business.anchor - SETTLED - number * 600
        campaign = Campaign(mailing.new_id(), NEWS, f"Campaign {number}", "News", at - DAY, at, dict(first))
        campaign.did = {
            member: [Did("open", at + 60), Did("click", at + 90, "https://example.com")] for member, _ in first
        }
        mailing.campaigns[campaign.id] = campaign
    return mailing
