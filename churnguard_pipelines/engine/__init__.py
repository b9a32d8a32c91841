"""What moves data and knows no provider: pump, HTTP client, quota, retry, circuit breaker, mapping."""
