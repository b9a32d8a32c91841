"""Who may do what with a table: the two roles, their grants and their row-level security policies.

``churnguard_app`` does the work of one organization at a time and sees only its rows; ``churnguard_operator`` does the
work of the installation (scheduling, dashboards, retention). Neither owns anything nor may bypass row security.
"""

from __future__ import annotations

from psycopg.sql import SQL, Identifier, Literal

APP = "churnguard_app"
OPERATOR = "churnguard_operator"
CONTEXT = "churnguard.organization_id"

READ = "SELECT"
APPEND = "SELECT, INSERT"
WRITE = "SELECT, INSERT, UPDATE, DELETE"


def protect(schema: str, table: str, *, app: str = WRITE, operator: str = WRITE) -> list[str]:
    """Statements that put a new table with an ``organization_id`` under row security and grant it to the two roles.

    ``app``, ``operator``: what each may do with the rows it sees, one of ``READ``, ``APPEND``, ``WRITE``.
    An unset organization shows no rows: ``current_setting(…, true)`` is then null, or empty later in the session.
    """
    name = Identifier(schema, table)
    own = SQL("organization_id = current_setting({}, true)").format(Literal(CONTEXT))
    everything = SQL("true")
    statements = [
        SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name),
        SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name),
        *(
            SQL("CREATE POLICY {} ON {} TO {} USING ({condition}) WITH CHECK ({condition})").format(
                Identifier(policy), name, Identifier(role), condition=condition
            )
            for policy, role, condition in (("own_rows", APP, own), ("every_row", OPERATOR, everything))
        ),
        *(
            SQL("GRANT {} ON {} TO {}").format(_privileges(rights), name, Identifier(role))
            for role, rights in ((APP, app), (OPERATOR, operator))
        ),
    ]
    return [statement.as_string(None) for statement in statements]


def _privileges(rights: str) -> SQL:
    return {READ: SQL("SELECT"), APPEND: SQL("SELECT, INSERT"), WRITE: SQL("SELECT, INSERT, UPDATE, DELETE")}[rights]
