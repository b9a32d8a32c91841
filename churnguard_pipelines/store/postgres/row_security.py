"""Who may do what with a table: the roles, their grants and their row-level security policies.

The services log in as a role that has no right of its own and takes one of three for a transaction: ``churnguard_app``
does the work of one organization at a time and sees only its rows; ``churnguard_operator`` does the work of the
installation (scheduling, dashboards, retention); ``churnguard_raw`` owns the tables of ``raw`` and their views, and
changes both, but not their rows. Everything else belongs to ``churnguard_owner``, which only the set-up of the database
may take. People get ``churnguard_reader``, or ``churnguard_tenant_reader`` for some organizations only.
"""

from __future__ import annotations

from psycopg.sql import SQL, Composed, Identifier, Literal

OWNER = "churnguard_owner"
RAW = "churnguard_raw"
APP = "churnguard_app"
OPERATOR = "churnguard_operator"
READER = "churnguard_reader"
TENANT_READER = "churnguard_tenant_reader"
GROUPS = (OWNER, RAW, APP, OPERATOR, READER, TENANT_READER)
"""Nobody logs in as one of these."""
SERVICES_GROUPS = (RAW, APP, OPERATOR)
"""What the services' login may take."""
SERVICE = "churnguard_service"
"""The services' login, where no other one is named."""
CONTEXT = "churnguard.organization_id"

READ = "SELECT"
APPEND = "SELECT, INSERT"
WRITE = "SELECT, INSERT, UPDATE, DELETE"

_OWN = SQL("organization_id = current_setting({}, true)").format(Literal(CONTEXT))
# The subquery is asked once for a statement; session_user, whom it goes by, cannot be chosen as a setting can.
_GRANTED = SQL("organization_id = ANY ((SELECT control.organizations_of_reader())::text[])")
_ALL = SQL("true")


def protect(schema: str, table: str, *, app: str = WRITE, operator: str = WRITE) -> list[str]:
    """Statements that put a new table with an ``organization_id`` under row security and grant it to the services.

    ``app``, ``operator``: what each may do with the rows it sees, one of ``READ``, ``APPEND``, ``WRITE``.
    An unset organization shows no rows: ``current_setting(…, true)`` is then null, or empty later in the session.
    A table in ``raw`` is open to readers too.
    """
    name = Identifier(schema, table)
    statements = [
        SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name),
        SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name),
        *(
            SQL("CREATE POLICY {} ON {} TO {} USING ({condition}) WITH CHECK ({condition})").format(
                Identifier(policy), name, Identifier(role), condition=condition
            )
            for policy, role, condition in (("own_rows", APP, _OWN), ("every_row", OPERATOR, _ALL))
        ),
        *(
            SQL("GRANT {} ON {} TO {}").format(_privileges(rights), name, Identifier(role))
            for role, rights in ((APP, app), (OPERATOR, operator))
        ),
    ]
    readers = open_to_readers(schema, table) if schema == "raw" else []
    return [*(statement.as_string(None) for statement in statements), *readers]


def open_to_readers(schema: str, table: str) -> list[str]:
    """Statements that let people read a table: those of the installation all of it, others what was granted them."""
    name = Identifier(schema, table)
    statements: list[Composed] = [
        SQL("CREATE POLICY {} ON {} FOR SELECT TO {} USING ({})").format(
            Identifier(policy), name, Identifier(role), condition
        )
        for policy, role, condition in (("readers", READER, _ALL), ("tenant_readers", TENANT_READER, _GRANTED))
    ]
    statements.append(SQL("GRANT SELECT ON {} TO {}, {}").format(name, Identifier(READER), Identifier(TENANT_READER)))
    return [statement.as_string(None) for statement in statements]


def open_view(name: str) -> Composed:
    """A statement that lets those read a view who may read its table; the table's policies say which rows."""
    view = Identifier("views", name)
    readers = SQL(", ").join(map(Identifier, (APP, READER, TENANT_READER)))
    return SQL("GRANT SELECT ON {} TO {}").format(view, readers)


def _privileges(rights: str) -> SQL:
    return {READ: SQL("SELECT"), APPEND: SQL("SELECT, INSERT"), WRITE: SQL("SELECT, INSERT, UPDATE, DELETE")}[rights]
