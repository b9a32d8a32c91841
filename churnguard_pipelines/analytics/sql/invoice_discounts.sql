-- Discounts as they stood on the invoices of subscriptions, oldest invoice first.
SELECT integration_id, subscription, (extract(epoch FROM created) * 1000)::bigint AS created, discounts
  FROM raw.stripe_invoices
 WHERE organization_id = :organization_id AND deleted_at IS NULL AND subscription IS NOT NULL
   AND jsonb_typeof(discounts) = 'array' AND billing_reason IN ('subscription_create', 'subscription_cycle')
 ORDER BY integration_id, subscription, stripe_invoices.created
