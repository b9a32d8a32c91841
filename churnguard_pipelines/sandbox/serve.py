"""Runs a sandbox: `serve(folder)` in a thread for tests, `run(…)` in the foreground for the command line."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import uvicorn

from churnguard_pipelines.sandbox.business.company import Business
from churnguard_pipelines.sandbox.business.crm import Crm
from churnguard_pipelines.sandbox.business.crm_schema import Field
from churnguard_pipelines.sandbox.business.mailing import Mailing
from churnguard_pipelines.sandbox.faults import Fault
from churnguard_pipelines.sandbox.hubspot.handle import PortalHandle
from churnguard_pipelines.sandbox.hubspot.provider import HubSpot
from churnguard_pipelines.sandbox.mailchimp.handle import MailchimpAccount
from churnguard_pipelines.sandbox.mailchimp.provider import Mailchimp
from churnguard_pipelines.sandbox.salesforce.api import Salesforce
from churnguard_pipelines.sandbox.sendgrid.handle import AccountHandle
from churnguard_pipelines.sandbox.sendgrid.provider import SendGrid
from churnguard_pipelines.sandbox.server import Application
from churnguard_pipelines.sandbox.world import KEY, World

T = TypeVar("T")


class Account:
    """One business of a served sandbox, for tests that let things happen."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name
        self.key = KEY + name
        self.id = world.businesses[name].profile.account

    @property
    def now(self) -> int:
        """The business's present, in seconds."""
        return self._world.now(self._world.businesses[self._name])

    def tick(self, times: int = 1, seconds: int = 1) -> None:
        """Lets `times` things happen, each `seconds` after the one before."""
        for _ in range(times):
            self._world.do(self._name, "tick", self.now + seconds)

    def advance(self, seconds: int) -> None:
        """Time passes; what falls due happens."""
        self._world.do(self._name, "pass", self.now + seconds)

    def insert_customer(self, *, currency: str | None = None, name: str | None = None, email: str | None = None) -> str:
        """A new customer without a subscription, now. Gives its id."""
        made: str = self._world.do(self._name, "insert_customer", self.now, currency=currency, name=name, email=email)
        return made

    def delete_customer(self, id: str) -> None:
        self._world.do(self._name, "delete_customer", self.now, id=id)

    def crm(self, call: str, *ends: tuple[str, int], **arguments: Any) -> Any:
        """`crm("update", kind="company", id=3, employees=9)`: a change of the `Crm`, now. Gives what it gives."""
        if ends:
            arguments |= dict(zip(("source", "target"), ends, strict=True))
        if isinstance(made := arguments.get("made"), Field):
            arguments["made"] = {each.name: getattr(made, each.name) for each in fields(made)}
        return self._world.do(self._name, "crm", self.now, call=call, **arguments)

    def crm_tick(self, times: int = 1, seconds: int = 1) -> None:
        """Lets `times` things happen in the CRM, each `seconds` after the one before."""
        for _ in range(times):
            self._world.do(self._name, "crm_tick", self.now + seconds)

    def read_crm(self, action: Callable[[Crm], T]) -> T:
        """`action(crm)` under the lock: what the CRM holds now. For reading; changes would not outlive a restart."""
        with self._world.lock:
            return action(self._world.crm(self._name))

    def mail(self, call: str, **arguments: Any) -> Any:
        """`mail("update", audience=1, member=3, company="X")`: a change of the `Mailing`, now. Gives what it gives."""
        return self._world.do(self._name, "mail", self.now, call=call, **arguments)

    def mail_tick(self, times: int = 1, seconds: int = 1) -> None:
        """Lets `times` things happen in the mailings, each `seconds` after the one before."""
        for _ in range(times):
            self._world.do(self._name, "mail_tick", self.now + seconds)

    def read_mailing(self, action: Callable[[Mailing], T]) -> T:
        """`action(mailing)` under the lock. For reading; changes would not outlive a restart."""
        with self._world.lock:
            return action(self._world.mailing(self._name))

    def act(self, action: Callable[[Business], T]) -> T:
        """`action(business)` under the lock, for lives made by hand. Not remembered over a restart."""
        with self._world.lock:
            return action(self._world.businesses[self._name])

    def objects(self, path: str) -> list[dict[str, Any]]:
        """All objects of the list /v1/{path}, newest first, as the API shows them."""
        return self._world.objects(self._name, path)

    def counts(self) -> dict[str, int]:
        return self._world.counts(self._name)

    def movements(self) -> list[dict[str, Any]]:
        """What GET /_books/{account}/mrr gives."""
        return self._world.movements(self._name)


