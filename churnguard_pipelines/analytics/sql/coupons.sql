SELECT integration_id, id, duration, percent_off, amount_off
  FROM raw.stripe_coupons
 WHERE organization_id = :organization_id AND duration IN ('forever', 'repeating')
