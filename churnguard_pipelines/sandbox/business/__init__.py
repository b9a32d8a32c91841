"""A simulated SaaS business: its customers, subscriptions, invoices and payments over the years, and its own books."""
