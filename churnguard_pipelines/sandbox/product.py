"""The product that a business sells, as its database tells: workspaces, their users, and what these do in it.

A workspace per customer of the simulated Stripe. The history is written once, into an empty database; while the
business lives, people sign up, work, change their role and leave: a handful work in a second, one leaves in hours.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from random import Random
from typing import Any

import psycopg

from churnguard_pipelines.sandbox.business.entities import Customer
from churnguard_pipelines.sandbox.world import World

TABLES = """
CREATE TABLE IF NOT EXISTS workspaces (
    id bigint PRIMARY KEY, customer_id text NOT NULL UNIQUE, name text NOT NULL, seats int NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, workspace_id bigint NOT NULL REFERENCES workspaces,
    email text NOT NULL, role text NOT NULL, active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL, last_seen_at timestamptz
);
CREATE TABLE IF NOT EXISTS usage_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL, workspace_id bigint NOT NULL,
    kind text NOT NULL, quantity numeric(10,2) NOT NULL, at timestamptz NOT NULL
);
"""
KINDS = ("report_opened", "dashboard_built", "export", "api_call")
ROLES = ("owner", "admin", "member", "viewer")
EVENTS_PER_USER = 5
_ONE_OF = 997
"""The share of a second's statement in all users."""
_LIFE = {
    "INSERT INTO usage_events (user_id, workspace_id, kind, quantity, at) SELECT id, workspace_id, %(kind)s, "
    f"round((random() * 10)::numeric, 2), now() FROM users WHERE active AND id %% {_ONE_OF} = %(chance)s": 1,
    f"UPDATE users SET last_seen_at = now() WHERE active AND id %% {_ONE_OF} = %(chance)s": 4,
    "UPDATE users SET role = %(role)s WHERE id = (SELECT id FROM users OFFSET %(chance)s LIMIT 1)": 600,
    "UPDATE workspaces SET seats = seats + 1, updated_at = now() WHERE id = %(chance)s": 600,
    "DELETE FROM users WHERE id = (SELECT id FROM users WHERE role <> 'owner' OFFSET %(chance)s LIMIT 1)": 14_400,
}
"""What happens, and once in how many seconds: fewer leave in a day than sign up."""


class Product:
    """One business's product database at ``url``, which exists. Lives in a thread of its own after :meth:`live`."""

    def __init__(self, world: World, account: str, url: str) -> None:
        self._world, self._account, self._url = world, account, url
        self._chance = Random(f"{account}/product")  # noqa: S311 - a simulation that must come out the same again
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        with psycopg.connect(url) as connection:
            connection.execute(TABLES)
            self._sign_up(connection)

    def live(self) -> None:
        self._thread = threading.Thread(target=self._live, name=f"product-{self._account}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        while not self._ended.is_set():
            try:
                with psycopg.connect(self._url) as connection:
                    while not self._ended.wait(1.0):
                        self._second(connection)
            except psycopg.OperationalError:  # its server is away: life goes on when it is back
                self._ended.wait(1.0)

    def _second(self, connection: psycopg.Connection[Any]) -> None:
        self._sign_up(connection)
        for statement, seconds in _LIFE.items():
            values = {
                "kind": self._chance.choice(KINDS), "role": self._chance.choice(ROLES[1:]),
                "chance": self._chance.randrange(_ONE_OF),
            }  # fmt: skip
            if self._chance.random() < 1 / seconds:
                connection.execute(statement, values)
        connection.commit()

    def _sign_up(self, connection: psycopg.Connection[Any]) -> None:
        """A workspace with its people for each customer that has none yet."""
        (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM workspaces").fetchone() or (0,)
        with self._world.lock:
            customers = [each for each in self._world.businesses[self._account].customers if each.place >= last]
        if not customers:
            return
        with connection.cursor() as cursor:
            with cursor.copy(
                "COPY workspaces (id, customer_id, name, seats, created_at, updated_at) FROM STDIN"
            ) as copy:
                for customer in customers:
                    copy.write_row(self._workspace(customer))
            cursor.execute(
                "INSERT INTO users (workspace_id, email, role, created_at, last_seen_at) "
                "SELECT w.id, 'user' || n || '@' || w.customer_id || '.example.com', "
                "CASE WHEN n = 1 THEN 'owner' ELSE 'member' END, w.created_at, w.created_at + n * interval '1 day' "
                "FROM workspaces w, generate_series(1, w.seats) n WHERE w.id > %s",
                [last],
            )
            cursor.execute(
                "INSERT INTO usage_events (user_id, workspace_id, kind, quantity, at) "
                "SELECT u.id, u.workspace_id, (%s::text[])[1 + (u.id + n) %% 4], (u.id * n %% 1000) / 100.0, "
                "u.created_at + n * interval '1 day' FROM users u, generate_series(1, %s) n WHERE u.workspace_id > %s",
                [list(KINDS), EVENTS_PER_USER, last],
            )
        connection.commit()

    def _workspace(self, customer: Customer) -> tuple[Any, ...]:
        moment = datetime.fromtimestamp(customer.created, UTC).isoformat()
        return customer.place + 1, customer.id, customer.name, 1 + customer.place % 5, moment, moment
