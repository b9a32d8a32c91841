-- Every kept version of every subscription of the organization, oldest first within a subscription.
-- Instants are epoch milliseconds; an item is [id, quantity, price, discounts, tax rates]. Its price has its tiers and
-- its options in other currencies where the list of prices told them.
SELECT integration_id,
       id AS subscription,
       customer,
       currency,
       status,
       (extract(epoch FROM valid_from) * 1000)::bigint AS valid_from,
       (extract(epoch FROM valid_to) * 1000)::bigint AS vanished,  -- of the newest: nothing came after it
       (extract(epoch FROM coalesce(start_date, created)) * 1000)::bigint AS started,
       (extract(epoch FROM trial_start) * 1000)::bigint AS trial_start,
       (extract(epoch FROM trial_end) * 1000)::bigint AS trial_end,
       (extract(epoch FROM ended_at) * 1000)::bigint AS ended,
       pause_collection IS NOT NULL AND pause_collection <> 'null' AS paused,
       coalesce(cancellation_details ->> 'reason' = 'payment_failed', false) AS failed,
       coalesce((extra #>> '{automatic_tax,enabled}')::boolean, false) AS automatic_tax,
       extra -> 'default_tax_rates' AS tax_rates,
       (SELECT jsonb_agg(jsonb_build_array(item ->> 'id', coalesce((item ->> 'quantity')::bigint, 0),
                                           (item -> 'price') || coalesce(listed_price.options, '{}'),
                                           item -> 'discounts', item -> 'tax_rates') ORDER BY position)
          FROM jsonb_array_elements(CASE WHEN jsonb_typeof(items) = 'array' THEN items END)
               WITH ORDINALITY AS listed (item, position)
          LEFT JOIN LATERAL (
               SELECT jsonb_strip_nulls(jsonb_build_object('tiers', tiers, 'currency_options', currency_options)) AS options
                 FROM raw.stripe_prices AS price
                WHERE price.organization_id = :organization_id
                  AND price.integration_id = stripe_subscriptions_versions.integration_id
                  AND price.id = item #>> '{price,id}') AS listed_price ON true) AS items,
       discounts
  FROM raw.stripe_subscriptions_versions
 WHERE organization_id = :organization_id AND customer IS NOT NULL
 ORDER BY integration_id COLLATE "C", id COLLATE "C", stripe_subscriptions_versions.valid_from
