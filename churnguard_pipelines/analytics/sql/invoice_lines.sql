-- What was billed for subscription items: lines of invoices, and prorations that wait for their invoice.
-- A line without an invoice has no status. Prices that are not in the warehouse leave interval and usage null.
WITH lines AS (
    SELECT integration_id, id AS invoice, status, billing_reason, line,
           line #>> '{parent,subscription_item_details,subscription}' AS subscription,
           line #>> '{parent,subscription_item_details,subscription_item}' AS item,
           coalesce((line #>> '{parent,subscription_item_details,proration}')::boolean, false) AS proration
      FROM raw.stripe_invoices, jsonb_array_elements(lines) AS listed (line)
     WHERE organization_id = :organization_id AND deleted_at IS NULL AND jsonb_typeof(lines) = 'array'
    UNION ALL
    SELECT integration_id, NULL, NULL, NULL,
           jsonb_build_object('amount', amount, 'quantity', quantity, 'period', period, 'pricing', pricing),
           parent #>> '{subscription_details,subscription}',
           parent #>> '{subscription_details,subscription_item}',
           true
      FROM raw.stripe_invoice_items
     WHERE organization_id = :organization_id AND deleted_at IS NULL AND proration AND invoice IS NULL
)
SELECT lines.integration_id, subscription, item, invoice, lines.status, lines.billing_reason, proration,
       (line ->> 'amount')::bigint < 0 AS credit,
       coalesce((line ->> 'quantity')::bigint, 0) AS quantity,
       (line #>> '{period,start}')::bigint * 1000 AS starts,
       (line #>> '{period,end}')::bigint * 1000 AS ends,
       coalesce(price.unit_amount_decimal::text, line #>> '{pricing,unit_amount_decimal}') AS unit_amount,
       price.recurring ->> 'interval' AS interval,
       (price.recurring ->> 'interval_count')::int AS interval_count,
       price.recurring ->> 'usage_type' AS usage_type
  FROM lines
  LEFT JOIN raw.stripe_prices AS price
    ON price.organization_id = :organization_id AND price.integration_id = lines.integration_id
   AND price.id = line #>> '{pricing,price_details,price}'
 WHERE subscription IS NOT NULL AND item IS NOT NULL
 ORDER BY lines.integration_id, subscription, starts
