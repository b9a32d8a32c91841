SELECT integration_id, id, duration, percent_off, amount_off, currency, currency_options,
       coalesce(jsonb_typeof(applies_to), 'null') <> 'null' AS restricted, applies_to -> 'products' AS products
  FROM raw.stripe_coupons
 WHERE organization_id = :organization_id
