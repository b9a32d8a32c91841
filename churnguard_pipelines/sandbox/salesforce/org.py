"""One Salesforce organization: whose CRM it shows, what it allows in a day, and what its users may not see.

A user is named after the account: `acme`; `acme_no_Case` has no permission for an object (`acme_no_Case_no_Task` for
two), `acme_deny_Task` sees an object described but may not read it, and from `acme_hide_Account.Phone` field-level
security hides a field. Every proof of identity names the user:

    session (access token)   00Dsandbox_{user}, valid for ever; those given by /services/oauth2/token expire
    refresh token            5Aepsandbox_{user}; 5Aeprotating_{user} for one that is good for one use
    client id, secret        3MVGsandbox_{user}, secret_{user}: of the connected app, and for client credentials
    user name                {user}@sandbox.example.com, for the JWT bearer flow
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from churnguard_pipelines.sandbox.world import World

DAY = 86_400


@dataclass(frozen=True)
class User:
    name: str
    account: str
    without: frozenset[str] = frozenset()  # objects
    denied: frozenset[str] = frozenset()
    hidden: frozenset[tuple[str, str]] = frozenset()  # (object, field)


@dataclass
class Limits:
    """What an organization may do in 24 hours; tests lower them."""

    api_requests: int = 100_000
    bulk_jobs: int = 10_000
    bulk_storage_mb: int = 1_000_000
    bulk_polls: int = 1  # how often a job is shown in progress, at least
    lag: int = 0  # seconds until a new record is seen by queries
    deleted_ids: int = 600_000
    deleted_log_days: float = 15  # what getDeleted still knows


@dataclass
class Org:
    """The state that an organization has besides its records."""

    account: str
    limits: Limits = field(default_factory=Limits)
    calls: deque[float] = field(default_factory=deque)  # instants of the last 24 hours
    jobs: deque[float] = field(default_factory=deque)
    bulk_bytes: int = 0
    removed: set[str] = field(default_factory=set)  # custom objects that are gone
    retired: int = 30  # versions of the API up to this one

    @property
    def id(self) -> str:
        return "00D5g0" + self.account.ljust(9, "0")[:9]

    def used(self, now: float, spent: deque[float]) -> int:
        while spent and spent[0] <= now - DAY:
            spent.popleft()
        return len(spent)


PART = re.compile(r"_(no|deny|hide)_(?=[A-Z])")


def user(world: World, name: str) -> User | None:
    account, *parts = PART.split(name)
    if account not in world.businesses:
        return None
    pairs = list(zip(parts[::2], parts[1::2], strict=True))
    hidden = [tuple(what.split(".", 1)) for how, what in pairs if how == "hide" and "." in what]
    return User(
        name,
        account,
        frozenset(what for how, what in pairs if how == "no"),
        frozenset(what for how, what in pairs if how == "deny"),
        frozenset((entity, column) for entity, column in hidden),
    )
