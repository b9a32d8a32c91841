"""The simulated businesses of one sandbox, their keys, their clock, and what keeps them over a restart."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import orjson

from churnguard_pipelines.sandbox.business import (
    crm_history,
    crm_life,
    live,
    signups,
    subscriptions,
)
from churnguard_pipelines.sandbox.business.bulk import bulk_business
from churnguard_pipelines.sandbox.business.company import PROFILES, Business, Profile
from churnguard_pipelines.sandbox.business.crm import Crm
from churnguard_pipelines.sandbox.business.crm_bulk import bulk_crm
from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.business.entities import Event
from churnguard_pipelines.sandbox.business.journal import Journal, Origin, remember
from churnguard_pipelines.sandbox.business.mailing import Mailing
from churnguard_pipelines.sandbox.business.mailing import history as mailing_history
from churnguard_pipelines.sandbox.business.mailing import life as mailing_life
from churnguard_pipelines.sandbox.business.mailing.bulk import bulk_mailing
from churnguard_pipelines.sandbox.stripe import errors as stripe_errors
from churnguard_pipelines.sandbox.stripe.api import Key
from churnguard_pipelines.sandbox.stripe.events import KEPT, StripeEvents
from churnguard_pipelines.sandbox.stripe.render import render
from churnguard_pipelines.sandbox.stripe.resources import BY_PATH, RESOURCES

KEY = "rk_sandbox_"
WITHOUT = {"payouts": ("payouts", "balance_transactions", "balance")}


class World:
    """Thread-safe: every reading and every change holds `lock`.

    The clock: while alive, the wall clock's seconds; else it stands at the last thing that happened.
    The keys: `rk_sandbox_{account}`, and `rk_sandbox_{account}_no_{list}` without the permission for a list
    ("no_payouts" also loses balance transactions and the balance).
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int | None = None,
        anchor: int | None = None,
        scale: float | None = None,
        alive: bool = False,
        bulk: int = 0,
    ) -> None:
        given = {
            name: value for name, value in (("seed", seed), ("anchor", anchor), ("scale", scale)) if value is not None
        }
        default = Origin(
            seed=1 if seed is None else seed,
            anchor=int(time.time()) if anchor is None else anchor,
            scale=1.0 if scale is None else scale,
        )
        self.origin = remember(folder, default, given)
        self.alive = alive
        self.lock = RLock()
        self.businesses = {profile.name: self._history(profile) for profile in PROFILES}
        if bulk:
            self.businesses["bulk"] = bulk_business(bulk, StripeEvents(), self.origin.seed, self.origin.anchor)
        self._crms: dict[str, Crm] = {}
        self._mailings: dict[str, Mailing] = {}
        self.journal = Journal(folder / "journal.jsonl")
        for entry in self.journal:
            self._apply(entry)
        self.catch_up()
        # The history is there to stay: looking through it for garbage again and again makes answers five times slower
        gc.collect()
        gc.freeze()

    def _history(self, profile: Profile) -> Business:
        business = Business(profile, StripeEvents(), self.origin.seed, self.origin.anchor, self.origin.scale)
        signups.start(business)
        business.run_until(self.origin.anchor)
        return business

    # The clock

    def now(self, business: Business) -> int:
        return max(int(time.time()), business.now) if self.alive else business.now

    def catch_up(self) -> dict[str, int]:
        """What fell due since the last time happens, each thing at its own instant. How much each billing tells of."""
        told: dict[str, int] = {}
        with self.lock:
            for name, business in self.businesses.items():
                if name != "bulk":
                    before = len(business.events)
                    business.run_until(self.now(business))
                    told[name] = len(business.events) - before
        return told

    def live_on(self) -> None:
        """Time has passed: what fell due happens, so the businesses go on at the pace of their past; and for each thing
        that billing tells of, somebody does something in the CRM and in the e-mail marketing that are used."""
        for name, told in self.catch_up().items():
            for _ in range(told):
                for command, used in (("crm_tick", self.crms), ("mail_tick", self.mailings)):
                    if name in used:
                        self.do(name, command, self.now(self.businesses[name]))

    # Changes: each is a command in the journal

    def do(self, account: str, command: str, at: int, **arguments: Any) -> Any:
        """Lets something happen in an account at `at`, and remembers it."""
        with self.lock:
            entry = {"account": account, "do": command, "at": at, **arguments}
            self.journal.write(entry)
            return self._apply(entry)

    def _apply(self, entry: dict[str, Any]) -> Any:
        arguments = dict(entry)
        business = self.businesses[arguments.pop("account")]
        name = arguments.pop("do")
        business.run_until(arguments.pop("at"))
        if name in CRM_COMMANDS:
            return CRM_COMMANDS[name](self.crm(business.profile.name), **arguments)
        if name in MAILING_COMMANDS:
            return MAILING_COMMANDS[name](self.mailing(business.profile.name), **arguments)
        return COMMANDS[name](business, **arguments)

    # Reading

    def crm(self, account: str) -> Crm:
        """The account's CRM as it is now. It is made when somebody asks for it the first time."""
        with self.lock:
            crm = self._crms.get(account)
            if crm is None:
                make = bulk_crm if account == "bulk" else Crm
                crm = self._crms[account] = make(self.businesses[account])
            if account != "bulk":
                crm_history.catch_up(crm)
            return crm

    @property
    def crms(self) -> tuple[str, ...]:
        """The accounts whose CRM somebody uses."""
        return tuple(self._crms)

    def mailing(self, account: str) -> Mailing:
        """The account's e-mail marketing as it is now. It is made when somebody asks for it the first time."""
        with self.lock:
            mailing = self._mailings.get(account)
            if mailing is None:
                make = bulk_mailing if account == "bulk" else Mailing
                mailing = self._mailings[account] = make(self.businesses[account])
            if account != "bulk":
                mailing_history.catch_up(mailing)
            return mailing

    @property
    def mailings(self) -> tuple[str, ...]:
        """The accounts whose e-mail marketing somebody uses."""
        return tuple(self._mailings)

    def key(self, value: str) -> Key:
        """Refusal where there is no such key."""
        name, _, without = value.removeprefix(KEY).partition("_no_")
        if not value.startswith(KEY) or name not in self.businesses:
            raise stripe_errors.unknown_key(value)
        if not without:
            return Key(value, self.businesses[name])
        if without not in BY_PATH:
            raise stripe_errors.unknown_key(value)
        return Key(value, self.businesses[name], frozenset(WITHOUT.get(without, (without,))))

    def connected(self, key: Key, account: str | None) -> Key:
        """The key as it acts for a connected account. Every key's platform has acme connected."""
        if account is None or account == key.business.profile.account:
            return key
        connected = self.businesses["acme"]
        if account != connected.profile.account:
            raise stripe_errors.unknown_account(key.value, account)
        return Key(key.value, connected, key.forbidden)

    def counts(self, account: str) -> dict[str, int]:
        """Objects that a list shows now to a key with every permission; subscriptions of every status."""
        with self.lock:
            business = self.businesses[account]
            counts = {resource.path.replace("/", "_"): len(resource.records(business)) for resource in RESOURCES}
            low, high = business.events.places(self.now(business) - KEPT, None)
            counts["events"] = high - low
            return counts

    def movements(self, account: str) -> list[dict[str, Any]]:
        with self.lock:
            business = self.businesses[account]
            return business.books.movements(self.now(business))

    def objects(self, account: str, path: str) -> list[dict[str, Any]]:
        """All objects of a list, newest first, as the API shows them."""
        with self.lock:
            business = self.businesses[account]
            listed = BY_PATH[path].records(business)
            now = self.now(business)
            shown = [orjson.loads(r.body) if isinstance(r, Event) else render(r, now) for r in listed]
            return shown[::-1]

    def close(self) -> None:
        self.journal.close()
        gc.unfreeze()


def _insert_customer(business: Business, currency: str | None, name: str | None, email: str | None) -> str:
    return signups.add_customer(business, currency, name, email).id


def _delete_customer(business: Business, id: str) -> None:
    customer = business.customers.get(id)
    assert customer is not None, f"no customer {id}"
    subscriptions.delete_customer(business, customer)


def _nothing(business: Business) -> None:
    """Time passes."""


COMMANDS: dict[str, Callable[..., Any]] = {
    "tick": live.happen,
    "pass": _nothing,
    "insert_customer": _insert_customer,
    "delete_customer": _delete_customer,
}


def _crm_do(crm: Crm, call: str, **arguments: Any) -> Any:
    if call == "add_field":
        arguments["made"] = Field(**arguments["made"])
    return getattr(crm, call)(**arguments)


CRM_COMMANDS: dict[str, Callable[..., Any]] = {
    "crm_tick": crm_life.happen,
    "crm": _crm_do,
}


def _mailing_do(mailing: Mailing, call: str, **arguments: Any) -> Any:
    return getattr(mailing, call)(**arguments)


MAILING_COMMANDS: dict[str, Callable[..., Any]] = {
    "mail_tick": mailing_life.happen,
    "mail": _mailing_do,
}
