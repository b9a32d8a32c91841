-- Every kept version of every subscription of the organization, oldest first within a subscription.
-- Instants are epoch milliseconds; an item is [unit amount, quantity, interval, interval count, usage type].
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
       (SELECT jsonb_agg(jsonb_build_array(coalesce(item #>> '{price,unit_amount_decimal}', item #>> '{price,unit_amount}'),
                                           coalesce((item ->> 'quantity')::bigint, 0),
                                           item #>> '{price,recurring,interval}',
                                           (item #>> '{price,recurring,interval_count}')::int,
                                           item #>> '{price,recurring,usage_type}') ORDER BY position)
          FROM jsonb_array_elements(CASE WHEN jsonb_typeof(items) = 'array' THEN items END)
               WITH ORDINALITY AS listed (item, position)) AS items,
       discounts
  FROM raw.stripe_subscriptions_versions
 WHERE organization_id = :organization_id AND customer IS NOT NULL
 ORDER BY integration_id COLLATE "C", id COLLATE "C", stripe_subscriptions_versions.valid_from
