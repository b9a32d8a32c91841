-- Invoices for whole periods of subscriptions, oldest first within a subscription: the discounts as they stood, of the
-- whole and of single lines, and when the first one was paid where the subscription had to wait for that.
SELECT integration_id,
       subscription,
       (extract(epoch FROM created) * 1000)::bigint AS created,
       discounts || coalesce((SELECT jsonb_agg(discount)
                                FROM jsonb_array_elements(CASE WHEN jsonb_typeof(lines) = 'array' THEN lines END) AS listed (line),
                                     jsonb_array_elements(CASE WHEN jsonb_typeof(line -> 'discounts') = 'array'
                                                               THEN line -> 'discounts' END) AS applied (discount)),
                             '[]') AS discounts,
       CASE WHEN billing_reason = 'subscription_create' AND collection_method = 'charge_automatically'
            THEN (status_transitions ->> 'paid_at')::bigint * 1000 END AS first_paid
  FROM raw.stripe_invoices
 WHERE organization_id = :organization_id AND deleted_at IS NULL AND subscription IS NOT NULL
   AND jsonb_typeof(discounts) = 'array' AND billing_reason IN ('subscription_create', 'subscription_cycle')
 ORDER BY integration_id COLLATE "C", subscription COLLATE "C", stripe_invoices.created
