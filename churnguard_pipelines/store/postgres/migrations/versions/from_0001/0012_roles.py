"""The services' login owns nothing here; two functions do what needs an owner in daily work. People may read."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, open_to_readers, protect

revision = "0012"
down_revision = "0011"

# Whoever looks may see how far the schema is; the tables of `raw` are made by their own owner.
SCHEMAS = """
GRANT SELECT ON control.alembic_version TO churnguard_operator;
GRANT USAGE, CREATE ON SCHEMA raw TO churnguard_raw;
GRANT USAGE ON SCHEMA control TO churnguard_raw;
GRANT SELECT, UPDATE ON control.locks TO churnguard_raw;
GRANT USAGE ON SCHEMA raw, analytics TO churnguard_reader, churnguard_tenant_reader;
GRANT SELECT ON analytics.exchange_rates TO churnguard_reader, churnguard_tenant_reader;
"""

# Both make their statements of a date alone.
INBOX_DAYS = """
CREATE FUNCTION ingest.make_inbox_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made text := 'webhook_inbox_' || to_char(day, 'YYYYMMDD');
BEGIN
    EXECUTE format(
        'CREATE TABLE ingest.%I PARTITION OF ingest.webhook_inbox FOR VALUES FROM (%L) TO (%L)',
        made, day, day + 1
    );
    EXECUTE format('ALTER TABLE ingest.%I ENABLE ROW LEVEL SECURITY', made);
    EXECUTE format('ALTER TABLE ingest.%I FORCE ROW LEVEL SECURITY', made);
END
$$;
CREATE FUNCTION ingest.drop_inbox_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('DROP TABLE ingest.%I', 'webhook_inbox_' || to_char(day, 'YYYYMMDD'));
END
$$;
REVOKE ALL ON FUNCTION ingest.make_inbox_day(date), ingest.drop_inbox_day(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ingest.make_inbox_day(date), ingest.drop_inbox_day(date) TO churnguard_operator;
"""

READERS = """
CREATE TABLE control.readers (
    login text NOT NULL,
    organization_id text NOT NULL REFERENCES control.organizations ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text,
    PRIMARY KEY (login, organization_id)
);
CREATE POLICY readers ON control.readers FOR SELECT TO churnguard_owner USING (true);
CREATE FUNCTION control.organizations_of_reader() RETURNS text[] LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(organization_id) FROM control.readers WHERE login = session_user
$$;
REVOKE ALL ON FUNCTION control.organizations_of_reader() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.organizations_of_reader() TO churnguard_tenant_reader;
"""

ANALYTICS = ("customer_mrr", "mrr_movements_by_currency", "mrr_movements", "subscription_timeline")


def upgrade() -> None:
    for script in (SCHEMAS, INBOX_DAYS, READERS):
        op.execute(script)
    for statement in protect("control", "readers", app=READ, operator=WRITE):
        op.execute(statement)
    for table in ANALYTICS:
        for statement in open_to_readers("analytics", table):
            op.execute(statement)
    # Those that were made before are their owner's, who alone may say who reads them.
    tables = op.get_bind().exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'raw'").scalars().all()
    op.execute("SET LOCAL ROLE churnguard_raw")
    for table in tables:
        for statement in open_to_readers("raw", table):
            op.get_bind().exec_driver_sql(statement.replace("%", "%%"))
    op.execute("SET LOCAL ROLE churnguard_owner")
