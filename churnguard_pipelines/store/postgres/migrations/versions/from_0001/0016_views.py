"""A typed view per integration and object, in a schema of its own, and what an account's objects are known to hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from alembic import op
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Connection

from churnguard_pipelines.store.postgres.row_security import READ, WRITE, protect

revision = "0016"
down_revision = "0015"

# Views belong to the owner of the tables that they show. Whoever reads one, reads the table by the rights of their own.
SCHEMA = """
CREATE SCHEMA views;
GRANT USAGE, CREATE ON SCHEMA views TO churnguard_raw;
GRANT USAGE ON SCHEMA views TO churnguard_app, churnguard_reader, churnguard_tenant_reader;
"""
OBJECTS = """
CREATE TABLE ingest.objects (
    organization_id text NOT NULL,
    integration_id text NOT NULL,
    object text NOT NULL,
    view_name text NOT NULL UNIQUE,
    label text,
    custom boolean NOT NULL DEFAULT false,
    fields jsonb NOT NULL DEFAULT '[]',
    view_digest text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (organization_id, integration_id, object)
)
"""

# A JSON value as another type; null where it is none. They fail for no value, and are written so that PostgreSQL puts
# their text in the place of the call. `syncing.typed_views` counts as drift what they make null.
FUNCTIONS = r"""
CREATE FUNCTION views.to_numeric(value jsonb) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value)
    WHEN 'number' THEN value::numeric
    WHEN 'string' THEN CASE
        WHEN length(value #>> '{}') <= 4100
         AND (value #>> '{}') ~ '^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$'
        THEN (value #>> '{}')::numeric END
    END;

CREATE FUNCTION views.to_bigint(value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value)
    WHEN 'number' THEN CASE
        WHEN value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 AND mod(value::numeric, 1) = 0
        THEN value::bigint END
    WHEN 'string' THEN CASE
        WHEN (value #>> '{}') ~ '^[+-]?[0-9]{1,20}$' THEN CASE
            WHEN (value #>> '{}')::numeric BETWEEN -9223372036854775808 AND 9223372036854775807
            THEN (value #>> '{}')::bigint END
        END
    END;

CREATE FUNCTION views.to_double(value jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE
    WHEN abs(views.to_numeric(value)) < 1e-300 THEN 0
    WHEN abs(views.to_numeric(value)) < 1.797e308 THEN views.to_numeric(value)::double precision
    END;

CREATE FUNCTION views.to_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value)
    WHEN 'boolean' THEN value::boolean
    WHEN 'string' THEN CASE lower(value #>> '{}') WHEN 'true' THEN true WHEN 'false' THEN false END
    END;

CREATE FUNCTION views.day_of(given text) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN given ~ '^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])' THEN CASE
        WHEN extract(month FROM make_date(substr(given, 1, 4)::integer, substr(given, 6, 2)::integer, 1)
                                + (substr(given, 9, 2)::integer - 1)) = substr(given, 6, 2)::integer
        THEN make_date(substr(given, 1, 4)::integer, substr(given, 6, 2)::integer, substr(given, 9, 2)::integer) END
    END;

CREATE FUNCTION views.to_date(value jsonb) RETURNS date LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    CASE WHEN jsonb_typeof(value) = 'string' AND (value #>> '{}') ~
        '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]00:00(:00([.,]0{1,9})?)?(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?$'
    THEN views.day_of(value #>> '{}') END;

CREATE FUNCTION views.moment_of(given text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE RETURN
    CASE WHEN given ~ ('^(?!0000|0001-01-01.*[+]|9999-12-31.*-)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
                       || '([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?'
                       || '(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?$')
    THEN CASE WHEN substr(given, 9, 2) <= '28' OR views.day_of(given) IS NOT NULL
    THEN CASE
        WHEN length(given) = 10 THEN given || ' 00:00Z'
        WHEN substr(given, 11) ~ '[Z+-]' THEN replace(given, ',', '.')
        ELSE replace(given, ',', '.') || 'Z' END::timestamptz
    END END;

CREATE FUNCTION views.to_timestamptz(value jsonb) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE RETURN
    CASE jsonb_typeof(value)
    WHEN 'number' THEN CASE
        WHEN value::numeric >= -62135596800 AND value::numeric < 253402300800
        THEN to_timestamp(value::double precision) END
    WHEN 'string' THEN views.moment_of(value #>> '{}')
    END;

CREATE FUNCTION views.to_jsonb(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    nullif(value, 'null');
"""

# The columns of `raw` that were declared until now, each with its path in the record where that is another: all others
# were made for field mappings. Stripe was the only provider with objects.
DECLARED = """
products: name description statement_descriptor unit_label active livemode created updated metadata
prices: product currency type billing_scheme lookup_key nickname tiers_mode unit_amount unit_amount_decimal active
    livemode created recurring tiers currency_options transform_quantity metadata
plans: product currency interval usage_type billing_scheme nickname tiers_mode amount interval_count
    trial_period_days amount_decimal active livemode created metadata
coupons: name currency duration amount_off duration_in_months max_redemptions times_redeemed percent_off valid
    livemode created redeem_by applies_to currency_options metadata
promotion_codes: code customer coupon=promotion.coupon max_redemptions times_redeemed active livemode created
    expires_at restrictions metadata
customers: email name description currency phone balance delinquent livemode created address discount metadata
subscriptions: customer status currency collection_method default_payment_method latest_invoice schedule
    cancel_at_period_end livemode created start_date trial_start trial_end billing_cycle_anchor cancel_at
    canceled_at ended_at items=items.data discounts pause_collection cancellation_details metadata
subscription_schedules: customer subscription status end_behavior released_subscription livemode created canceled_at
    completed_at released_at current_phase phases metadata
invoices: customer status currency number billing_reason collection_method customer_email
    subscription=parent.subscription_details.subscription subtotal total amount_due amount_paid amount_remaining
    attempt_count starting_balance ending_balance attempted auto_advance livemode created period_start period_end
    due_date effective_at next_payment_attempt lines=lines.data discounts total_discount_amounts total_taxes
    status_transitions parent metadata
invoice_items: customer invoice currency description price=pricing.price_details.price
    subscription=parent.subscription_details.subscription amount net_amount quantity proration discountable livemode
    date period pricing parent discounts proration_details metadata
charges: customer payment_intent balance_transaction status currency description failure_code failure_message
    payment_method receipt_email amount amount_captured amount_refunded paid captured refunded disputed livemode
    created billing_details outcome payment_method_details metadata
payment_intents: customer latest_charge status currency description payment_method cancellation_reason amount
    amount_capturable amount_received livemode created canceled_at last_payment_error payment_details metadata
refunds: charge payment_intent balance_transaction status reason currency failure_reason amount created metadata
disputes: charge payment_intent status reason currency amount is_charge_refundable livemode created
    balance_transactions evidence_details metadata
credit_notes: customer invoice number status type reason currency memo amount subtotal total discount_amount
    out_of_band_amount pre_payment_amount post_payment_amount livemode created effective_at voided_at
    lines=lines.data metadata
balance_transactions: source type reporting_category status currency description amount fee net exchange_rate
    created available_on fee_details
payouts: status type method currency destination balance_transaction failure_code description amount automatic
    livemode created arrival_date metadata
checkout_sessions: customer subscription payment_intent invoice mode status payment_status currency
    client_reference_id customer_email amount_subtotal amount_total livemode created expires_at customer_details
    total_details metadata
events: type api_version account object_id=data.object.id object_type=data.object.object pending_webhooks livemode
    created data request
"""
OWN = {"organization_id", "integration_id", "id", "extra", "source_version", "deleted_at", "delete_kind", "synced_at"}
OWN |= {"valid_from", "valid_to"}
READ_AS = {"bigint": "bigint", "numeric": "numeric", "double precision": "double", "boolean": "boolean"} | {
    "timestamp with time zone": "timestamptz", "date": "date", "jsonb": "jsonb",
}  # fmt: skip
MAPPINGS = """
SELECT organization_id, integration_id, mapped.object, mapped.columns
  FROM control.integrations, jsonb_each(config #> '{sync_config,field_mappings}') AS mapped (object, columns)
 WHERE provider = 'stripe' AND jsonb_typeof(mapped.columns) = 'object'
"""
COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
 WHERE attrelid = (SELECT oid FROM pg_class WHERE relnamespace = 'raw'::regnamespace AND relname = %s)
   AND attnum > 0 AND NOT attisdropped
"""
Path = tuple[str, ...]


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(OBJECTS)
    for statement in protect("ingest", "objects", app=READ, operator=WRITE):
        op.execute(statement)
    op.get_bind().exec_driver_sql(FUNCTIONS.replace("%", "%%"))
    _unmap(op.get_bind())


def _unmap(connection: Connection) -> None:
    """What mappings had put into columns goes back to where the provider has it; the columns that were made go."""
    connection.exec_driver_sql("ALTER TABLE control.integrations NO FORCE ROW LEVEL SECURITY")
    mappings = connection.exec_driver_sql(MAPPINGS.replace("%", "%%")).all()
    connection.exec_driver_sql("ALTER TABLE control.integrations FORCE ROW LEVEL SECURITY")
    connection.exec_driver_sql("SET LOCAL ROLE churnguard_raw")
    connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
    for name, declared in _declared():
        for table in (f"stripe_{name}", f"stripe_{name}_versions"):
            types = {row[0]: row[1] for row in connection.exec_driver_sql(COLUMNS, (table,))}
            here = [(row[0], row[1], row[3]) for row in mappings if row[2] == name]
            made = types.keys() - declared.keys() - OWN
            if types and (here or made):
                _unmap_table(connection, table, declared, types, here)
    connection.exec_driver_sql("SET LOCAL TimeZone TO DEFAULT")
    connection.exec_driver_sql("SET LOCAL ROLE churnguard_owner")


def _declared() -> Iterator[tuple[str, dict[str, Path]]]:
    """Object -> column -> path."""
    for line in DECLARED.replace("\n    ", " ").strip().splitlines():
        name, _, columns = line.partition(": ")
        parts = (column.partition("=") for column in columns.split())
        yield name, {column: tuple((path or column).split(".")) for column, _, path in parts}


def _unmap_table(
    connection: Connection,
    table: str,
    declared: Mapping[str, Path],
    types: Mapping[str, str],
    mappings: list[tuple[str, str, dict[str, str]]],
) -> None:
    raw = Identifier("raw", table)
    made = sorted(types.keys() - declared.keys() - OWN)
    _execute(connection, SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(raw))
    for organization_id, integration_id, columns in mappings:
        own = SQL("organization_id = {} AND integration_id = {}").format(
            Literal(organization_id), Literal(integration_id)
        )
        for path, column in columns.items():
            if column in types and column not in OWN:
                for statement in _put_back(raw, tuple(path.split(".")), column, declared, types):
                    _execute(connection, statement + SQL(" AND ") + own)
    for column in made:  # of mappings that there are not any more: under the column's name, if that is free
        for key in (column, f"{column}_mapped"):
            kept = SQL("UPDATE {} SET extra = {}, {name} = NULL WHERE {name} IS NOT NULL AND {} IS NULL").format(
                raw,
                _with((key,), column),
                SQL("extra -> {}").format(Literal(key)),
                name=Identifier(column),
            )
            _execute(connection, kept)
        _execute(connection, SQL("ALTER TABLE {} DROP COLUMN {}").format(raw, Identifier(column)))
    _execute(connection, SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(raw))


def _put_back(
    raw: Identifier, path: Path, column: str, declared: Mapping[str, Path], types: Mapping[str, str]
) -> Iterator[Composed]:
    """Of one integration's mapping; each ends with a condition to which its ids are added."""
    name = Identifier(column)
    reader = next((other for other, whole in declared.items() if whole == path), None)
    documented = any(path[: len(whole)] == whole for whole in declared.values())
    if column not in declared:
        if reader is not None:  # a declared column was called so
            value = _fitting(SQL("to_jsonb({})").format(name), types[reader])
            yield SQL("UPDATE {} SET {} = {} WHERE {} IS NULL").format(
                raw, Identifier(reader), value, Identifier(reader)
            )
            yield SQL("UPDATE {} SET {} = NULL WHERE {} IS NOT NULL").format(raw, name, Identifier(reader))
        else:
            if not documented:
                yield SQL("UPDATE {} SET extra = {} WHERE {} IS NOT NULL").format(raw, _with(path, column), name)
            yield SQL("UPDATE {} SET {} = NULL WHERE {} IS NOT NULL").format(raw, name, name)
    elif declared[column] != path:  # it was read from another path than its own, which was left in `extra`
        if not documented:
            yield SQL("UPDATE {} SET extra = {} WHERE {} IS NOT NULL").format(raw, _with(path, column), name)
        own_value = SQL("extra #> {}").format(Literal(list(declared[column])))
        value = _fitting(own_value, types[column])
        yield SQL(
            "UPDATE {} SET {} = {}, "
            "extra = CASE WHEN {} IS NULL THEN extra ELSE nullif(extra #- {}, '{{}}') END WHERE true"
        ).format(raw, name, value, value, Literal(list(declared[column])))


def _fitting(value: Composable, kind: str) -> Composed:
    if kind == "text":
        return SQL("({}) #>> '{{}}'").format(value)
    return SQL("views.{}({})").format(Identifier(f"to_{READ_AS[kind]}"), value)


def _with(path: Path, column: str) -> Composed:
    """``extra`` with the column's value at the path."""
    value = SQL("jsonb_build_object({}, to_jsonb({}))").format(Literal(path[-1]), Identifier(column))
    for length in range(len(path) - 1, 0, -1):
        there = SQL("extra #> {}").format(Literal(list(path[:length])))
        value = SQL(
            "jsonb_build_object({}, CASE WHEN jsonb_typeof({}) = 'object' THEN {} ELSE '{{}}' END || {})"
        ).format(Literal(path[length - 1]), there, there, value)
    return SQL("coalesce(extra, '{{}}') || {}").format(value)


def _execute(connection: Connection, statement: Composed) -> None:
    connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
