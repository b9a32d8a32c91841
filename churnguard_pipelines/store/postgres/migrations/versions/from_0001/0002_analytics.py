"""The churn facts of `analytics`, and the exchange rates they are stated with."""

from __future__ import annotations

from alembic import op

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0002"
down_revision = "0001"

_MOVEMENTS = """
    starting bigint NOT NULL,
    new bigint NOT NULL,
    expansion bigint NOT NULL,
    contraction bigint NOT NULL,
    churn bigint NOT NULL,
    reactivation bigint NOT NULL,
    ending bigint NOT NULL,
    computed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (starting + new + expansion + contraction + churn + reactivation = ending)
"""

TABLES = f"""
CREATE TABLE analytics.exchange_rates (
    day date NOT NULL,
    currency text NOT NULL,
    per_euro numeric NOT NULL CHECK (per_euro > 0),
    source text NOT NULL CHECK (source IN ('ecb', 'operator')),
    PRIMARY KEY (currency, day, source)
);
CREATE TABLE analytics.customer_mrr (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    customer text NOT NULL,
    currency text NOT NULL,
    month date NOT NULL,
    mrr bigint NOT NULL,
    carried bigint NOT NULL,
    PRIMARY KEY (organization_id, month, integration_id, customer, currency)
);
CREATE TABLE analytics.mrr_movements_by_currency (
    organization_id text NOT NULL,
    month date NOT NULL,
    currency text NOT NULL,
    {_MOVEMENTS},
    PRIMARY KEY (organization_id, month, currency)
);
CREATE TABLE analytics.mrr_movements (
    organization_id text NOT NULL,
    month date NOT NULL,
    currency text NOT NULL,
    {_MOVEMENTS},
    PRIMARY KEY (organization_id, month)
);
GRANT SELECT ON analytics.exchange_rates TO churnguard_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON analytics.exchange_rates TO churnguard_operator;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("customer_mrr", "mrr_movements_by_currency", "mrr_movements"):
        for statement in protect("analytics", table, app=WRITE, operator=READ):
            op.execute(statement)