class Sandbox:
    """A running sandbox at `url`."""

    def __init__(self, world: World, application: Application, url: str) -> None:
        self._world, self._application = world, application
        self.url = url

    @property
    def requests(self) -> int:
        """How many requests to /v1 came in so far."""
        return self._application.requests

    @property
    def salesforce(self) -> Salesforce:
        """The simulated Salesforce at the same URL, for tests that change its limits or take tokens back."""
        found = self._application.providers["salesforce"]
        assert isinstance(found, Salesforce)
        return found

    def requests_to(self, provider: str) -> int:
        """How many requests to a provider beside Stripe came in so far."""
        return self._application.provider_requests[provider]

    def hubspot(self, account: str) -> PortalHandle:
        """The account's portal of HubSpot."""
        provider = self._application.providers["hubspot"]
        assert isinstance(provider, HubSpot)
        return PortalHandle(provider, account)

    def mailchimp(self, account: str) -> MailchimpAccount:
        """The account at Mailchimp."""
        provider = self._application.providers["mailchimp"]
        assert isinstance(provider, Mailchimp)
        return MailchimpAccount(provider, account)

    def sendgrid(self, account: str) -> AccountHandle:
        """The account's SendGrid."""
        provider = self._application.providers["sendgrid"]
        assert isinstance(provider, SendGrid)
        return AccountHandle(provider, account)

    def account(self, name: str) -> Account:
        return Account(self._world, name)

    def fault(self, kind: str, path: str = "/v1/*", **details: Any) -> None:
        """As POST /_faults; see `faults.Fault`."""
        self._application.faults.add(Fault.of({"kind": kind, "path": path, **details}))

    def clear_faults(self) -> None:
        self._application.clear_faults()

    def webhooks(self, account: str, url: str, secret: str) -> None:
        """As POST /_webhooks: the account's events from now on go to `url`, signed."""
        self._application.deliveries.subscribe(account, url, secret)


@contextmanager
def serve(
    folder: Path,
    *,
    seed: int | None = None,
    anchor: int | None = None,
    scale: float | None = None,
    live: bool = False,
    bulk: int = 0,
    rate: float | None = None,
    compress: bool = False,
    port: int = 0,
    usage_stream: str | None = None,
) -> Iterator[Sandbox]:
    """A sandbox on a loopback port in a thread of its own, until the block ends.

    folder   keeps the history's origin and the journal; a second use continues
    anchor   the instant (seconds) at which the history ends; default now. Without `live` the clock stands there
    scale    1.0: about 1,600 and 900 customers; 0: empty accounts with a catalog
    bulk     customers of the account `bulk`
    rate     requests a second per key; default any number
    """
    world = World(folder, seed=seed, anchor=anchor, scale=scale, alive=live, bulk=bulk)
    application = Application(world, rate=rate, compress=compress, usage_stream=usage_stream)
    listener = listen(port)
    server = make_server(application)
    thread = Thread(target=lambda: asyncio.run(_serve(server, application, listener, live)), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        yield Sandbox(world, application, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        application.close()
        world.close()


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listener, on which clients wait until it is served; OSError where the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. Without it an answer's body waits 40 ms for the acknowledgement of its head
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def make_server(application: Application) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


async def _serve(server: uvicorn.Server, application: Application, listener: socket.socket, live: bool) -> None:
    tasks = [asyncio.create_task(application.deliveries.run())]
    if live:
        tasks.append(asyncio.create_task(application.live()))
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()


def run(application: Application, listener: socket.socket, live: bool) -> None:
    """Serves in the foreground until interrupted."""
    asyncio.run(_serve(make_server(application), application, listener, live))
