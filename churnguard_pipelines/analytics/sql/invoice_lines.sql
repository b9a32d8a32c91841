-- What was billed for subscription items, oldest first within a subscription: lines of invoices, and prorations that
-- wait for their invoice. Prices come from their own table, or from the items that still have them; one that is in
-- neither leaves price null. `void`: nobody had to pay; while collection is paused invoices are voided, or stay
-- drafts that do not advance (docs.stripe.com/billing/subscriptions/pause-payment).
WITH lines AS (
    SELECT integration_id, id AS bill, position,
           line #> '{parent,subscription_item_details}' AS details,
           line, line -> 'pricing' AS pricing, line -> 'period' AS period,
           status = 'void' OR (status = 'draft' AND auto_advance IS FALSE) AS void
      FROM raw.stripe_invoices, jsonb_array_elements(lines) WITH ORDINALITY AS listed (line, position)
     WHERE organization_id = :organization_id AND deleted_at IS NULL AND jsonb_typeof(lines) = 'array'
    UNION ALL
    SELECT integration_id, id, 1,
           jsonb_build_object('proration', true, 'proration_details', proration_details) || (parent -> 'subscription_details'),
           jsonb_build_object('amount', amount, 'quantity', quantity), pricing, period,
           false
      FROM raw.stripe_invoice_items
     WHERE organization_id = :organization_id AND deleted_at IS NULL AND proration AND invoice IS NULL
), prices AS (
    SELECT integration_id, id,
           jsonb_build_object('id', id, 'currency', currency, 'unit_amount_decimal', unit_amount_decimal::text,
                              'recurring', recurring, 'billing_scheme', billing_scheme, 'tiers_mode', tiers_mode,
                              'tiers', tiers, 'currency_options', currency_options, 'product', product,
                              'transform_quantity', nullif(transform_quantity, 'null')) AS price
      FROM raw.stripe_prices
     WHERE organization_id = :organization_id AND recurring IS NOT NULL
    UNION ALL
    SELECT DISTINCT ON (integration_id, item #>> '{price,id}') integration_id, item #>> '{price,id}', item -> 'price'
      FROM raw.stripe_subscriptions AS subscription, jsonb_array_elements(items) AS listed (item)
     WHERE organization_id = :organization_id AND jsonb_typeof(items) = 'array'
       AND NOT EXISTS (SELECT FROM raw.stripe_prices AS price
                        WHERE price.organization_id = :organization_id
                          AND price.integration_id = subscription.integration_id
                          AND price.id = item #>> '{price,id}' AND price.recurring IS NOT NULL)
)
SELECT lines.integration_id,
       details ->> 'subscription' AS subscription,
       bill,
       details ->> 'subscription_item' AS item,
       (period ->> 'start')::bigint * 1000 AS starts,
       (period ->> 'end')::bigint * 1000 AS ends,
       coalesce((details ->> 'proration')::boolean, false) AS proration,
       (line ->> 'amount')::bigint < 0
           OR coalesce(jsonb_typeof(details #> '{proration_details,credited_items}') = 'object', false) AS credit,
       (line ->> 'amount')::bigint AS amount,
       coalesce(line ->> 'quantity_decimal', line ->> 'quantity', '0') AS quantity,
       pricing #>> '{price_details,price}' AS price_id,
       pricing #>> '{price_details,product}' AS product,
       pricing ->> 'unit_amount_decimal' AS unit_amount,
       price,
       line -> 'taxes' AS taxes,
       line -> 'discount_amounts' AS discounted,
       coalesce(void, false) AS void
  FROM lines
  LEFT JOIN prices ON prices.integration_id = lines.integration_id AND prices.id = pricing #>> '{price_details,price}'
 WHERE details ->> 'subscription' IS NOT NULL AND details ->> 'subscription_item' IS NOT NULL
   AND price #>> '{recurring,usage_type}' IS DISTINCT FROM 'metered'
 ORDER BY lines.integration_id COLLATE "C", (details ->> 'subscription') COLLATE "C", starts, bill, position
